import numpy as np
import pytest
from agreement import DTYPES, assert_twins, dtypes, examples, layouts, normal, poison, seeds, twins, uncompiled
from hypothesis import given
from hypothesis import strategies as st


def arrays(rng, groups, time, experts, top_k, dtype, layout="C order"):
    scores = np.abs(normal(rng, (groups * time, experts), dtype, layout)) + dtype(0.01)
    chosen = rng.permuted(np.tile(np.arange(experts), (groups * time, 1)), axis=1)[:, :top_k]
    return scores, chosen, time


@examples
@given(seed=seeds, dtype=dtypes, layout=layouts, groups=st.integers(1, 4), time=st.integers(1, 9), experts=st.integers(2, 18))
def test_agrees_with_ops(seed, dtype, layout, groups, time, experts):
    rng = np.random.default_rng(seed)
    assert_twins("balance_loss", arrays(rng, groups, time, experts, 2, dtype, layout), (0.3,), floor=0.3)


@examples
@given(seed=seeds, dtype=dtypes)
def test_nan_and_infinity_go_where_they_go_in_ops(seed, dtype):
    rng = np.random.default_rng(seed)
    inputs = arrays(rng, 2, 5, 6, 2, dtype)
    poison(rng, inputs[0], [np.nan, np.inf])
    assert_twins("balance_loss", inputs, (0.3,), floor=0.3)


def test_tokens_that_do_not_divide_into_groups_and_unknown_experts_are_refused():
    module = twins("balance_loss")[1]
    with pytest.raises(ValueError, match="7 tokens do not divide into groups of 2"):
        module.forward(np.ones((7, 3)), np.zeros((7, 1), int), 2)
    with pytest.raises(ValueError, match="experts run from 0 to 2, got 0 … 3"):
        module.forward(np.ones((2, 3)), np.array([[0], [3]]), 2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_uncompiled(monkeypatch, dtype):
    uncompiled(monkeypatch, twins("balance_loss")[1])
    assert_twins("balance_loss", arrays(np.random.default_rng(0), 2, 5, 6, 2, dtype), (0.3,), floor=0.3)
