"""Notebook 17: the check of its first exercise."""

from collections.abc import Callable

import numpy as np

from minids import check
from minids.check import Report

Array = np.ndarray


def check_graded(graded: Callable, log_p: Array, counts: Array) -> Report:
    """The mean over the tokens that count, log_p and counts (B, T), beside those tokens picked out."""
    return check.against(of_those_that_count, graded, log_p, counts)


def of_those_that_count(log_p: Array, counts: Array) -> float:
    """The tokens that count picked out, log_p and counts (B, T)."""
    return -log_p[counts].mean()
