import numpy as np
import pytest
from agreement import DTYPES, assert_same, assert_twins, dtypes, examples, layouts, normal, poison, seeds, twins, uncompiled
from hypothesis import given
from hypothesis import strategies as st

METHODS = ("noaux_tc", "group_limited_greedy", "greedy")


@st.composite
def routers(draw):
    """(experts, top_k, n_group, topk_group, scoring, method, normalise, scale)."""
    n_group, size = draw(st.integers(1, 4)), draw(st.integers(2, 6))
    topk_group = draw(st.integers(1, n_group))
    method = draw(st.sampled_from(METHODS))
    top_k = draw(st.integers(1, topk_group * size))
    scoring, normalise = draw(st.sampled_from(["sigmoid", "softmax"])), draw(st.booleans())
    return n_group * size, top_k, n_group, topk_group, scoring, method, normalise, draw(st.sampled_from([1.0, 2.5]))


@examples
@given(
    seed=seeds,
    dtype=dtypes,
    layout=layouts,
    tokens=st.integers(0, 9),
    router=routers(),
    biased=st.booleans(),
    balance=st.booleans(),
)
def test_agrees_with_ops(seed, dtype, layout, tokens, router, biased, balance):
    experts, top_k, *rest = router
    rng = np.random.default_rng(seed)
    bias = (rng.standard_normal(experts) * 0.3).astype(np.float32) if biased else None
    d_scores = normal(rng, (tokens, experts), dtype, layout) if balance else None
    inputs = (normal(rng, (tokens, experts), dtype, layout), bias, top_k, *rest)
    assert_twins("router", inputs, (normal(rng, (tokens, top_k), dtype, layout), d_scores), floor=1)


@examples
@given(seed=seeds, dtype=dtypes, router=routers())
def test_a_prescribed_choice_is_kept(seed, dtype, router):
    experts, top_k, *rest = router
    rng = np.random.default_rng(seed)
    chosen = rng.permuted(np.tile(np.arange(experts), (5, 1)), axis=1)[:, :top_k]
    inputs = (normal(rng, (5, experts), dtype), None, top_k, *rest, chosen)
    assert_twins("router", inputs, (normal(rng, (5, top_k), dtype), None), floor=1)


@examples
@given(seed=seeds, dtype=dtypes, router=routers())
def test_among_equals_the_lowest_index_wins(seed, dtype, router):
    experts, top_k, n_group, topk_group, _, method, *_ = router
    values = np.random.default_rng(seed).integers(-1, 2, (8, experts)).astype(dtype)
    reference, ours = twins("router")
    assert_same(
        ours.choose(values, top_k, n_group, topk_group, method), reference.choose(values, top_k, n_group, topk_group, method)
    )


@pytest.mark.parametrize("scoring", ["sigmoid", "softmax"])
@pytest.mark.parametrize("experts", [8, 37, 64])
def test_equal_logits_are_equal_scores_wherever_they_stand(scoring, experts):
    routing, _ = twins("router")[1].forward(np.full((3, experts), 0.7371, np.float32), None, 3, scoring=scoring)
    assert_same(routing.chosen, np.tile(np.arange(3), (3, 1)))


@examples
@given(seed=seeds, dtype=dtypes, router=routers(), value=st.sampled_from([np.nan, np.inf, -np.inf]))
def test_nan_and_infinity_rank_and_spread_as_in_ops(seed, dtype, router, value):
    experts, top_k, *rest = router
    rng = np.random.default_rng(seed)
    logits = normal(rng, (4, experts), dtype)
    for _ in range(int(rng.integers(1, 6))):
        poison(rng, logits, [value])
    assert_twins("router", (logits, None, top_k, *rest), (normal(rng, (4, top_k), dtype), None), floor=1)


@examples
@given(seed=seeds, router=routers())
def test_choice_among_values_of_every_kind(seed, router):
    experts, top_k, n_group, topk_group, _, method, *_ = router
    values = np.random.default_rng(seed).choice([np.nan, np.inf, -np.inf, -1.0, 0.0, 2.0], (8, experts))
    reference, ours = twins("router")
    with np.errstate(invalid="ignore"):
        expected = reference.choose(values, top_k, n_group, topk_group, method)
    assert_same(ours.choose(values, top_k, n_group, topk_group, method), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_chosen_scores_that_underflowed_to_zero_make_gates_of_zero_and_no_nan(dtype):
    """Their sum is 0: normalising must not divide by it, nor the backward pass."""
    logits = np.full((2, 6), -800, dtype)  # sigmoid is 0 in either type
    for module in twins("router"):
        routing, saved = module.forward(logits, None, 2, scale=2.5)
        assert_same(routing.gates, np.zeros((2, 2), dtype))
        assert_same(module.backward(np.ones((2, 2), dtype), None, saved), np.zeros((2, 6), dtype))
    assert_twins("router", (logits, None, 2), (np.ones((2, 2), dtype), None), floor=1)


def test_a_prescribed_expert_that_does_not_exist_is_refused_as_in_ops():
    for module in twins("router"):
        with pytest.raises(IndexError):
            module.forward(np.zeros((1, 4)), None, 2, chosen=np.array([[0, 4]]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "scoring, method", [("sigmoid", "noaux_tc"), ("softmax", "group_limited_greedy"), ("softmax", "greedy")]
)
def test_agrees_uncompiled(monkeypatch, dtype, scoring, method):
    uncompiled(monkeypatch, twins("router")[1])
    rng = np.random.default_rng(0)
    inputs = (normal(rng, (5, 12), dtype), None, 3, 4, 2, scoring, method, True, 2.5)
    assert_twins("router", inputs, (normal(rng, (5, 3), dtype), normal(rng, (5, 12), dtype)))
