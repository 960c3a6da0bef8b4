import numpy as np
import pytest
from agreement import DTYPES, assert_same, dtypes, examples, layouts, normal, poison, seeds, twins, uncompiled
from hypothesis import given
from hypothesis import strategies as st

from minids.kernels import _blas

sizes = st.integers(1, 20)


def arrays(rng, shape, n_in, n_out, dtype, layout="C order"):
    return (
        normal(rng, (*shape, n_in), dtype, layout),
        normal(rng, (n_out, n_in), dtype, layout),
        normal(rng, (n_out,), dtype),
        normal(rng, (*shape, n_out), dtype, layout),
    )


def assert_adds_the_same(x, weight, bias, dy, start=0.5):
    """Both packages add the same gradients to totals that are not zero, and return the same dx."""
    results = []
    for module in twins("linear"):
        with np.errstate(all="ignore"):
            saved = module.forward(x, weight, bias)[1]
            d_weight = np.full(weight.shape, start, weight.dtype)
            d_bias = None if bias is None else np.full(bias.shape, start, bias.dtype)
            results.append((module.backward_into(dy, saved, d_weight, d_bias), d_weight, d_bias))
    assert_same(results[1], results[0])


@examples
@given(
    seed=seeds, dtype=dtypes, layout=layouts, shape=st.lists(st.integers(0, 5), min_size=1, max_size=3), n_in=sizes,
    n_out=sizes, bias=st.booleans(),
)  # fmt: skip
def test_agrees_with_ops(seed, dtype, layout, shape, n_in, n_out, bias):
    x, weight, b, dy = arrays(np.random.default_rng(seed), shape, n_in, n_out, dtype, layout)
    assert_adds_the_same(x, weight, b if bias else None, dy)


@examples
@given(seed=seeds, dtype=dtypes, where=st.sampled_from([0, 1, 3]))
def test_nan_and_infinity_go_where_they_go_in_ops(seed, dtype, where):
    rng = np.random.default_rng(seed)
    inputs = arrays(rng, (2, 3), 4, 5, dtype)
    poison(rng, inputs[where])
    assert_adds_the_same(*inputs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("how", ["uncompiled", "no BLAS to call"])
def test_agrees_without_compiled_products(monkeypatch, dtype, how):
    if how == "uncompiled":
        uncompiled(monkeypatch, twins("linear")[1])
    else:
        monkeypatch.setattr(_blas, "address", lambda dtype: 0)
    assert_adds_the_same(*arrays(np.random.default_rng(0), (2, 3), 4, 5, dtype))


@pytest.mark.parametrize("module", twins("linear"), ids=["ops", "kernels"])
def test_what_is_added_is_what_backward_returns(module):
    x, weight, bias, dy = arrays(np.random.default_rng(0), (2, 3), 4, 5, np.float64)
    saved = module.forward(x, weight, bias)[1]
    dx, d_weight, d_bias = module.backward(dy, saved)
    totals = np.ones((5, 4)), np.ones(5)
    assert_same(module.backward_into(dy, saved, *totals), dx)
    assert_same(totals, (1 + d_weight, 1 + d_bias))


@pytest.mark.parametrize("module", twins("linear"), ids=["ops", "kernels"])
def test_the_two_halves_of_the_backward_pass_are_the_whole(module):
    x, weight, bias, dy = arrays(np.random.default_rng(0), (2, 3), 4, 5, np.float64)
    saved = module.forward(x, weight, bias)[1]
    whole, halves = (np.ones((5, 4)), np.ones(5)), (np.ones((5, 4)), np.ones(5))
    dx = module.backward_into(dy, saved, *whole)
    np.testing.assert_array_equal(module.backward_input(dy, saved), dx)
    module.backward_weight_into(dy, saved, *halves)
    for got, want in zip(halves, whole, strict=True):
        np.testing.assert_array_equal(got, want)
