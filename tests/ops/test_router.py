"""The router against a loop over tokens that follows the paper's words; the properties that every choice must have."""

import naive
import numpy as np
import pytest
import support
from hypothesis import given
from hypothesis import strategies as st

from minids import check
from minids.ops import router

RNG = np.random.default_rng(0)


# experts, top_k, n_group, topk_group, scoring, method, normalise, scale, biased
V3 = (8, 3, 4, 2, "sigmoid", "noaux_tc", True, 2.5, True)
KINDS = {
    "V3": V3,
    "V3 without groups": (6, 2, 1, 1, "sigmoid", "noaux_tc", True, 2.446, True),
    "V3, all groups kept": (6, 4, 3, 3, "sigmoid", "noaux_tc", True, 1.0, True),
    "V3, not normalised": (8, 3, 4, 2, "sigmoid", "noaux_tc", False, 2.5, True),
    "V2": (9, 2, 3, 1, "softmax", "group_limited_greedy", False, 16.0, False),
    "V2-Lite": (5, 3, 1, 1, "softmax", "greedy", False, 1.0, False),
    "softmax, normalised": (6, 3, 2, 2, "softmax", "group_limited_greedy", True, 1.5, False),
    "softmax with bias": (8, 3, 4, 2, "softmax", "noaux_tc", True, 2.5, True),
    "all experts chosen": (4, 4, 1, 1, "sigmoid", "noaux_tc", True, 1.0, True),
    "one expert chosen": (4, 1, 2, 1, "sigmoid", "noaux_tc", True, 2.5, True),
}


def some(kind, tokens=6):
    experts, top_k, n_group, topk_group, scoring, method, normalise, scale, biased = kind
    bias = RNG.normal(0, 0.3, experts).astype(np.float32) if biased else None
    return RNG.normal(0, 1.5, (tokens, experts)), bias, top_k, n_group, topk_group, scoring, method, normalise, scale


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("tokens", [1, 40])
def test_forward_follows_the_words(name, tokens):
    arguments = some(KINDS[name], tokens)
    got, want = router.forward(*arguments)[0], naive.route(*arguments)
    np.testing.assert_array_equal(got.chosen, want[1])
    support.assert_close(got.gates, want[0], what="gates")
    support.assert_close(got.scores, want[2], what="scores")


@pytest.mark.parametrize("name", KINDS)
def test_gradient_with_the_choice_held_still(name):
    """Both ways back at once: through the gates, and through the scores as the balance loss uses them."""
    logits, *rest = some(KINDS[name], 4)
    chosen = router.forward(logits, *rest)[0].chosen

    def forward(logits, chosen=None):
        return router.forward(logits, *rest, chosen=chosen)

    def backward(dy, saved):
        return router.backward(dy.gates, dy.scores, saved)

    check.gradient(forward, backward, {"logits": logits}, frozen={"chosen": chosen}).raise_if_wrong()


def test_gradient_through_the_gates_alone():
    logits, *rest = some(V3, 4)
    d_gates = RNG.standard_normal((4, 3))
    _, saved = router.forward(logits, *rest)
    without, zeros = router.backward(d_gates, None, saved), router.backward(d_gates, np.zeros((4, 8)), saved)
    np.testing.assert_array_equal(without, zeros)
    assert not np.delete(without[0], saved.chosen[0]).any(), "an expert that was not chosen gets no gradient through the gates"


def test_gates_come_from_the_unbiased_score():
    """b decides who is chosen and has no say in the weights."""
    logits = np.array([[2.0, 1.0, 0.0, -1.0]])
    s = 1 / (1 + np.exp(-logits[0]))
    routing, _ = router.forward(logits, np.array([0, 0, 5.0, 5.0], np.float32), top_k=2, scale=2.5)
    np.testing.assert_array_equal(np.sort(routing.chosen[0]), [2, 3])
    want = 2.5 * s[routing.chosen[0]] / s[2:].sum()
    support.assert_close(routing.gates[0], want, what="gates of the experts that the bias brought in")


def test_a_bias_large_enough_flips_the_choice_and_a_small_one_does_not():
    logits = np.array([[1.0, 0.9, -2.0]])
    assert list(router.forward(logits, np.array([0, 0.01, 0], np.float32), 1)[0].chosen[0]) == [0]
    assert list(router.forward(logits, np.array([0, 0.5, 0], np.float32), 1)[0].chosen[0]) == [1]


def test_a_common_shift_of_the_bias_changes_nothing():
    logits, bias, *rest = some(V3, 30)
    one, two = (router.forward(logits, b, *rest)[0] for b in (bias, bias + np.float32(0.5)))
    np.testing.assert_array_equal(one.chosen, two.chosen)
    np.testing.assert_array_equal(one.gates, two.gates)


def test_a_negative_biased_score_never_loses_to_a_forbidden_expert():
    """With every biased score below zero, masking by 0 instead of −∞ would choose the forbidden experts."""
    logits = np.tile([3.0, 2.0, 1.0, 0.5, -1.0, -2.0], (3, 1))
    routing, _ = router.forward(logits, np.full(6, -2.0, np.float32), top_k=2, n_group=3, topk_group=1)
    np.testing.assert_array_equal(routing.chosen, np.tile([0, 1], (3, 1)))


