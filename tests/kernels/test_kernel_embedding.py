import numpy as np
import pytest
from agreement import DTYPES, assert_twins, dtypes, examples, layouts, normal, poison, seeds, twins, uncompiled
from hypothesis import given
from hypothesis import strategies as st


@examples
@given(
    seed=seeds, dtype=dtypes, layout=layouts, kind=st.sampled_from(["u1", "i2", "i4", "i8"]), count=st.integers(0, 40),
    vocabulary=st.integers(1, 12), size=st.integers(1, 19),
)  # fmt: skip
def test_agrees_with_ops(seed, dtype, layout, kind, count, vocabulary, size):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, vocabulary, (2, count)).astype(kind)
    assert_twins("embedding", (tokens, normal(rng, (vocabulary, size), dtype)), (normal(rng, (2, count, size), dtype, layout),))


@examples
@given(seed=seeds, dtype=dtypes)
def test_nan_and_infinity_go_where_they_go_in_ops(seed, dtype):
    rng = np.random.default_rng(seed)
    dx = normal(rng, (9, 5), dtype)
    poison(rng, dx)
    assert_twins("embedding", (rng.integers(0, 4, 9), normal(rng, (4, 5), dtype)), (dx,))


def test_a_token_outside_the_vocabulary_is_refused_and_a_negative_one_counts_from_the_end():
    module = twins("embedding")[1]
    with pytest.raises(IndexError):
        module.forward(np.array([0, 4]), np.ones((4, 3)))
    assert_twins("embedding", (np.array([-1, -4, 2]), np.ones((4, 3))), (np.ones((3, 3)),))


@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_uncompiled(monkeypatch, dtype):
    uncompiled(monkeypatch, twins("embedding")[1])
    rng = np.random.default_rng(0)
    assert_twins("embedding", (rng.integers(0, 4, 9), normal(rng, (4, 5), dtype)), (normal(rng, (9, 5), dtype),))
