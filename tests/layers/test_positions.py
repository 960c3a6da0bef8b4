"""From a configuration to angles and to the scale of the logits."""

import math

import numpy as np
import support

from minids.config import Yarn
from minids.layers.positions import rotary, softmax_scale
from minids.ops import yarn

CONFIG = support.TINY.replace(rope_theta=100.0)


def test_plain_angles_and_scale():
    cos, sin = rotary(CONFIG, np.array([0, 7]), np.float64)
    support.assert_close(np.arctan2(sin[1], cos[1]), np.angle(np.exp(1j * 7 * np.array([1.0, 0.1]))))
    np.testing.assert_array_equal(cos[0], [1, 1])
    assert math.isclose(softmax_scale(CONFIG), 10**-0.5)


def test_yarn_reaches_the_angles_and_the_scale():
    scaling = Yarn(factor=4.0, original_max_position_embeddings=50, beta_fast=6, beta_slow=0.25, mscale=1.2, mscale_all_dim=0.5)
    config = CONFIG.replace(rope_scaling=scaling)
    cos, sin = rotary(config, np.array([0, 3]), np.float64)
    amplitude = (0.12 * math.log(4) + 1) / (0.05 * math.log(4) + 1)
    support.assert_close(np.hypot(cos, sin), np.full((2, 2), amplitude), what="amplitude m(s, mscale) / m(s, mscale_all_dim)")
    support.assert_close(np.arctan2(sin[1], cos[1]), 3 * yarn.yarn_frequencies(4, 100.0, 4.0, 50, 6, 0.25))
    assert math.isclose(softmax_scale(config), 10**-0.5 * (0.05 * math.log(4) + 1) ** 2)


def test_the_first_positions_are_a_prefix():
    whole, part = rotary(CONFIG, np.arange(9), np.float32), rotary(CONFIG, np.arange(4), np.float32)
    for a, b in zip(whole.first(4), part, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == np.float32
