import numpy as np
import pytest
from agreement import DTYPES, assert_same, assert_twins, dtypes, examples, layouts, normal, poison, seeds, twins, uncompiled
from hypothesis import given
from hypothesis import strategies as st

from minids.kernels import _blas


def arrays(rng, counts, size, width, dtype, layout="C order"):
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    experts, rows = len(counts), int(starts[-1])
    x, dy = normal(rng, (rows, size), dtype, layout), normal(rng, (rows, size), dtype, layout)
    gate, up = (normal(rng, (experts, width, size), dtype, layout) for _ in range(2))
    return x, starts, gate, up, normal(rng, (experts, size, width), dtype, layout), dy


@examples
@given(
    seed=seeds, dtype=dtypes, layout=layouts, counts=st.lists(st.integers(0, 6), min_size=1, max_size=6),
    size=st.integers(1, 18), width=st.integers(1, 35),
)  # fmt: skip
def test_agrees_with_ops_with_experts_that_have_no_rows_among_them(seed, dtype, layout, counts, size, width):
    *inputs, dy = arrays(np.random.default_rng(seed), counts, size, width, dtype, layout)
    assert_twins("grouped_feed_forward", tuple(inputs), (dy,))


@examples
@given(seed=seeds, dtype=dtypes, where=st.sampled_from([0, 2, 3, 4, 5]))
def test_nan_and_infinity_go_where_they_go_in_ops(seed, dtype, where):
    rng = np.random.default_rng(seed)
    *inputs, dy = arrays(rng, [2, 0, 3], 5, 7, dtype)
    poison(rng, [*inputs, dy][where], [np.nan])
    assert_twins("grouped_feed_forward", tuple(inputs), (dy,))


@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_uncompiled(monkeypatch, dtype):
    uncompiled(monkeypatch, twins("grouped_feed_forward")[1])
    *inputs, dy = arrays(np.random.default_rng(0), [2, 0, 3], 5, 7, dtype)
    assert_twins("grouped_feed_forward", tuple(inputs), (dy,))


@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_where_blas_cannot_be_called_from_a_kernel(monkeypatch, dtype):
    monkeypatch.setattr(_blas, "address", lambda dtype: 0)
    *inputs, dy = arrays(np.random.default_rng(0), [2, 0, 3], 5, 7, dtype)
    assert_twins("grouped_feed_forward", tuple(inputs), (dy,))


@pytest.mark.parametrize("module", twins("grouped_feed_forward"), ids=["ops", "kernels"])
def test_gradients_are_added_to_those_that_are_there(module):
    rng = np.random.default_rng(0)
    *inputs, dy = arrays(rng, [2, 0, 3], 5, 7, np.float64)
    saved = module.forward(*inputs)[1]
    d_rows, *d_weights = module.backward(dy, saved)
    before = [normal(rng, w.shape, np.float64) for w in d_weights]
    into = [w.copy() for w in before]
    assert_same(module.backward_into(dy, saved, *into), d_rows)
    for total, start, gradient in zip(into, before, d_weights, strict=True):
        assert_same(total, start + gradient)
    np.testing.assert_array_equal(into[0][1], before[0][1], err_msg="an expert without rows was touched")


@pytest.mark.parametrize("module", twins("grouped_feed_forward"), ids=["ops", "kernels"])
@pytest.mark.parametrize("how", ["as usual", "no BLAS to call"])
def test_the_two_halves_of_the_backward_pass_are_the_whole(module, how, monkeypatch):
    if how == "no BLAS to call":
        monkeypatch.setattr(_blas, "address", lambda dtype: 0)
    *inputs, dy = arrays(np.random.default_rng(0), [2, 0, 3], 5, 7, np.float64)
    saved = module.forward(*inputs)[1]
    whole, halves = ([np.ones(w.shape) for w in inputs[2:]] for _ in range(2))
    d_rows = module.backward_into(dy, saved, *whole)
    got, for_weights = module.backward_input(dy, saved)
    module.backward_weights_into(for_weights, *halves)
    for half, want in zip([got, *halves], [d_rows, *whole], strict=True):
        np.testing.assert_array_equal(half, want)
