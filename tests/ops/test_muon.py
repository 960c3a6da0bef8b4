"""Muon's update: where singular values end, which matrix comes out, one expert as if alone, how far an entry moves."""

import math

import numpy as np
import pytest
from support import assert_close

from minids.kernels import muon as compiled
from minids.ops import muon

SHAPES = [(8, 8), (6, 17), (17, 6), (1, 9), (9, 1), (3, 5, 12), (2, 2, 12, 5)]

SMALLEST, BAND = 0.003, (0.68, 1.21)  # where singular values end that were at least ``SMALLEST`` of the Frobenius norm


def polynomial(s):
    """What five rounds do to one singular value, written out for numbers."""
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return s


def with_values(s, shape, seed=0):
    """A matrix (out, in) with the singular values ``s``, its U and its Vᵀ."""
    rng = np.random.default_rng(seed)
    u = np.linalg.qr(rng.normal(size=(shape[0], len(s))))[0]
    v = np.linalg.qr(rng.normal(size=(shape[1], len(s))))[0]
    return (u * s) @ v.T, u, v.T


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_end_in_the_stated_band(shape, dtype):
    x = np.random.default_rng(1).normal(size=shape).astype(dtype) * 1e-4
    out = muon.orthogonalised(x)
    assert out.dtype == dtype and out.shape == shape
    start = np.linalg.svd(x, compute_uv=False)
    large = start >= SMALLEST * np.sqrt((start**2).sum(axis=-1, keepdims=True))
    assert large.all(), "a random matrix has no tiny singular values; the test needs another seed"
    end = np.linalg.svd(out, compute_uv=False)
    assert BAND[0] <= end.min() and end.max() <= BAND[1], f"{end.min():.3f} … {end.max():.3f}"


def test_the_band_holds_from_the_stated_smallest_value_on_and_not_below():
    low, high = BAND
    ends = polynomial(np.geomspace(SMALLEST, 1, 100_001))
    assert low <= ends.min() <= low + 0.01 and high - 0.01 <= ends.max() <= high
    assert polynomial(SMALLEST / 2) < low
    assert polynomial(1e-6) == pytest.approx(3.4445**5 * 1e-6, rel=1e-6)


@pytest.mark.parametrize("shape", [(7, 12), (12, 7)])
def test_only_the_singular_values_change_and_as_the_polynomial_says(shape):
    s = np.geomspace(1, 0.01, 7)
    x, u, v = with_values(s, shape)
    assert_close(muon.orthogonalised(x), (u * polynomial(s / np.sqrt((s**2).sum()))) @ v, 1e-10)


def test_it_lies_near_the_polar_factor_that_an_svd_gives():
    x = np.random.default_rng(2).normal(size=(20, 31))
    u, _, v = np.linalg.svd(x, full_matrices=False)
    off = muon.orthogonalised(x) - u @ v
    assert np.linalg.norm(off, 2) <= 1 - BAND[0], "further from U Vᵀ than the band allows"
    assert np.linalg.norm(off) < 0.2 * np.linalg.norm(u @ v)


def test_classic_coefficients_converge_to_the_polar_factor(monkeypatch):
    """The iteration itself is right: with 15/8, −10/8, 3/8 and more rounds nothing is left of the distance."""
    monkeypatch.setattr(muon, "COEFFICIENTS", (15 / 8, -10 / 8, 3 / 8))
    x = np.random.default_rng(3).normal(size=(4, 9, 6))
    u, _, v = np.linalg.svd(x, full_matrices=False)
    assert_close(muon.orthogonalised(x, rounds=30), u @ v, 1e-9)


def test_stacked_experts_are_orthogonalised_one_by_one():
    rng = np.random.default_rng(4)
    stacked = rng.normal(size=(5, 6, 9)) * np.array([1, 10, 1e-3, 0, 100.0])[:, None, None]
    assert_close(muon.orthogonalised(stacked), np.stack([muon.orthogonalised(one) for one in stacked]), 1e-12)
    values = [np.zeros((5, 6, 9)), np.zeros((6, 9)), np.zeros((2, 6, 9))]
    grads = [rng.normal(size=v.shape) for v in values]
    apart, together = ([v.copy() for v in values] for _ in range(2))
    momenta = [[np.zeros_like(v) for v in values] for _ in range(2)]
    muon.update(together, grads, momenta[0], 0.1, 0.9, 0.1)
    for v, g, m in zip(apart, grads, momenta[1], strict=True):
        for one in range(len(v)) if v.ndim == 3 else [...]:
            muon.update([v[one]], [g[one]], [m[one]], 0.1, 0.9, 0.1)
    for a, b in zip(together, apart, strict=True):
        assert_close(a, b, 1e-12)


def test_a_matrix_without_gradient_stays_where_it_is():
    """An expert that no token chose: 0 / 0 must not become NaN, and the others of its layer must move."""
    values, grads, m = np.ones((2, 4, 6), np.float32), np.zeros((2, 4, 6), np.float32), np.zeros((2, 4, 6), np.float32)
    grads[1] = np.random.default_rng(5).normal(size=(4, 6))
    muon.update([values], [grads], [m], 0.1, 0.95, 0.0)
    assert (values[0] == 1).all() and np.isfinite(values).all() and (values[1] != 1).all()


@pytest.mark.parametrize("muon", [muon, compiled], ids=["numpy", "numba"])
@pytest.mark.parametrize("size", [1e-30, 1e-22, 1e25])
def test_a_momentum_far_from_one_has_its_direction_still(muon, size):
    """Of an expert that nobody chooses it shrinks by 5 % a step: after 900 steps its squares are no float32 any more."""
    direction = np.random.default_rng(6).normal(size=(4, 6))
    updates = []
    for factor in (1.0, size):
        values, m = np.zeros((4, 6), np.float32), (direction * factor).astype(np.float32)
        muon.update([values], [np.zeros_like(m)], [m], 0.1, 0.95, 0.0)
        updates.append(values)
    assert_close(updates[1], updates[0], 1e-3)


@pytest.mark.parametrize("shape", [(16, 16), (16, 64), (64, 16), (3, 16, 64)])
def test_an_entry_moves_by_a_fifth_of_the_learning_rate_whatever_the_shape(shape):
    values, m = np.zeros(shape), np.zeros(shape)
    muon.update([values], [np.random.default_rng(6).normal(size=shape)], [m], 0.01, 0.95, 0.1)
    rms = math.sqrt((values**2).mean())
    assert 0.002 * BAND[0] <= rms <= 0.002 * BAND[1], f"{rms:.5f} instead of 0.002"


def test_three_steps_by_hand():
    """Momentum, Nesterov's look ahead, clipping and decay, each as its equation has it; U Vᵀ of one row is its direction."""
    rng = np.random.default_rng(7)
    w = start = rng.normal(size=(1, 5))
    value, m, average = start.copy(), np.zeros((1, 5)), 0.0
    for g, rate in zip(rng.normal(size=(3, 1, 5)), (0.1, 0.05, 0.2), strict=True):
        before = g.copy()
        muon.update([value], [g], [m], rate, 0.9, 0.3, scale=0.5)
        assert np.array_equal(g, before), "the gradient was written to"
        average = 0.9 * average + 0.1 * 0.5 * g
        ahead = 0.9 * average + 0.1 * 0.5 * g
        step = polynomial(1.0) * ahead / np.linalg.norm(ahead)
        w = w - rate * (0.2 * math.sqrt(5) * step + 0.3 * w)
        assert_close(value, w, 1e-12)
        assert_close(m, average, 1e-12)
