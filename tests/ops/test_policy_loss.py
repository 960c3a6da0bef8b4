"""GRPO's loss against its definition and central differences, and what its terms are there for."""

import math
from itertools import product

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minids import check
from minids.ops import policy_loss

ANSWER = np.array([0, 0, 0, 1, 2, 2, 3, 3, 3, 3])  # which answer each of ten tokens belongs to
ADVANTAGE = np.array([1.2, -0.7, 0.4, -0.9])

CASES = [
    *(("token", *rest) for rest in product([0.2, 10.0], [0.0, 0.3], [False, True], [None, 5.0])),
    *(("answer", *rest, None) for rest in product([0.2, 10.0], [0.0, 0.3], [False, True])),
]


def draws(seed: int = 0, vocabulary: int = 6) -> tuple:
    """Logits, tokens, and the logarithms of old and reference probabilities: near the new ones, on both sides of the clip."""
    rng = np.random.default_rng(seed)
    logits, tokens = rng.normal(0, 1.5, (len(ANSWER), vocabulary)), rng.integers(0, vocabulary, len(ANSWER))
    now = policy_loss.log_probabilities(logits, tokens)
    return logits, tokens, now + rng.normal(0, 0.3, len(now)), now + rng.normal(0, 0.5, len(now))


@pytest.mark.parametrize(("by", "clip", "beta", "corrected", "divisor"), CASES)
def test_forward_is_the_definition(by, clip, beta, corrected, divisor):
    logits, tokens, old, ref = draws()
    rest = (by, clip, beta, corrected, divisor)
    got, saved = policy_loss.forward(logits, tokens, ANSWER, ADVANTAGE, old, ref, *rest)
    assert math.isclose(got, naive.policy_loss(logits, tokens, ANSWER, ADVANTAGE, old, ref, *rest), rel_tol=1e-12)
    if clip == 0.2:
        assert 0 < saved.clipped.sum() < len(saved.clipped), "the case is there to have both"


@pytest.mark.parametrize(("by", "clip", "beta", "corrected", "divisor"), CASES)
def test_gradient(by, clip, beta, corrected, divisor):
    logits, tokens, old, ref = draws()

    def forward(logits):
        rest = (ANSWER, ADVANTAGE, old, ref, by, clip, beta, corrected, divisor)
        loss, saved = policy_loss.forward(logits, tokens, *rest)
        return np.array(loss), saved

    check.gradient(forward, policy_loss.backward, {"logits": logits}).raise_if_wrong()


REPAIRS = [dict(drop_above=0.02), dict(kept=True), dict(drop_above=0.02, kept=True)]


def repaired(repairs) -> tuple:
    """``draws``, and the arguments of V3.2's repairs: one of the two bad answers is far away, and tokens are left out."""
    logits, tokens, _, ref = draws(seed=1)
    arguments = dict(repairs)
    if "kept" in arguments:
        arguments["kept"] = np.random.default_rng(4).random(logits.shape) < 0.6
        arguments["kept"][np.arange(len(tokens)), tokens] = True
    now = policy_loss.log_probabilities(logits, tokens, arguments.get("kept"))
    away = np.array([0.3, -0.2, 0.3, 0.2])[ANSWER]  # of each answer, in the mean nearly so
    return logits, tokens, now + away + np.random.default_rng(0).normal(0, 0.1, len(tokens)), ref, arguments


@pytest.mark.parametrize("repairs", REPAIRS, ids=lambda repairs: " and ".join(repairs))
@pytest.mark.parametrize("by", ["token", "answer"])
def test_v32s_repairs_are_their_definition_and_have_the_right_gradient(by, repairs):
    logits, tokens, old, ref, arguments = repaired(repairs)
    own = (by, 0.2, 0.3, True, None)
    got, saved = policy_loss.forward(logits, tokens, ANSWER, ADVANTAGE, old, ref, *own, **arguments)
    want = naive.policy_loss(logits, tokens, ANSWER, ADVANTAGE, old, ref, *own, **arguments)
    assert math.isclose(got, want, rel_tol=1e-12)
    if "drop_above" in arguments:
        assert saved.dropped.tolist() == [False, False, False, True], "of the good ones none, and of the bad ones the far one"

    def forward(logits):
        loss, saved = policy_loss.forward(logits, tokens, ANSWER, ADVANTAGE, old, ref, *own, **arguments)
        return np.array(loss), saved

    check.gradient(forward, policy_loss.backward, {"logits": logits}).raise_if_wrong()


