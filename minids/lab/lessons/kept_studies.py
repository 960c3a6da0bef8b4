"""Notebook 18: the checks of its exercises."""

from collections.abc import Callable

import numpy as np

from minids import check
from minids.check import Report
from minids.config import TrainConfig
from minids.training import batch_ramp

Array = np.ndarray


# Exercise 1.


def check_laid_out(laid_out: Callable) -> Report:
    """A middle inside of the text, one at its beginning, and an empty one."""
    words = np.arange(10, 20)
    usual = {"it leaves the middle where it was: nothing is learned about holes.": middle_in_the_middle}
    return check.against(token_by_token, laid_out, [(words, a, b, 0, 1, 2) for a, b in ((3, 6), (0, 4), (5, 5))], usual=usual)


def token_by_token(text: Array, a: int, b: int, begin: int, hole: int, end: int) -> Array:
    """Prefix, suffix and middle, a token at a time."""
    out = [begin, *(text[i] for i in range(a)), hole]
    return np.array([*out, *(text[i] for i in range(b, len(text))), end, *(text[i] for i in range(a, b))])


def middle_in_the_middle(text: Array, a: int, b: int, begin: int, hole: int, end: int) -> Array:
    """Wrong: in the order of the text."""
    return np.concatenate([[begin], text[:a], [hole], text[a:b], [end], text[b:]])


# Exercise 2.


def check_batch_at(batch_at: Callable) -> Report:
    """A ramp over half of a run, in the middle of five of its steps, rounded to whole sequences."""
    train = TrainConfig(batch_size=64, steps=200, batch_ramp_from=0.2, batch_ramp_until=0.5)
    done = [batch_ramp.share_done(step, train) for step in range(200)]
    middles = {step: (done[step] + done[step + 1]) / 2 for step in (0, 30, 60, 120, 190)}
    planned = {share: batch_ramp.sequences(step, train) for step, share in middles.items()}

    def of_the_plan(share, most, start, until):
        return planned[share]

    def rounded(share, most, start, until):
        yours = batch_at(share, most, start, until)
        return yours if yours is Ellipsis or yours is None else round(yours)

    rounded.__name__ = batch_at.__name__
    return check.against(of_the_plan, rounded, [(share, 64, 0.2, 0.5) for share in planned])


# Exercise 3.


def check_averaged(averaged: Callable) -> Report:
    """Some weights on their way: the average after one, three and six steps from zeros, beside the sum it stands for."""
    path = np.random.default_rng(0).normal(size=(6, 4)).cumsum(axis=0)  # (steps, P)

    def from_the_sum(steps, d):
        weight = (1 - d) * d ** np.arange(steps - 1, -1, -1) / (1 - d**steps)
        return weight @ path[:steps]

    def step_by_step(steps, d):
        e = np.zeros(4)
        for t in range(1, steps + 1):
            e = averaged(e, path[t - 1], t, d)
        return e

    step_by_step.__name__ = averaged.__name__
    return check.against(from_the_sum, step_by_step, [(1, 0.9), (3, 0.9), (6, 0.5)])
