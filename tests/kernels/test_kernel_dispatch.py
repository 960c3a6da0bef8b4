import numpy as np
import pytest
from agreement import DTYPES, assert_same, assert_twins, dtypes, examples, layouts, normal, poison, seeds, twins, uncompiled
from hypothesis import given
from hypothesis import strategies as st

reference, ours = twins("dispatch")


def choices(rng, tokens, top_k, experts):
    """(N, K): the first expert is never chosen, so that there is one without rows."""
    return 1 + rng.permuted(np.tile(np.arange(experts - 1), (tokens, 1)), axis=1)[:, :top_k]


@examples
@given(seed=seeds, tokens=st.integers(0, 20), top_k=st.integers(1, 4), kind=st.sampled_from(["i8", "i4"]))
def test_the_plan_is_that_of_ops(seed, tokens, top_k, kind):
    chosen = choices(np.random.default_rng(seed), tokens, top_k, 7).astype(kind)
    assert_same(tuple(ours.plan(chosen, 7)), tuple(reference.plan(chosen, 7)), "plan")


@examples
@given(
    seed=seeds,
    dtype=dtypes,
    layout=layouts,
    tokens=st.integers(0, 9),
    top_k=st.integers(1, 4),
    size=st.integers(1, 35),
    bad=st.booleans(),
)
def test_agrees_with_ops(seed, dtype, layout, tokens, top_k, size, bad):
    rng = np.random.default_rng(seed)
    plan = reference.plan(choices(rng, tokens, top_k, 6), 6)
    x, d_rows = normal(rng, (tokens, size), dtype, layout), normal(rng, (tokens * top_k, size), dtype, layout)
    if bad and tokens:
        poison(rng, x)
        poison(rng, d_rows)
    assert_same(ours.forward(x, plan)[0], reference.forward(x, plan)[0], "forward")
    assert_same(ours.backward(d_rows, plan), reference.backward(d_rows, plan), "backward")


@examples
@given(seed=seeds, dtype=dtypes, layout=layouts, tokens=st.integers(0, 9), top_k=st.integers(1, 4), size=st.integers(1, 35))
def test_combine_agrees_with_ops(seed, dtype, layout, tokens, top_k, size):
    rng = np.random.default_rng(seed)
    plan = reference.plan(choices(rng, tokens, top_k, 6), 6)
    inputs = normal(rng, (tokens * top_k, size), dtype, layout), normal(rng, (tokens, top_k), dtype, layout), plan
    assert_twins("combine", inputs, (normal(rng, (tokens, size), dtype, layout),))


@examples
@given(seed=seeds, dtype=dtypes, where=st.integers(0, 2))
def test_combine_passes_nan_and_infinity_on_as_ops_does(seed, dtype, where):
    rng = np.random.default_rng(seed)
    plan = reference.plan(choices(rng, 5, 3, 6), 6)
    arrays = normal(rng, (15, 8), dtype), normal(rng, (5, 3), dtype), normal(rng, (5, 8), dtype)
    poison(rng, arrays[where])
    assert_twins("combine", (*arrays[:2], plan), arrays[2:])


@pytest.mark.parametrize("expert", [-1, 3])
def test_an_expert_that_does_not_exist_is_refused_as_in_ops(expert):
    for module in (reference, ours):
        with pytest.raises(ValueError):
            module.plan(np.array([[0, expert]]), 3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_agree_uncompiled(monkeypatch, dtype):
    uncompiled(monkeypatch, ours)
    uncompiled(monkeypatch, twins("combine")[1])
    rng = np.random.default_rng(0)
    chosen = choices(rng, 5, 3, 6)
    plan = ours.plan(chosen, 6)
    assert_same(tuple(plan), tuple(reference.plan(chosen, 6)), "plan")
    rows, gates, x = normal(rng, (15, 4), dtype), normal(rng, (5, 3), dtype), normal(rng, (5, 4), dtype)
    assert_same(ours.forward(x, plan)[0], reference.forward(x, plan)[0], "forward")
    assert_same(ours.backward(rows, plan), reference.backward(rows, plan), "backward")
    assert_twins("combine", (rows, gates, plan), (x,))
