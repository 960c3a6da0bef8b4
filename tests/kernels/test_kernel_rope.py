import numpy as np
import pytest
from agreement import DTYPES, assert_twins, dtypes, examples, layouts, normal, poison, seeds, twins, uncompiled
from hypothesis import given
from hypothesis import strategies as st


def angles(rng, time, half, dtype):
    phi = rng.uniform(-9, 9, (time, half))
    return np.cos(phi).astype(dtype), np.sin(phi).astype(dtype)


@examples
@given(
    seed=seeds, dtype=dtypes, layout=layouts, time=st.integers(0, 7), heads=st.integers(1, 3), half=st.integers(1, 9),
    interleave=st.booleans(),
)  # fmt: skip
def test_agrees_with_ops(seed, dtype, layout, time, heads, half, interleave):
    rng = np.random.default_rng(seed)
    shape = (2, time, heads, 2 * half)
    inputs = (normal(rng, shape, dtype, layout), *angles(rng, time, half, dtype), interleave)
    assert_twins("rope", inputs, (normal(rng, shape, dtype, layout),))


@examples
@given(seed=seeds, dtype=dtypes, interleave=st.booleans())
def test_nan_and_infinity_go_where_they_go_in_ops(seed, dtype, interleave):
    rng = np.random.default_rng(seed)
    x, dy = normal(rng, (1, 4, 2, 6), dtype), normal(rng, (1, 4, 2, 6), dtype)
    poison(rng, x)
    poison(rng, dy)
    assert_twins("rope", (x, *angles(rng, 4, 3, dtype), interleave), (dy,))


@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_uncompiled(monkeypatch, dtype):
    uncompiled(monkeypatch, twins("rope")[1])
    rng = np.random.default_rng(0)
    inputs = (normal(rng, (1, 4, 2, 6), dtype), *angles(rng, 4, 3, dtype), False)
    assert_twins("rope", inputs, (normal(rng, (1, 4, 2, 6), dtype),))


@pytest.mark.parametrize("dtype", DTYPES)
def test_angles_of_each_sequence_agree_with_ops(dtype):
    rng = np.random.default_rng(2)
    cos, sin = angles(rng, 8, 3, dtype)
    inputs = (normal(rng, (2, 4, 2, 6), dtype), cos.reshape(2, 4, 3), sin.reshape(2, 4, 3), True)
    assert_twins("rope", inputs, (normal(rng, (2, 4, 2, 6), dtype),))
