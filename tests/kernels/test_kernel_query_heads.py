import numpy as np
import pytest
from agreement import DTYPES, assert_twins, dtypes, examples, layouts, normal, poison, seeds, twins, uncompiled
from hypothesis import given
from hypothesis import strategies as st


def angles(rng, shape, dtype):
    phi = rng.uniform(-9, 9, shape)
    return np.cos(phi).astype(dtype), np.sin(phi).astype(dtype)


@examples
@given(
    seed=seeds, dtype=dtypes, layout=layouts, time=st.integers(0, 7), heads=st.integers(1, 3), half=st.integers(1, 9),
    split=st.integers(0, 9), interleave=st.booleans(), own=st.booleans(),
)  # fmt: skip
def test_agrees_with_ops(seed, dtype, layout, time, heads, half, split, interleave, own):
    rng = np.random.default_rng(seed)
    shape = (2, time, heads, split + 2 * half)
    inputs = (normal(rng, shape, dtype, layout), *angles(rng, (*shape[:own], time, half), dtype), interleave)
    assert_twins("query_heads", inputs, (normal(rng, shape, dtype, layout),))


@examples
@given(seed=seeds, dtype=dtypes, interleave=st.booleans())
def test_nan_and_infinity_go_where_they_go_in_ops(seed, dtype, interleave):
    rng = np.random.default_rng(seed)
    q, dy = normal(rng, (1, 4, 2, 8), dtype), normal(rng, (1, 4, 2, 8), dtype)
    poison(rng, q)
    poison(rng, dy)
    assert_twins("query_heads", (q, *angles(rng, (4, 3), dtype), interleave), (dy,))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("interleave", [True, False])
def test_agrees_uncompiled(monkeypatch, interleave, dtype):
    uncompiled(monkeypatch, twins("query_heads")[1])
    rng = np.random.default_rng(0)
    inputs = (normal(rng, (1, 4, 2, 8), dtype), *angles(rng, (4, 3), dtype), interleave)
    assert_twins("query_heads", inputs, (normal(rng, (1, 4, 2, 8), dtype),))
