"""What the studies of post-training share: the model that all arms begin with, and how an arm is measured.

On ``QUESTIONS`` sums of the exam, each asked ``GROUP`` times at temperature 1 and once greedily:

    pass@1, pass@8, greedy      share that is right: of all answers, of questions with a right one among theirs, of greedy ones
    length, entropy             tokens of an answer; nats of a token's distribution, mean over the answers' tokens
    divergence                  KL(π ‖ π_base) of a token, exact, mean over the same tokens
    acceptance                  share of the MTP module's guesses that speculation would keep at temperature 1, in expectation:
                                Σ_v min(p_v, q_v), p the model's distribution of a token and q the module's, one token before

Of how an arm learned: ``steps_to_85`` and ``flipped`` (see ``learn``), and ``seconds_learning``, which are those of the machine
at that hour, whatever else it did.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from minids.config import ModelConfig, TrainConfig
from minids.config.policy import PolicyConfig
from minids.errors import refuse
from minids.lab.studies.base import BALANCED
from minids.lab.studies.base import MODEL as MODEL_OF_TEXT
from minids.lab.studies.erring_sums import LONGEST, ErringSums, task, tokenizer
from minids.lab.studies.study import Job
from minids.lab.studies.training import Curves, training_further
from minids.layers.parameters import Array
from minids.model import IGNORE, DeepSeekV3
from minids.ops.policy_loss import entropy
from minids.training.grpo import PolicyRun
from minids.training.optimizer import optimizer
from minids.training.printing import without_bars

QUESTIONS, GROUP, AT_ONCE = 512, 8, 64
"""Sums of the exam that are asked; answers to each; questions asked side by side."""
LAST = 10
"""Steps, of 128 answers each, whose mean reward is looked at."""

OF_SUMS = dict(vocab_size=13, bos_token_id=None, eos_token_id=None, num_nextn_predict_layers=1, mtp_loss_weight=0.3)
MODEL = MODEL_OF_TEXT | BALANCED | OF_SUMS
"""The model of the other studies with one MTP module and the 13 characters of sums: 0.42 million parameters."""
BASE = dict(
    steps=750, batch_size=16, context_length=64, optimizer="muon", muon_rounds=4, muon_momentum=0.9, learning_rate=0.015,
    warmup_steps=50, constant_until=0.1, decay_until=1.0, final_from=1.0, decay_shape="linear", decay_to=0.0,
    mtp_late_factor=1.0,
)  # fmt: skip
"""How the base is pretrained: 1,024 characters a step, by the recipe of the preset tiny."""


def checked_data(job: Job) -> None:
    """These studies write their text themselves."""
    if job.data != ("builtin",):
        raise refuse("data", " ".join(job.data), "this study draws its sums itself; leave data out")


@lru_cache(maxsize=2)
def base(seed: int, model: str, train: str) -> DeepSeekV3:
    """The pretrained model of a seed; ``model`` and ``train``: fields of their configurations as JSON. A process makes it once,
    and whoever changes it takes a ``twin``."""
    found = DeepSeekV3(ModelConfig(**json.loads(model)), np.random.default_rng([seed, 0]))
    found.tokenizer = tokenizer()
    pretrain(found, TrainConfig(**json.loads(train)), np.random.default_rng([seed, 1]))
    return found


def pretrain(
    model: DeepSeekV3, run: TrainConfig, rng: np.random.Generator, tell: Callable[[int, float], None] | None = None
) -> None:
    """Have ``model`` read the erring teacher's lines. ``tell``: is told the steps made and the loss of each."""
    for step, losses, _ in training_further(model, run, ErringSums(run.batch_size, run.context_length, rng), optimizer):
        if tell:
            tell(step, losses.main)


def twin(model: DeepSeekV3) -> DeepSeekV3:
    """Another model with the same weights and biases."""
    other = DeepSeekV3(model.config, seed=None)
    other.parameters.values[...] = model.parameters.values
    for name, bias in other.parameters.buffers.items():
        bias[...] = model.parameters.buffers[name]
    other.tokenizer = model.tokenizer
    return other


