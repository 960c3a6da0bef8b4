"""Notebook 9: the checks of its exercises, and how far apart two samples are by chance alone."""

from collections.abc import Callable, Sequence

import numpy as np

from minids import check
from minids.check import Report
from minids.inference.speculative import Draft, judge

Array = np.ndarray

_RNG = np.random.default_rng(0)
_P, _Q = _RNG.dirichlet(np.ones(7), (2, 5))  # (N, V) each: five pairs of distributions


# Exercise 1.


def check_acceptance(acceptance: Callable) -> Report:
    """The probability that a guess stands, p and q (N, V) → (N,), beside one minus their distance."""
    return check.against(by_the_distance, acceptance, _P, _Q)


def by_the_distance(p: Array, q: Array) -> Array:
    """One minus the total variation distance."""
    return 1 - np.abs(p - q).sum(axis=-1) / 2


# Exercise 2.


def check_spoken(spoken: Callable) -> Report:
    """The distribution of what is written, under the right rule, where it is p, and under one that is not lossless."""
    rules = [(p, q, np.minimum(1, p / q)) for p, q in zip(_P, _Q, strict=True)]
    return check.against(by_cases, spoken, [*rules, (_P[0], _Q[0], np.full(7, 0.5))])


def by_cases(p: Array, q: Array, accept: Array) -> Array:
    """Every guess on its own: accepted, or replaced by each of the others."""
    out, left = np.zeros(len(p)), np.maximum(p - q, 0)
    for x in range(len(p)):
        out[x] += q[x] * accept[x]
        out += q[x] * (1 - accept[x]) * left / left.sum()
    return out


# Exercise 3.


def check_stands(stands: Callable) -> Report:
    """How many greedy guesses stand, and the token after them, beside the package's judge."""
    cases = [([1, 2, 3], [1, 2, 3, 4]), ([1, 9, 3], [1, 2, 3, 5]), ([9, 2, 3], [1, 2, 3, 4]), ([], [7])]

    def two_numbers(guesses, choices):
        found = stands(guesses, choices)
        return None if found is None else np.array(found)

    two_numbers.__name__ = stands.__name__
    usual = {"a guess behind a refused one is counted: it was made for another text.": all_that_agree}
    sets = [(np.array(guesses, int), np.array(choices)) for guesses, choices in cases]
    return check.against(by_the_package, two_numbers, sets, usual=usual)


def all_that_agree(guesses: Array, choices: Array) -> Array:
    """Wrong: guesses behind a refused one, too, and the token after that many."""
    n = int(np.sum(guesses == choices[:-1]))
    return np.array([n, choices[n]])


def by_the_package(guesses: Array, choices: Array) -> Array:
    """``judge``, with distributions that make these choices certain."""
    certain = np.eye(10)  # row i: token i for sure
    draft = Draft(list(guesses), [certain[g] for g in guesses])
    return np.array(judge(draft, certain[choices], np.random.default_rng(0)))


# Two samples.


def apart(one: Sequence[int], other: Sequence[int]) -> float:
    """Distance of the distributions of two samples of tokens: 0 the same, 1 nothing in common."""
    size = max(*one, *other) + 1
    first, second = (np.bincount(sample, minlength=size) / len(sample) for sample in (one, other))
    return float(np.abs(first - second).sum() / 2)


def apart_by_chance(one: Sequence[int], other: Sequence[int], shuffles: int = 500) -> tuple[float, float]:
    """Nine of ten distances lie between these two, once it is forgotten which token came from which sample."""
    mixed, rng = np.array([*one, *other]), np.random.default_rng(2)
    found = []
    for _ in range(shuffles):
        rng.shuffle(mixed)
        found.append(apart(mixed[: len(one)], mixed[len(one) :]))
    low, high = np.quantile(found, (0.05, 0.95))
    return float(low), float(high)
