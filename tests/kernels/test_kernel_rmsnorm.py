import numpy as np
import pytest
from agreement import DTYPES, assert_twins, dtypes, examples, layouts, normal, poison, seeds, twins, uncompiled
from hypothesis import given
from hypothesis import strategies as st


@examples
@given(
    seed=seeds, dtype=dtypes, layout=layouts, rows=st.integers(0, 9), size=st.integers(3, 67), eps=st.sampled_from([1e-6, 1e-2])
)
def test_agrees_with_ops(seed, dtype, layout, rows, size, eps):
    rng = np.random.default_rng(seed)
    x, dy = normal(rng, (2, rows, size), dtype, layout), normal(rng, (2, rows, size), dtype, layout)
    assert_twins("rmsnorm", (x, normal(rng, (size,), dtype), eps), (dy,), floor=3)


@examples
@given(seed=seeds, dtype=dtypes, where=st.integers(0, 2))
def test_nan_and_infinity_go_where_they_go_in_ops(seed, dtype, where):
    rng = np.random.default_rng(seed)
    arrays = normal(rng, (4, 33), dtype), normal(rng, (33,), dtype), normal(rng, (4, 33), dtype)
    poison(rng, arrays[where])
    assert_twins("rmsnorm", arrays[:2], arrays[2:])


def test_rows_of_zeros_and_huge_rows_agree():
    x = np.stack([np.zeros(16), np.full(16, 1e25), np.full(16, 1e-25)]).astype(np.float32)
    assert_twins("rmsnorm", (x, np.ones(16, np.float32)), (np.ones_like(x),))


@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_uncompiled(monkeypatch, dtype):
    uncompiled(monkeypatch, twins("rmsnorm")[1])
    rng = np.random.default_rng(0)
    assert_twins("rmsnorm", (normal(rng, (3, 7), dtype), normal(rng, (7,), dtype)), (normal(rng, (3, 7), dtype),))


def test_the_input_is_left_as_it_was():
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, 5, 8)), rng.standard_normal((2, 5, 8))
    before, d_before = x.copy(), dy.copy()
    _, saved = twins("rmsnorm")[1].forward(x, np.ones(8))
    twins("rmsnorm")[1].backward(dy, saved)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(dy, d_before)


def test_types_other_than_the_two_are_refused():
    with pytest.raises(TypeError, match="float32 or float64, got float16"):
        twins("rmsnorm")[1].forward(np.ones((2, 4), np.float16), np.ones(4, np.float16))
