"""Rejection sampling keeps what is good, and a student becomes like its teacher."""

import numpy as np
import pytest
import support

import minids
from minids.config.sft import SFTConfig
from minids.errors import MinidsError
from minids.training.imitation import distil, rejection_sampling
from minids.training.samples import Sample, laid_out
from minids.training.sft import _soft

CONFIG = support.TINY.replace(num_nextn_predict_layers=1)
PROMPTS = [[3, 1, 4], [1, 5], [9]]
FAST = dict(context_length=12, batch_size=2, warmup_steps=0, say=lambda line: None)


def test_answers_that_were_kept_become_likelier():
    model = support.build(CONFIG, dtype=np.float32, lively=False)

    def reward(question, answer):
        return float(answer[0] == 7)

    def share():
        return np.mean([minids.generate(model, p, 1, 1.0, seed=s)[0] == 7 for p in PROMPTS for s in range(60)])

    before = share()
    rejection_sampling(model, PROMPTS, reward, group=120, max_new_tokens=2, learning_rate=0.02, epochs=20, **FAST)
    assert before < 0.2 and share() > 0.8


def test_where_no_answer_is_good_enough_that_is_said():
    model = support.build(CONFIG, dtype=np.float32)
    with pytest.raises(MinidsError, match="none of 6 answers reached 1, so"):
        rejection_sampling(model, PROMPTS, lambda q, a: 0.5, group=2, max_new_tokens=2, **FAST)


@pytest.mark.parametrize("logits", [False, True])
def test_a_smaller_student_becomes_like_its_teacher(logits):
    teacher = support.build(CONFIG, seed=1, dtype=np.float32)
    small = CONFIG.replace(moe_intermediate_size=4, num_hidden_layers=1, first_k_dense_replace=0)
    student = support.build(small, dtype=np.float32, lively=False)

    def apart():
        both = [m.logits(np.array([[3, 1, 4]]))[0, -1].astype(np.float64) for m in (teacher, student)]
        q, p = (np.exp(x - x.max()) / np.exp(x - x.max()).sum() for x in both)
        return float(np.sum(q * np.log(q / p)))

    before = apart()
    how = dict(logits=logits, group=60, max_new_tokens=1, learning_rate=0.02, epochs=4)
    distil(student, teacher, PROMPTS, **how, **FAST)
    assert apart() < 0.3 * before


def test_soft_targets_have_the_gradient_of_central_differences():
    model, teacher = support.build(CONFIG), support.build(CONFIG, seed=3)
    packed = laid_out([Sample(np.array([3, 1, 4, 5]), 2), Sample(np.array([2, 6, 5]), 1)], [[0, 1]], 7)
    how = {"segments": packed.segments, "mtp": False, **_soft(teacher, packed, SFTConfig())}
    model.parameters.zero_grads()
    model.forward_backward(packed.tokens, packed.targets, **how)
    rng, values = np.random.default_rng(0), model.parameters.values
    grads, own = model.parameters.grads.copy(), values.copy()
    for _ in range(4):
        direction, h, found = rng.choice([-1.0, 1.0], values.shape), 1e-6, []
        for sign in (1, -1):
            values[...] = own + sign * h * direction
            found.append(model.forward(packed.tokens, packed.targets, **how)[0].total)
        assert (found[0] - found[1]) / (2 * h) == pytest.approx(float(direction @ grads), rel=1e-5)
        values[...] = own


def test_models_of_other_vocabularies_are_refused():
    teacher, student = support.build(CONFIG), support.build(CONFIG.replace(vocab_size=20))
    with pytest.raises(MinidsError, match="vocabulary of 20"):
        distil(student, teacher, PROMPTS, **FAST)


def test_prompts_longer_than_the_context_are_refused():
    model = support.build(CONFIG, dtype=np.float32)
    with pytest.raises(MinidsError, match=r"prompts = .*the context is 64"):
        rejection_sampling(model, [[1] * 60], lambda q, a: 1.0, max_new_tokens=10, **FAST)
