import numpy as np
import pytest
from agreement import DTYPES, assert_twins, dtypes, examples, layouts, normal, poison, seeds, twins, uncompiled
from hypothesis import given
from hypothesis import strategies as st


@examples
@given(
    seed=seeds, dtype=dtypes, layout=layouts, rows=st.integers(0, 9), size=st.integers(1, 67), spread=st.sampled_from([1, 40])
)
def test_agrees_with_ops(seed, dtype, layout, rows, size, spread):
    rng = np.random.default_rng(seed)
    gate, up, da = (normal(rng, (rows, size), dtype, layout) for _ in range(3))
    assert_twins("swiglu", (gate * dtype(spread), up), (da,))


@examples
@given(seed=seeds, dtype=dtypes, where=st.integers(0, 2))
def test_nan_and_infinity_go_where_they_go_in_ops(seed, dtype, where):
    rng = np.random.default_rng(seed)
    arrays = [normal(rng, (3, 21), dtype) for _ in range(3)]
    poison(rng, arrays[where])
    assert_twins("swiglu", tuple(arrays[:2]), (arrays[2],))


@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_uncompiled(monkeypatch, dtype):
    uncompiled(monkeypatch, twins("swiglu")[1])
    rng = np.random.default_rng(0)
    assert_twins("swiglu", (normal(rng, (3, 7), dtype), normal(rng, (3, 7), dtype)), (normal(rng, (3, 7), dtype),))
