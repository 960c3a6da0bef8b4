import numpy as np
import pytest
from agreement import DTYPES, assert_same, assert_twins, dtypes, examples, layouts, normal, poison, seeds, twins, uncompiled
from hypothesis import given
from hypothesis import strategies as st

from minids.kernels import _blas
from minids.kernels import routed_experts as compiled
from minids.ops import dispatch

FLOOR = 1.0  # sums of numbers of this size, which may cancel


def arrays(rng, tokens, top_k, experts, size, width, dtype, layout="C order"):
    chosen = np.argsort(rng.random((tokens, experts)), axis=1)[:, :top_k].reshape(tokens, top_k)
    x, dy = normal(rng, (tokens, size), dtype, layout), normal(rng, (tokens, size), dtype, layout)
    gate, up = (normal(rng, (experts, width, size), dtype, layout) for _ in range(2))
    down, gates = normal(rng, (experts, size, width), dtype, layout), normal(rng, (tokens, top_k), dtype, layout)
    return x, gates, dispatch.plan(chosen, experts), gate, up, down, dy


@examples
@given(
    seed=seeds, dtype=dtypes, layout=layouts, tokens=st.integers(0, 9), top_k=st.integers(1, 3), more=st.integers(0, 4),
    size=st.integers(1, 18), width=st.integers(1, 35),
)  # fmt: skip
def test_agrees_with_ops_with_experts_that_have_no_rows_among_them(seed, dtype, layout, tokens, top_k, more, size, width):
    *inputs, dy = arrays(np.random.default_rng(seed), tokens, top_k, top_k + more, size, width, dtype, layout)
    assert_twins("routed_experts", tuple(inputs), (dy,), FLOOR)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 2, 7])
def test_agrees_where_an_experts_rows_come_in_several_parts(monkeypatch, rows, dtype):
    monkeypatch.setattr(compiled, "ROWS", rows)
    *inputs, dy = arrays(np.random.default_rng(0), 11, 2, 3, 5, 7, dtype)
    assert_twins("routed_experts", tuple(inputs), (dy,), FLOOR)


@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_with_more_rows_than_one_part_has(dtype):
    *inputs, dy = arrays(np.random.default_rng(0), 2 * compiled.ROWS + 3, 2, 3, 16, 8, dtype)
    assert_twins("routed_experts", tuple(inputs), (dy,), FLOOR)


@examples
@given(seed=seeds, dtype=dtypes, where=st.sampled_from([0, 1, 3, 4, 5, 6]))
def test_nan_goes_where_it_goes_in_ops(seed, dtype, where):
    rng = np.random.default_rng(seed)
    *inputs, dy = arrays(rng, 5, 2, 4, 5, 7, dtype)
    poison(rng, [*inputs, dy][where], [np.nan])
    assert_twins("routed_experts", tuple(inputs), (dy,), FLOOR)


@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_uncompiled(monkeypatch, dtype):
    uncompiled(monkeypatch, compiled)
    *inputs, dy = arrays(np.random.default_rng(0), 5, 2, 4, 5, 7, dtype)
    assert_twins("routed_experts", tuple(inputs), (dy,), FLOOR)


@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_where_blas_cannot_be_called_from_a_kernel(monkeypatch, dtype):
    monkeypatch.setattr(_blas, "address", lambda dtype: 0)
    *inputs, dy = arrays(np.random.default_rng(0), 5, 2, 4, 5, 7, dtype)
    assert_twins("routed_experts", tuple(inputs), (dy,), FLOOR)


@pytest.mark.parametrize("module", twins("routed_experts"), ids=["ops", "kernels"])
def test_results_and_gradients_are_added_to_those_that_are_there(module):
    rng = np.random.default_rng(0)
    *inputs, dy = arrays(rng, 5, 2, 6, 5, 7, np.float64)
    y, saved = module.forward(*inputs)
    dx, d_gates, *d_weights = module.backward(dy, saved)
    before = [normal(rng, a.shape, np.float64) for a in (y, dx, *d_weights)]
    onto, d_onto, *into = [a.copy() for a in before]
    assert module.forward(*inputs, onto=onto)[0] is onto
    got, got_gates = module.backward_into(dy, saved, *into, onto=d_onto)
    assert got is d_onto
    assert_same(got_gates, d_gates)
    for total, start, gradient in zip((onto, d_onto, *into), before, (y, dx, *d_weights), strict=True):
        assert_same(total, start + gradient)
    for e in np.flatnonzero(inputs[2].counts == 0):
        np.testing.assert_array_equal(into[0][e], before[2][e], err_msg="an expert without rows was touched")


@pytest.mark.parametrize("module", twins("routed_experts"), ids=["ops", "kernels"])
def test_the_two_halves_of_the_backward_pass_are_the_whole(module):
    *inputs, dy = arrays(np.random.default_rng(0), 9, 2, 5, 5, 7, np.float64)
    saved = module.forward(*inputs)[1]
    whole, halves = ([np.ones(w.shape) for w in inputs[3:]] for _ in range(2))
    dx, d_gates = module.backward_into(dy, saved, *whole)
    *got, for_weights = module.backward_input(dy, saved)
    module.backward_weights_into(for_weights, *halves)
    for half, want in zip([*got, *halves], [dx, d_gates, *whole], strict=True):
        np.testing.assert_array_equal(half, want)


class OnDisk:
    """Weights that are read an expert at a time."""

    def __init__(self, array):
        self.shape, self.dtype, self._array = array.shape, array.dtype, array

    def __getitem__(self, index):
        return self._array[index]


def test_weights_on_disk_give_the_same_bits():
    *inputs, _ = arrays(np.random.default_rng(0), 9, 2, 5, 5, 7, np.float32)
    y = compiled.forward(*inputs)[0]
    np.testing.assert_array_equal(compiled.forward(*inputs[:3], *map(OnDisk, inputs[3:]))[0], y)