def learn(model: DeepSeekV3, policy: PolicyConfig, job: Job) -> tuple[dict[str, float], dict[str, list[float]]]:
    """GRPO on ``model``; its numbers and curves. ``steps_to_85``: after which the mean reward of the last ``LAST`` was 0.85 or
    more, all of them where it never was; ``flipped``: mean share of choices that flipped, where it was looked at."""
    curves, flipped, rewards = Curves(policy.steps), [], []

    def told(line: dict[str, Any]) -> None:
        curves.add(line["step"], **{name: line[name] for name in ("reward", "length", "entropy", "contrast", "divergence")})
        rewards.append(line["reward"])
        flipped.extend([line["flipped"]] if "flipped" in line else [])
        job.tell(1)

    run = PolicyRun(model, task()._replace(held_out=[]), policy, say=lambda line: None)
    run.on_step = told
    with without_bars():
        run.run()
    if run.step < policy.steps:  # Ctrl-C: half a run is no result
        raise KeyboardInterrupt
    ends = range(LAST, policy.steps + 1)
    reached = next((end for end in ends if np.mean(rewards[end - LAST : end]) >= 0.85), policy.steps)
    numbers = {"steps_to_85": float(reached)}
    return numbers | ({"flipped": float(np.mean(flipped))} if flipped else {}), curves.values


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    found = work()
    return found, time.perf_counter() - began


def measured(model: DeepSeekV3, before: DeepSeekV3 | None = None) -> dict[str, float]:
    """The numbers of the docstring above. ``before``: the base; without one there is no divergence."""
    asked = task()
    # A policy run that makes no step: it asks, decodes and judges as the runs do. Its generator is the same for every arm.
    judge = PolicyRun(model, asked, PolicyConfig(max_new_tokens=LONGEST, group=GROUP), say=lambda line: None)
    found: dict[str, list[float]] = {name: [] for name in ("pass@1", "pass@8", "greedy", "length")}
    of_tokens: dict[str, list[Array]] = {"entropy": [], "divergence": [], "acceptance": []}
    for first in range(0, QUESTIONS, AT_ONCE):
        some = asked.held_out[first : min(first + AT_ONCE, QUESTIONS)]
        drawn = judge.judged(some, GROUP)
        by_question = drawn.rewards.reshape(len(some), GROUP)
        found["pass@1"] += by_question.mean(axis=1).tolist()
        found["pass@8"] += by_question.max(axis=1).tolist()
        found["greedy"] += judge.judged(some, 1, temperature=0.0).rewards.tolist()
        found["length"] += drawn.rollouts.lengths.tolist()
        answers = drawn.rollouts.targets != IGNORE  # (A, T)
        p = _distributions(model.logits(drawn.rollouts.tokens))  # (A, T, V)
        of_tokens["entropy"].append(entropy(p[answers]))
        if before:
            of_tokens["divergence"].append(
                _divergence(p[answers], _distributions(before.logits(drawn.rollouts.tokens))[answers])
            )
        of_tokens["acceptance"].append(acceptance(model, drawn.rollouts.tokens, answers, p))
    numbers = {name: float(np.mean(values)) for name, values in found.items()}
    return numbers | {name: float(np.concatenate(parts).mean()) for name, parts in of_tokens.items() if parts}


def acceptance(model: DeepSeekV3, tokens: Array, counted: Array, p: Array) -> Array:
    """tokens (B, T), and the model's distributions at them (B, T, V) → Σ_v min(p, q) of each token that is predicted where
    ``counted`` (B, T) says; the first of an answer, which no module has guessed, left out."""
    if not model.mtp:
        return np.zeros(0)
    q = _distributions(model.mtp_logits(tokens)[0])  # (B, T − 1, V): at i, of token i + 2, which p[i + 1] is of too
    return np.minimum(p[:, 1:], q).sum(axis=-1)[counted[:, 1:] & counted[:, :-1]]


def acceptance_on_text(model: DeepSeekV3, rows: int = 64, length: int = 64) -> float:
    """The same on lines of the teacher, which a module was pretrained on."""
    tokens, _ = ErringSums(rows, length, np.random.default_rng(3)).next()
    return float(acceptance(model, tokens, np.ones(tokens.shape, bool), _distributions(model.logits(tokens))).mean())


def _distributions(logits: Array) -> Array:
    p = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


def _divergence(p: Array, q: Array) -> Array:
    """KL(p ‖ q) of each row, (N,)."""
    tiny = np.finfo(np.float64).tiny
    return np.sum(p * (np.log(np.maximum(p, tiny)) - np.log(np.maximum(q, tiny))), axis=-1)
