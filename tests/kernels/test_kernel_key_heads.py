import numpy as np
import pytest
from agreement import DTYPES, assert_twins, dtypes, examples, layouts, normal, poison, seeds, twins, uncompiled
from hypothesis import given
from hypothesis import strategies as st


@examples
@given(
    seed=seeds, dtype=dtypes, layout=layouts, time=st.integers(0, 7), heads=st.integers(1, 3), d_nope=st.integers(0, 9),
    d_r=st.integers(1, 9), d_v=st.integers(1, 9),
)  # fmt: skip
def test_agrees_with_ops(seed, dtype, layout, time, heads, d_nope, d_r, d_v):
    rng = np.random.default_rng(seed)
    kv, k_rope = normal(rng, (2, time, heads, d_nope + d_v), dtype, layout), normal(rng, (2, time, 1, d_r), dtype, layout)
    dk, dv = normal(rng, (2, time, heads, d_nope + d_r), dtype, layout), normal(rng, (2, time, heads, d_v), dtype, layout)
    assert_twins("key_heads", (kv, k_rope, d_nope), (dk, dv))


@examples
@given(seed=seeds, dtype=dtypes, where=st.integers(0, 3))
def test_nan_and_infinity_go_where_they_go_in_ops(seed, dtype, where):
    rng = np.random.default_rng(seed)
    arrays = [normal(rng, shape, dtype) for shape in ((1, 4, 2, 8), (1, 4, 1, 4), (1, 4, 2, 9), (1, 4, 2, 3))]
    poison(rng, arrays[where])
    assert_twins("key_heads", (*arrays[:2], 5), tuple(arrays[2:]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_uncompiled(monkeypatch, dtype):
    uncompiled(monkeypatch, twins("key_heads")[1])
    rng = np.random.default_rng(0)
    arrays = [normal(rng, shape, dtype) for shape in ((1, 4, 2, 8), (1, 4, 1, 4), (1, 4, 2, 9), (1, 4, 2, 3))]
    assert_twins("key_heads", (*arrays[:2], 5), tuple(arrays[2:]))
