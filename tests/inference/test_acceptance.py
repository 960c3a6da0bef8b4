"""The share of guesses that stand, counted as the text itself says."""

import math

import numpy as np
import pytest
import support

import minids
from minids.errors import MinidsError
from minids.inference.acceptance import acceptance

CONFIG = support.TINY.replace(num_nextn_predict_layers=1)
PROMPTS = [[3, 1, 4], [1, 5]]


def test_it_is_the_share_of_guesses_that_the_greedy_text_agrees_with():
    model = support.build(CONFIG, dtype=np.float32)
    right = judged = 0
    for prompt in PROMPTS:
        text = [*prompt, *minids.generate(model, prompt, 30).tolist()]
        at = len(prompt)  # the token there was drawn from the prompt; the one after it is guessed first
        while at + 1 < len(text):
            guess = int(model.mtp_logits(np.array([text[: at + 1]]))[0][0, -1].argmax())
            judged, stands = judged + 1, guess == text[at + 1]
            right += stands
            at += 1 + stands
    got = acceptance(model, PROMPTS, 30)
    assert 0 <= got <= 1 and abs(got - right / judged) <= 2 / judged, "the last guess of a text may lie beyond its end"


def test_modules_that_know_the_text_are_right_and_stops_and_seeds_hold():
    model = support.build(CONFIG, dtype=np.float32, lively=False)
    samples = [([1, 5], [2, 3, 9, 4, 6, 7, 8, 2, 3, 11])] * 4
    before = acceptance(model, PROMPTS, 12)
    minids.sft(model, samples, lambda line: None, epochs=60, context_length=12, learning_rate=0.02, warmup_steps=0)
    assert acceptance(model, [[1, 5]], 9) > max(before, 0.8)
    assert math.isnan(acceptance(model, [[1, 5]], 1)), "the only token comes from the prompt: nothing is guessed"
    assert math.isnan(acceptance(model, [[1, 5]], 9, stop=[2]))
    assert acceptance(model, PROMPTS, 20, 1.0, seed=3) == acceptance(model, PROMPTS, 20, 1.0, seed=3)


def test_what_cannot_be_measured_is_refused():
    model = support.build(CONFIG, dtype=np.float32)
    for prompts in ("text", [], 3):
        with pytest.raises(MinidsError, match="prompts"):
            acceptance(model, prompts)
    with pytest.raises(MinidsError, match="no MTP module"):
        acceptance(support.build(CONFIG.replace(num_nextn_predict_layers=0)), PROMPTS)
