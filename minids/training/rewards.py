"""Rewards by rules (DeepSeek-V3, section 5.2.1), and what they are asked about.

A reward is any function of a question and an answer that returns a number. Both are texts where the model has a tokenizer, and
lists of token ids where it has none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from minids.checkpoint.tokenizer import Tokenizer
from minids.errors import MinidsError, refuse
from minids.inference.generate import Stop
from minids.terminal import quoted
from minids.training.reserved import reserved
from minids.training.reward_model import RewardModel

Reward = Callable[[Any, Any], float]
SHOWN = 60  # characters of a question or an answer in a message
_SUM = re.compile(r"(\d+) \+ (\d+)")
_NUMBER = re.compile(r"\d+")


class Task(NamedTuple):
    """Questions to learn from, others to be measured by, and the reward of an answer to either."""

    name: str
    questions: list[list[int]]  # token ids
    held_out: list[list[int]]
    reward: Reward
    stop: Stop
    rule: Reward | None = None  # where a reward model has its place: the task's own, to be measured by


def exact_result(question: str, answer: str) -> float:
    """1 where the answer is a whole line whose last number is what the question's sum makes, else 0."""
    asked, numbers = _SUM.findall(question), _NUMBER.findall(answer)
    if not asked or not numbers or not answer.endswith("\n"):
        return 0.0
    a, b = asked[-1]
    return float(int(numbers[-1]) == int(a) + int(b))


def well_formed(question: str, answer: str) -> float:
    """1 where the answer is a line that begins with the question's sum, says what it equals, and ends with a full stop."""
    asked = _SUM.findall(question)
    return float(bool(asked) and re.fullmatch(rf"{asked[-1][0]} \+ {asked[-1][1]}( = [\d +]+)+\.\n", answer) is not None)


def sums(tokenizer: Tokenizer) -> Task:
    """Two-digit sums, worded as the built-in corpus words them. Questions are those that the exam does not keep for itself, and
    held out those that it does."""
    pairs = [(a, b) for a in range(10, 100) for b in range(10, 100)]

    def asked(of_the_exam: bool) -> list[list[int]]:
        texts = [f"Problems\n\nWhat is {a} + {b}?\n" for a, b in pairs if reserved(a, "+", b) == of_the_exam]
        return [[*tokenizer.beginning, *tokenizer.encode(text).tolist()] for text in texts]

    held_out = asked(True)
    order = np.random.default_rng(0).permutation(len(held_out))  # the first few are some of every kind
    return Task("sums", asked(False), [held_out[i] for i in order], exact_result, ["\n"])


def formatted_sums(tokenizer: Tokenizer) -> Task:
    """The same, with 0.1 more for an answer that has the form of a worked sum, right or wrong."""

    def reward(question: str, answer: str) -> float:
        return exact_result(question, answer) + 0.1 * well_formed(question, answer)

    return sums(tokenizer)._replace(name="formatted-sums", reward=reward)


TASKS: dict[str, Callable[[Tokenizer], Task]] = {"sums": sums, "formatted-sums": formatted_sums}


def all_checked(reward: Reward, pairs: Sequence[tuple[Any, Any]]) -> np.ndarray:
    """Rewards of (question, answer) pairs, (A,) float64. A reward model reads them side by side."""
    if not isinstance(reward, RewardModel):
        return np.array([checked(reward, *pair) for pair in pairs])
    values = reward.scores(pairs)
    return np.array([_number(value, *pair) for value, pair in zip(values, pairs, strict=True)])


def checked(reward: Reward, question: Any, answer: Any) -> float:
    """The reward as a number; refused in one line where it is none, or where the function fails."""
    try:
        value = reward(question, answer)
    except Exception as error:
        raise MinidsError(f"reward: {type(error).__name__}: {error}; {_for(question, answer)}") from error
    return _number(value, question, answer)


def _number(value: Any, question: Any, answer: Any) -> float:
    if not isinstance(value, bool | int | float | np.bool | np.integer | np.floating) or not math.isfinite(value):
        raise refuse("reward", value, f"must be a finite number; {_for(question, answer)}")
    return float(value)


def _for(question: Any, answer: Any) -> str:
    return f"for the question {_shown(question)} and the answer {_shown(answer)}"


def _shown(value: Any) -> str:
    text = quoted(value) if isinstance(value, str) else repr(list(value) if isinstance(value, Sequence) else value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
