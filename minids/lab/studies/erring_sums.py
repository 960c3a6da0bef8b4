"""Two-digit sums from a teacher who errs: the text that the studies of post-training pretrain on, and its exam.

    47+25=72            the result at once, in ``AT_ONCE`` of all lines
    47+25=60+12=72      tens and ones apart before it, in the others
    47+25=131           in ``WRONG`` of all lines of either kind the result is any other that two such numbers can have

A model that imitates this text perfectly writes the right result in 1 − ``WRONG`` of its answers at temperature 1, and no more
however long it reads. Sums that are ``reserved`` are never read; they are what is asked.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from minids.checkpoint.tokenizer import Tokenizer, character_tokenizer
from minids.layers.parameters import Array
from minids.training.reserved import reserved
from minids.training.rewards import Task

AT_ONCE, WRONG = 0.6, 0.4
BREAK = "\n"
"""Between two lines, and before the first."""
LONGEST = len("180+18=198") + len(BREAK)
"""Tokens of the longest answer that the teacher gives."""
SMALLEST, LARGEST = 20, 198
"""Results."""


@cache
def tokenizer() -> Tokenizer:
    """A token for each of the 13 characters."""
    return character_tokenizer([f"0123456789+={BREAK}"])


@cache
def pairs(of_the_exam: bool) -> tuple[tuple[int, int], ...]:
    """The sums that are asked, or those that are read."""
    numbers = range(10, 100)
    return tuple((a, b) for a in numbers for b in numbers if reserved(a, "+", b) == of_the_exam)


def question(a: int, b: int) -> str:
    return f"{BREAK}{a}+{b}="


def answer(a: int, b: int, result: int, at_once: bool) -> str:
    return f"{result}{BREAK}" if at_once else f"{a - a % 10 + b - b % 10}+{a % 10 + b % 10}={result}{BREAK}"


def right(question: str, answer: str) -> float:
    """1 where the answer is a whole line whose end, behind the last equals sign, is the sum, else 0."""
    a, b = question.strip(f"{BREAK}=").split("+")
    return float(answer.rpartition("=")[2] == f"{int(a) + int(b)}{BREAK}")


def task() -> Task:
    """Sums that the model has read, to learn from; those of the exam, in an order of their own, to be measured by."""
    read, asked = ([tokenizer().encode(question(a, b)).tolist() for a, b in pairs(exam)] for exam in (False, True))
    order = np.random.default_rng(0).permutation(len(asked))
    return Task("erring sums", read, [asked[i] for i in order], right, [BREAK])


class ErringSums:
    """Batches of the teacher's lines without end, for the training loop. Every line is drawn afresh, and so is its error."""

    def __init__(self, batch_size: int, length: int, rng: np.random.Generator):
        self.batch_size, self.length, self.rng = batch_size, length, rng

    def next(self) -> tuple[Array, Array]:
        """tokens and the tokens that follow them, (B, T) each. Every sequence begins where a line does."""
        rows = np.stack([self._row() for _ in range(self.batch_size)])  # (B, T + 1)
        return np.ascontiguousarray(rows[:, :-1]), np.ascontiguousarray(rows[:, 1:])

    def _row(self) -> Array:
        text = BREAK
        while len(text) <= self.length:
            text += self.line()[len(BREAK) :]
        return tokenizer().encode(text)[: self.length + 1].astype(np.int32)

    def line(self) -> str:
        """A question and its answer."""
        a, b = pairs(False)[self.rng.integers(len(pairs(False)))]
        at_once, errs = self.rng.random(2) < (AT_ONCE, WRONG)
        other = int(self.rng.integers(SMALLEST, LARGEST))
        other += other >= a + b  # of all results but the right one each is as likely
        return question(a, b) + answer(a, b, other if errs else a + b, bool(at_once))
