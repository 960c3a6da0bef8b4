"""Rotary frequencies and YaRN against DeepSeek's published constants, and against a second formulation."""

import math

import numpy as np
import pytest
import support

from minids.config import ModelConfig
from minids.layers import positions
from minids.ops import yarn

V3 = dict(rope_dim=64, base=10000.0, original_length=4096)


def test_plain_frequencies():
    want = [10000.0 ** (-2 * i / 64) for i in range(32)]
    support.assert_close(yarn.plain_frequencies(64, 10000.0), want)


def test_cut_offs_of_v3():
    """Pairs that turn 32 times in 4096 tokens and more are kept (up to index 10), less than once: slowed down (from 23)."""
    assert math.isclose(yarn.correction_dim(32, 64, 10000.0, 4096), 10.4722, abs_tol=1e-4)
    assert math.isclose(yarn.correction_dim(1, 64, 10000.0, 4096), 22.5134, abs_tol=1e-4)
    assert yarn.cut_offs(**V3) == (10, 23)


def test_cut_offs_are_clipped_to_the_first_index_and_to_the_last_of_the_dimensions():
    """DeepSeek's code clips at d_r − 1, not at the last pair, d_r/2 − 1: the ramp may end beyond the pairs."""
    dim = yarn.correction_dim(1.0, 16, 10.0, 4096)
    assert dim > 15, "slow pairs would begin beyond all dimensions"
    assert yarn.cut_offs(16, 10.0, 4096) == (10, 15)
    dim = yarn.correction_dim(1.0, 16, 100.0, 4096)
    assert 7 < dim < 15, "between the last pair and the last dimension nothing is clipped"
    assert yarn.cut_offs(16, 100.0, 4096) == (5, math.ceil(dim))
    assert yarn.cut_offs(16, 1e9, 40)[0] == 0, "no pair turns 32 times in 40 tokens"


def test_a_pair_at_the_correction_dim_turns_that_often():
    """The definition of dim(r): a pair at that index turns r times within the original context."""
    for rotations in (1.0, 7.5, 32.0):
        index = yarn.correction_dim(rotations, 64, 10000.0, 4096)
        assert math.isclose(4096 * 10000.0 ** (-2 * index / 64) / (2 * math.pi), rotations, rel_tol=1e-12)


def test_frequencies_of_v3():
    got = yarn.yarn_frequencies(factor=40.0, **V3)
    known = {10: 0.0562341325, 11: 0.0390069266, 16: 0.0055, 22: 1.77827941e-4, 23: 3.33380358e-5, 31: 3.33380358e-6}
    for i, want in known.items():
        assert math.isclose(got[i], want, rel_tol=1e-8), f"inv_freq of pair {i} is {got[i]:.9g}, expected {want}"
    plain = yarn.plain_frequencies(64, 10000.0)
    np.testing.assert_array_equal(got[:11], plain[:11])  # the fast ones, untouched
    support.assert_close(got[23:], plain[23:] / 40)
    between = got[11:23] / plain[11:23]
    assert (np.diff(between) < 0).all() and between.max() < 1 and between.min() > 1 / 40, "a ramp from kept to slowed"


@pytest.mark.parametrize(
    ("size", "base", "length", "fast", "slow"), [(8, 10000.0, 64, 32.0, 1.0), (16, 50000.0, 512, 8.0, 0.5)]
)
def test_frequencies_are_the_two_scalings_mixed_pair_by_pair(size, base, length, fast, slow):
    low = max(math.floor(size * math.log(length / (fast * 2 * math.pi)) / (2 * math.log(base))), 0)
    high = min(math.ceil(size * math.log(length / (slow * 2 * math.pi)) / (2 * math.log(base))), size - 1)
    want = []
    for i in range(size // 2):
        extrapolated = base ** (-2 * i / size)
        kept = 1.0 if i <= low else 0.0 if i >= high else 1 - (i - low) / (high - low)
        want.append(kept * extrapolated + (1 - kept) * extrapolated / 12)
    support.assert_close(yarn.yarn_frequencies(size, base, 12.0, length, fast, slow), want)


def test_equal_betas_make_a_step_and_not_a_division_by_zero():
    np.testing.assert_array_equal(yarn.ramp(10, 3, 3), [0, 0, 0, 0, 1])


def test_mscale_of_v3_and_v2():
    assert math.isclose(yarn.mscale(40, 1.0), 1.3688879454, rel_tol=1e-10)
    assert math.isclose(yarn.mscale(40, 0.707), 1.2608037774, rel_tol=1e-10)
    assert yarn.mscale(1.0, 1.0) == 1.0


@pytest.mark.parametrize(
    ("preset", "scale"), [("deepseek-v3", 0.1352337788), ("deepseek-v2-lite", 0.1147213868), ("moonlight-16b-a3b", 192**-0.5)]
)
def test_softmax_scale_of_the_published_models(preset, scale):
    assert math.isclose(positions.softmax_scale(ModelConfig.preset(preset)), scale, rel_tol=1e-9)


def test_rotation_table_is_cos_and_sin_of_position_times_frequency():
    far = 2**24 + 1  # no float32
    cos, sin = yarn.rotation_table(np.array([0.5, 0.01]), np.array([0, 3, 100000, far]), amplitude=1.1)
    for t, position in enumerate([0, 3, 100000, far]):
        for i, frequency in enumerate([0.5, 0.01]):
            assert math.isclose(cos[t, i], 1.1 * math.cos(position * frequency), abs_tol=1e-12)
            assert math.isclose(sin[t, i], 1.1 * math.sin(position * frequency), abs_tol=1e-12)


def test_a_float32_table_is_the_float64_one_rounded_even_far_out():
    frequencies, far = yarn.plain_frequencies(8, 10000.0), np.array([163839])
    exact, rounded = yarn.rotation_table(frequencies, far), yarn.rotation_table(frequencies, far, dtype=np.float32)
    for a, b in zip(exact, rounded, strict=True):
        assert b.dtype == np.float32
        np.testing.assert_allclose(b, a, atol=1e-7)
