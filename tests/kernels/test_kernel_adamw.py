import numpy as np
import pytest
from agreement import DTYPES, assert_same, dtypes, examples, normal, seeds, twins, uncompiled
from hypothesis import given
from hypothesis import strategies as st

from minids.ops import bfloat16

reference, ours = twins("adamw")


def stepped(module, arrays, **settings):
    values, grads, m, v = (a.copy() for a in arrays)
    module.update(values, grads, m, v, **settings)
    return values, grads, m, v


def textbook(arrays, lr, beta1, beta2, eps, weight_decay, step, scale):
    """Kingma & Ba, algorithm 1, and Loshchilov & Hutter, algorithm 2, in float64."""
    values, grads, m, v = (a.astype(np.float64) for a in arrays)
    g = scale * grads
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
    m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
    return values - lr * (m_hat / (np.sqrt(v_hat) + eps) + weight_decay * values), grads, m, v


def arrays_of(rng, size, dtype):
    values, grads, m, v = (normal(rng, (size,), dtype) for _ in range(4))
    return values, grads, m, v * v


@pytest.mark.parametrize("module", [reference, ours], ids=["ops", "kernels"])
def test_one_step_is_the_textbook_step(module):
    @examples
    @given(
        seed=seeds, dtype=dtypes, size=st.sampled_from([0, 1, 37, 16384, 16390]), step=st.sampled_from([1, 2, 1000]),
        weight_decay=st.sampled_from([0.0, 0.1]), scale=st.sampled_from([1.0, 0.03]),
    )  # fmt: skip
    def check(seed, dtype, size, step, weight_decay, scale):
        arrays = arrays_of(np.random.default_rng(seed), size, dtype)
        settings = dict(lr=3e-3, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=weight_decay, step=step, scale=scale)
        expected = tuple(a.astype(dtype) for a in textbook(arrays, **settings))
        assert_same(stepped(module, arrays, **settings), expected, "(values, grads, m, v)")

    check()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("compiled", [True, False])
def test_moments_in_bf16_are_the_textbook_step_and_then_rounded(monkeypatch, dtype, compiled):
    if not compiled:
        uncompiled(monkeypatch, ours)
    arrays = arrays_of(np.random.default_rng(0), 4000 if compiled else 60, dtype)
    arrays[1][7] = np.nan
    moments = tuple(bfloat16.encode(a) for a in arrays[2:])
    settings = dict(lr=3e-3, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, step=3, scale=0.5)
    decoded = (*arrays[:2], *(bfloat16.decode(a).astype(dtype) for a in moments))
    values, _, m, v = textbook(decoded, **settings)
    for module in (reference, ours):
        got = stepped(module, (*arrays[:2], *moments), **settings)
        assert_same(got[0], values.astype(dtype), "the step takes moments that were not rounded yet")
        assert got[2].dtype == got[3].dtype == np.uint16
        for name, ours_bits, exact in (("m", got[2], m), ("v", got[3], v)):
            assert np.isnan(bfloat16.decode(ours_bits[7:8])).all(), f"{name}: a NaN was lost"
            same = np.delete(ours_bits == bfloat16.encode(exact.astype(np.float32)), 7)
            assert same.mean() > 0.998, f"{name}: not to the nearest; only a tie in float32 may go the other way"


@pytest.mark.parametrize("module", [reference, ours], ids=["ops", "kernels"])
def test_decay_is_decoupled_from_the_gradient(module):
    values, zeros = np.full(5, 2.0), np.zeros(5)
    after, _, m, v = stepped(
        module, (values, zeros, zeros, zeros), lr=0.5, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, step=1, scale=1.0
    )
    np.testing.assert_allclose(after, 2.0 * (1 - 0.5 * 0.1), err_msg="values did not shrink by lr · weight_decay")
    assert not m.any() and not v.any(), "the decay reached the moments"


@pytest.mark.parametrize("module", [reference, ours], ids=["ops", "kernels"])
def test_nan_and_infinite_gradients_make_the_value_nan_and_touch_no_other(module):
    for bad in (np.nan, np.inf, -np.inf):
        arrays = arrays_of(np.random.default_rng(0), 40, np.float32)
        arrays[1][17] = bad
        with np.errstate(invalid="ignore"):
            after = stepped(module, arrays, lr=0.1, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, step=3, scale=1.0)[0]
        assert np.flatnonzero(np.isnan(after)).tolist() == [17], f"a gradient of {bad} was lost or has spread"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("module", [reference, ours], ids=["ops", "kernels"])
def test_squared_norm_is_summed_in_float64(module, dtype):
    grads = np.full(100_003, 1e-3, dtype)
    exact = 100_003 * float(dtype(1e-3)) ** 2
    assert isinstance(module.squared_norm(grads), float)
    assert abs(module.squared_norm(grads) / exact - 1) < 1e-12, "the sum of squares lost digits"
    assert module.squared_norm(grads[:0]) == 0.0
    # The square of 1e30 overflows in float32, its sum of squares in float64 does not.
    assert np.isclose(module.squared_norm(np.array([1e30, 1e30], dtype)), 2e60, rtol=1e-6)
    assert np.isnan(module.squared_norm(np.array([1.0, np.nan], dtype)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_uncompiled(monkeypatch, dtype):
    uncompiled(monkeypatch, ours)
    arrays = arrays_of(np.random.default_rng(0), 11, dtype)
    settings = dict(lr=3e-3, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, step=4, scale=0.5)
    assert_same(stepped(ours, arrays, **settings), stepped(reference, arrays, **settings), "(values, grads, m, v)")
    assert np.isclose(ours.squared_norm(arrays[1]), reference.squared_norm(arrays[1]), rtol=1e-12)