def test_only_a_bad_answer_that_the_policy_has_left_is_dropped():
    logits, tokens, _, _ = draws()
    now = policy_loss.log_probabilities(logits, tokens)
    far = now + 0.5  # every token has become less likely by half a nat
    saved = policy_loss.forward(logits, tokens, ANSWER, ADVANTAGE, far, drop_above=0.4)[1]
    assert saved.dropped.tolist() == [False, True, False, True]
    pushed = policy_loss.backward(1.0, saved)
    assert not pushed[(ANSWER == 1) | (ANSWER == 3)].any() and pushed[ANSWER == 0].any()
    for old, limit in ((far, 0.6), (now - 0.5, 0.4), (far, np.inf)):
        assert not policy_loss.forward(logits, tokens, ANSWER, ADVANTAGE, old, drop_above=limit)[1].dropped.any()
    held = policy_loss.forward(logits, tokens, ANSWER, ADVANTAGE, far, far, beta=0.1, drop_above=0.4)[1]
    assert policy_loss.backward(1.0, held)[ANSWER == 3].any(), "its divergence from the reference goes on counting"


def test_tokens_that_could_not_be_drawn_have_no_probability_and_no_gradient():
    logits, tokens, old, ref, arguments = repaired({"kept": True})
    _, saved = policy_loss.forward(logits, tokens, ANSWER, ADVANTAGE, old, ref, beta=0.1, **arguments)
    out = ~arguments["kept"]
    assert out.any() and not saved.probs[out].any() and not policy_loss.backward(1.0, saved)[out].any()
    np.testing.assert_allclose(saved.probs.sum(axis=1), 1, rtol=1e-12)
    changed = np.where(out, 50.0, logits)  # whatever the model says of them
    assert (policy_loss.log_probabilities(changed, tokens, arguments["kept"]) == saved.log_probs).all()
    assert np.isfinite(policy_loss.entropy(saved.probs)).all()


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.booleans(), st.integers(0, 2**31))
def test_advantages_of_a_group_sum_to_zero(sizes, by_std, seed):
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))  # a group's answers need not be neighbours
    rewards = rng.choice([0.0, 0.1, 1.0, rng.normal()], len(groups))
    got = policy_loss.advantages(rewards, groups, by_std)
    for group in range(len(sizes)):
        mine, r = got[groups == group], rewards[groups == group]
        assert abs(mine.sum()) < 1e-12
        if len(set(r)) == 1:
            assert not mine.any(), "a group without contrast teaches nothing"
        elif by_std:
            assert math.isclose(np.sqrt(np.mean(mine**2)), 1, rel_tol=1e-12)
            assert np.allclose(mine, (r - r.mean()) / r.std(), rtol=1e-12)
        else:
            assert np.allclose(mine, r - r.mean(), rtol=1e-12)


def test_in_the_first_step_the_loss_is_zero_and_its_gradient_is_not():
    logits, tokens, _, _ = draws()
    now = policy_loss.log_probabilities(logits, tokens)
    advantage = policy_loss.advantages(np.array([1.0, 0.0, 0.0, 1.0]), np.array([0, 0, 1, 1]))
    for by in ("token", "answer"):
        loss, saved = policy_loss.forward(logits, tokens, ANSWER, advantage, now, by=by)
        assert abs(loss) < 1e-15
        rows = np.arange(len(tokens))
        pushed = policy_loss.backward(1.0, saved)[rows, tokens]  # the token itself goes up where the gradient is negative
        assert np.abs(pushed).min() > 1e-4, "every token of the answers must be taught"
        assert (np.sign(pushed) == -np.sign(advantage[ANSWER])).all()


def test_the_smaller_term_counts_so_that_only_what_went_far_enough_is_let_go():
    rho, clip = np.array([0.5, 1.0, 2.0]), 0.2
    value, slope, clipped = policy_loss.surrogate(rho, np.full(3, 1.0), clip)
    assert value.tolist() == [0.5, 1.0, 1.2] and slope.tolist() == [0.5, 1.0, 0.0] and clipped.tolist() == [False, False, True]
    value, slope, clipped = policy_loss.surrogate(rho, np.full(3, -1.0), clip)  # a bad answer that became likelier: pulled back
    assert (
        value.tolist() == [-0.8, -1.0, -2.0]
        and slope.tolist() == [0.0, -1.0, -2.0]
        and clipped.tolist() == [True, False, False]
    )


