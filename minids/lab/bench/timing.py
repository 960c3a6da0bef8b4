"""Timing by turns: every contender once, then again, so that a busy minute is everyone's."""

import time
from collections.abc import Callable
from statistics import median

__all__ = ["alternate", "median", "ratio"]


def alternate(contenders: dict[str, Callable[[], object]], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Call all ``contenders`` in turn, ``rounds`` times after ``warm_up`` rounds that do not count → seconds per call."""
    seconds = {name: [] for name in contenders}
    for turn in range(warm_up + rounds):
        for name, call in contenders.items():
            began = time.perf_counter()
            call()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def ratio(seconds: dict[str, list[float]], one: str, other: str) -> float:
    """How many times as fast ``one`` is as ``other``: the median over the turns of the quotient within a turn."""
    return median(theirs / ours for ours, theirs in zip(seconds[one], seconds[other], strict=True))
