"""Answers side by side: as one at a time would be, with the experts and probabilities that the model has for them."""

import numpy as np
import pytest
import support

from minids.backend import use_backend
from minids.inference.generate import checked_ending
from minids.model import IGNORE, routing_fixed
from minids.ops.policy_loss import log_probabilities
from minids.training.policy_objective import replayed
from minids.training.rollout import sample

QUESTIONS = [[3, 1, 4, 1, 5], [9, 2], [6]]
CONFIG = support.TINY.replace(num_nextn_predict_layers=1)


def drawn(model, group=3, most=6, heat=1.0, stop=(7, 11), seed=0, top_p=1.0):
    ending = checked_ending(model, most, list(stop))
    return sample(model, QUESTIONS, group, most, heat, ending, np.random.default_rng(seed), top_p)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_the_kept_experts_and_probabilities_are_those_of_one_pass_over_the_whole(backend):
    with use_backend(backend):
        model = support.build(CONFIG)
        r = drawn(model, heat=0.8)
        _, saved = model.forward(r.tokens, r.targets, mtp=False)
        logits = model.logits(r.tokens).reshape(r.tokens.size, -1)
    tokens = r.targets.reshape(-1)[r.rows]
    np.testing.assert_allclose(r.log_probs, log_probabilities(logits[r.rows] / 0.8, tokens), rtol=1e-9)
    last = [np.flatnonzero(row != IGNORE)[-1] for row in r.targets]
    for ours, layer in zip(r.chosen, saved.moe, strict=True):
        theirs = layer.routing.chosen.reshape(ours.shape)
        for a, stop in enumerate(last):
            assert (np.sort(ours[a, : stop + 1]) == np.sort(theirs[a, : stop + 1])).all()


def test_what_top_p_left_is_kept_and_the_probabilities_are_those_among_it():
    model = support.build(CONFIG)
    r = drawn(model, heat=0.8, top_p=0.7)
    tokens = r.targets.reshape(-1)[r.rows]
    assert r.kept.shape == (len(tokens), 19) and r.kept[np.arange(len(tokens)), tokens].all()
    assert r.kept.sum(axis=1).min() >= 1 and r.kept.sum(axis=1).max() < 19
    with routing_fixed(model, replayed(model, r)):
        logits = model.logits(r.tokens).reshape(r.tokens.size, -1)[r.rows] / 0.8
    np.testing.assert_allclose(r.log_probs, log_probabilities(logits, tokens, r.kept), rtol=1e-9)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    for row, kept in zip(p, r.kept, strict=True):
        assert row[kept].sum() >= 0.7 and row[kept].min() > row[~kept].max()
        assert row[kept].sum() - row[kept].min() < 0.7, "with one fewer it would not be enough"
    part = r.part(slice(1, 3))
    assert (part.kept == r.kept[r.lengths[:3].sum() :]).all()
    assert drawn(model).kept is None


def test_answers_stand_behind_their_questions_and_end_where_they_should():
    model = support.build(CONFIG)
    r = drawn(model)
    assert r.groups.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert set(r.lengths.tolist()) <= set(range(1, 7)) and len(r.rows) == r.lengths.sum() == len(r.log_probs)
    for row, goals, group, ended, answer in zip(r.tokens, r.targets, r.groups, r.ended, r.answers, strict=True):
        question, place = QUESTIONS[group], len(QUESTIONS[group])
        assert row[:place].tolist() == question
        assert row[place : place + len(answer) - 1].tolist() == answer[:-1].tolist()
        assert goals[place - 1 : place - 1 + len(answer)].tolist() == answer.tolist()
        assert (goals != IGNORE).sum() == len(answer)
        assert ended == (answer[-1] in (7, 11)) and not set(answer[:-1].tolist()) & {7, 11}
        assert ended or len(answer) == 6


def test_the_same_seed_gives_the_same_bits_and_another_other_answers():
    model = support.build(CONFIG, dtype=np.float32)
    one, two, other = drawn(model), drawn(model), drawn(model, seed=1)
    assert (one.tokens == two.tokens).all() and (one.log_probs == two.log_probs).all()
    assert one.targets.shape != other.targets.shape or (one.targets != other.targets).any()


def test_greedy_answers_are_those_of_generate():
    import minids

    model = support.build(CONFIG, dtype=np.float32)
    r = drawn(model, group=1, heat=0.0)
    for question, answer in zip(QUESTIONS, r.answers, strict=True):
        assert answer.tolist() == minids.generate(model, question, 6, stop=[7, 11]).tolist()


def test_answers_are_drawn_as_often_as_the_model_says():
    model = support.build(CONFIG)
    ending = checked_ending(model, 1, [])
    r = sample(model, [[3, 1]], 4000, 1, 1.0, ending, np.random.default_rng(0))
    logits = model.logits(np.array([[3, 1]]))[0, -1]
    p = np.exp(logits - logits.max())
    p /= p.sum()
    often = np.bincount(np.concatenate(r.answers), minlength=19) / 4000
    assert np.abs(often - p).max() < 4 * np.sqrt(0.25 / 4000)


def test_a_part_holds_the_answers_to_its_questions():
    r = drawn(support.build(CONFIG))
    part = r.part(slice(1, 3))
    assert part.groups.tolist() == [1] * 3 + [2] * 3
    assert [a.tolist() for a in part.answers] == [a.tolist() for a in r.answers[3:]]
    assert (part.log_probs == r.log_probs[r.lengths[:3].sum() :]).all() and (part.chosen[0] == r.chosen[0][3:]).all()


def test_replayed_experts_serve_the_main_model_and_mtp_modules_choose():
    model = support.build(CONFIG)
    r = drawn(model)
    model.moe_layers[0].bias[...] = np.linspace(1, -1, CONFIG.n_routed_experts)  # from now on the router would choose otherwise
    with routing_fixed(model, replayed(model, r)):
        saved = model.forward(r.tokens, r.targets)[1]
    assert (saved.moe[0].routing.chosen == r.chosen[0].reshape(-1, r.chosen[0].shape[-1])).all()
    free = model.forward(r.tokens, r.targets)[1]
    assert (free.moe[0].routing.chosen != saved.moe[0].routing.chosen).any()