def expected(quantity) -> np.ndarray:
    """Σ_token π(token) quantity(token), for one position of a policy on its own answers."""
    logits, reference = np.array([0.3, -0.2, 1.1, 0.0]), np.array([-0.4, 0.5, 0.2, 0.9])
    total = 0.0
    for token in range(4):
        one = np.array([token])
        log_pi, log_ref = (policy_loss.log_probabilities(x[None], one) for x in (logits, reference))
        total = total + np.exp(log_pi[0]) * quantity(logits[None], one, log_pi, log_ref)
    return np.asarray(total)


def kl_and_its_gradient() -> tuple[float, np.ndarray]:
    logits, reference = np.array([0.3, -0.2, 1.1, 0.0]), np.array([-0.4, 0.5, 0.2, 0.9])
    log_pi, log_ref = (x - np.log(np.exp(x).sum()) for x in (logits, reference))
    p, kl = np.exp(log_pi), float(np.sum(np.exp(log_pi) * (log_pi - log_ref)))
    return kl, p * (log_pi - log_ref - kl)


def divergence_gradient(corrected):
    def gradient(logits, token, log_pi, log_ref):
        arguments = (logits, token, np.zeros(1, int), np.zeros(1), log_pi, log_ref)
        return policy_loss.backward(1.0, policy_loss.forward(*arguments, beta=1.0, corrected=corrected)[1])[0]

    return expected(gradient)


def test_the_divergence_is_never_negative_and_on_average_that_of_kullback_and_leibler():
    kl, gradient = kl_and_its_gradient()
    each = [policy_loss.k3(np.array([x]))[0][0] for x in (-3.0, -1e-3, 0.0, 1e-3, 2.0)]
    assert each[2] == 0 and min(each) >= 0 and max(each[1], each[3]) > 0
    assert math.isclose(expected(lambda logits, token, pi, ref: policy_loss.k3(ref - pi)[0][0]), kl, rel_tol=1e-12)
    assert np.allclose(divergence_gradient(corrected=True), gradient, rtol=1e-10)


def test_without_the_correction_the_gradient_is_that_of_the_other_direction():
    """Σ π (1 − q) ∇ ln π = −Σ π_ref ∇ ln π: the gradient of KL(π_ref ‖ π)."""
    logits, reference = np.array([0.3, -0.2, 1.1, 0.0]), np.array([-0.4, 0.5, 0.2, 0.9])
    p, r = (np.exp(x) / np.exp(x).sum() for x in (logits, reference))
    assert np.allclose(divergence_gradient(corrected=False), p - r, rtol=1e-10)


def test_a_length_divides_each_answer_and_a_constant_all_alike():
    logits, tokens, _, _ = draws()
    now = policy_loss.log_probabilities(logits, tokens)
    advantage = np.array([-1.0, -1.0, 1.0, 1.0])
    slopes = {d: policy_loss.forward(logits, tokens, ANSWER, advantage, now, divisor=d)[1].slopes for d in (None, 4.0)}
    lengths = np.bincount(ANSWER)[ANSWER]
    assert np.allclose(np.abs(slopes[None]) * lengths, 1 / 4) and np.allclose(np.abs(slopes[4.0]), 1 / 16)


def test_float32_stays_float32_and_extreme_logits_stay_finite():
    logits = np.array([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0]], np.float32)
    tokens, answer = np.array([1, 2]), np.array([0, 1])
    old = policy_loss.log_probabilities(logits, tokens)
    loss, saved = policy_loss.forward(logits, tokens, answer, np.array([1.0, -1.0]), old)
    d_logits = policy_loss.backward(1.0, saved)
    assert math.isfinite(loss) and np.isfinite(d_logits).all() and d_logits.dtype == np.float32
    assert np.allclose(policy_loss.entropy(saved.probs), [0, math.log(3)], atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [({"by": "word"}, "word"), ({"by": "answer", "divisor": 3.0}, "divisor"), ({"beta": 0.1}, "log_ref")],
)
def test_what_makes_no_sense_is_refused(wrong, word):
    logits, tokens, old, _ = draws()
    with pytest.raises(ValueError, match=word):
        policy_loss.forward(logits, tokens, ANSWER, ADVANTAGE, old, **wrong)