def test_a_group_is_scored_by_its_two_best_in_v3_and_by_its_best_in_v2():
    biased = np.array([[0.9, 0.1, 0.6, 0.6]])
    np.testing.assert_array_equal(router.choose(biased, 1, 2, 1, "noaux_tc"), [[2]])
    np.testing.assert_array_equal(router.choose(biased, 1, 2, 1, "group_limited_greedy"), [[0]])


def test_the_two_best_are_not_the_two_worst_of_a_larger_group():
    biased = np.array([[0.5, 0.5, 0.5, 0.9, 0.8, 0.0]])  # by two: group 1 (1.7 > 1.0); by the mean of all too close to tell
    np.testing.assert_array_equal(router.choose(biased, 2, 2, 1, "noaux_tc"), [[3, 4]])


def test_among_equals_the_lowest_index_wins():
    np.testing.assert_array_equal(router.choose(np.zeros((1, 6)), 3, 3, 2), [[0, 1, 2]])
    np.testing.assert_array_equal(router.choose(np.array([[0.0, 1.0, 1.0, 1.0]]), 2), [[1, 2]])


def test_the_v3_score_looks_at_each_expert_alone():
    """Sigmoid, not softmax: another expert's logit leaves a score unchanged, and the scores of a token need not sum to one."""
    one, two = np.array([[0.0, 1.0, -1.0]]), np.array([[0.0, 1.0, 9.0]])
    s, t = (router.forward(x, None, 1)[0].scores[0] for x in (one, two))
    np.testing.assert_allclose(s, [0.5, 0.7310585786300049, 0.2689414213699951], rtol=1e-12)
    np.testing.assert_array_equal(s[:2], t[:2])


@st.composite
def routers(draw):
    per_group = draw(st.integers(2, 4))
    n_group = draw(st.integers(1, 4))
    topk_group = draw(st.integers(1, n_group))
    top_k = draw(st.integers(1, topk_group * per_group))
    return n_group, per_group, topk_group, top_k, draw(st.sampled_from(["noaux_tc", "group_limited_greedy"]))


@given(routers(), st.integers(0, 2**31), st.booleans())
def test_it_picks_exactly_k_distinct_experts_inside_the_best_groups(sizes, seed, tied):
    n_group, per_group, topk_group, top_k, method = sizes
    rng = np.random.default_rng(seed)
    biased = rng.integers(-2, 2, (5, n_group * per_group)) / 2 if tied else rng.normal(-1, 1, (5, n_group * per_group))
    chosen = router.choose(biased, top_k, n_group, topk_group, method)
    assert chosen.shape == (5, top_k)
    for c, choice in zip(biased, chosen, strict=True):
        assert len(set(choice)) == top_k, "an expert was chosen twice"
        groups = set(choice // per_group)
        assert len(groups) <= topk_group, "more groups than a token may touch"
        assert (np.diff(c[choice]) <= 0).all(), "best first"
        best = np.sort(c.reshape(n_group, per_group))[:, -2:] if method == "noaux_tc" else c.reshape(n_group, per_group).max(1)
        score = best.sum(-1) if method == "noaux_tc" else best
        at_least = np.sort(score)[-topk_group]  # the worst group that may be kept
        assert all(score[g] >= at_least for g in groups), "a group was used that is not among the best"
        left_out = [i for i in range(len(c)) if i // per_group in groups and i not in choice]
        assert all(c[i] <= c[choice].min() for i in left_out), "a better expert of a used group was left out"


@given(st.integers(1, 6), st.integers(0, 2**31))
def test_normalised_gates_sum_to_the_scale_and_only_ratios_matter(top_k, seed):
    rng = np.random.default_rng(seed)
    routing, saved = router.forward(rng.normal(0, 2, (4, 6)), rng.normal(0, 0.2, 6).astype(np.float32), top_k, scale=2.5)
    np.testing.assert_allclose(routing.gates.sum(-1), 2.5, rtol=1e-12)
    # The gradient by the logits is ds · s (1 − s), so Σ_j s_j ds_j = Σ_j d_logits_j / (1 − s_j), which must vanish.
    d_logits = router.backward(rng.standard_normal((4, top_k)), None, saved)
    assert np.abs(np.sum(d_logits / (1 - saved.scores), axis=-1)).max() < 1e-12


@given(st.integers(2, 7), st.integers(0, 2**31))
def test_rows_of_the_softmax_gradient_sum_to_zero(experts, seed):
    rng = np.random.default_rng(seed)
    _, saved = router.forward(
        rng.normal(0, 2, (3, experts)), None, 2, scoring="softmax", method="greedy", normalise=False, scale=1.5
    )
    d_logits = router.backward(rng.standard_normal((3, 2)), rng.standard_normal((3, experts)), saved)
    assert np.abs(d_logits.sum(-1)).max() < 1e-12


def test_scores_that_underflow_do_not_divide_by_zero():
    routing, saved = router.forward(np.full((1, 4), -2000.0), None, 2)
    assert np.isfinite(routing.gates).all() and np.isfinite(router.backward(np.ones((1, 2)), None, saved)).all()
