"""Two arms compared: how far apart their means are, and how far chance alone may put them.

Runs of one seed see the same text in the same order whatever the arm, so arms are compared seed by seed. Of the n differences
with standard deviation s (n − 1),

    interval = mean ± t · s / √n            t: Student's 97.5 % quantile with n − 1 degrees of freedom

holds the true difference in 95 of 100 studies. A claim about two arms holds or fails only where the whole interval lies on one
side of zero; else it is undecided. Where the best of several arms is taken, the interval is a little too narrow.
"""

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from minids.lab.studies.study import Finding, Summary

_T = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)
"""Student's t at 97.5 %, for 1 to 10 degrees of freedom."""
_NORMAL = 1.959964  # the same for infinitely many


def student(degrees: int) -> float:
    """Student's t at 97.5 %: from the table, beyond it the expansion around the normal quantile (within 0.0002)."""
    if degrees <= len(_T):
        return _T[degrees - 1]
    z, n = _NORMAL, degrees
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    return z + (z**3 + z) / (4 * n) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2) + third


class Difference(NamedTuple):
    """The differences a − b of paired runs."""

    mean: float
    spread: float  # standard deviation over the seeds (n − 1); 0 with one seed
    low: float  # ends of the 95 % interval of the mean; infinite with one seed
    high: float

    @property
    def sign(self) -> int:
        """-1 or 1 where the interval lies on one side of zero, 0 where it holds zero."""
        return (self.low > 0) - (self.high < 0)

    def within(self, allowed: float) -> bool | None:
        """Whether the difference is at most ``allowed`` either way; None where the interval has room for both."""
        if -allowed <= self.low and self.high <= allowed:
            return True
        return False if self.low > allowed or self.high < -allowed else None

    def told(self, form: str = "+.4f") -> str:
        """ "difference +0.0387 [−0.0285, +0.1059]"; ``form``: of the numbers."""
        if math.isinf(self.low):
            return f"difference {self.mean:{form}}, of one seed"
        return f"difference {self.mean:{form}} [{self.low:{form}}, {self.high:{form}}]"


def difference(values: Sequence[float]) -> Difference:
    """Of values that are differences already."""
    mean, n = fmean(values), len(values)
    if n == 1:
        return Difference(mean, 0.0, -math.inf, math.inf)
    spread = stdev(values)
    half = student(n - 1) * spread / math.sqrt(n)
    return Difference(mean, spread, mean - half, mean + half)


def paired(a: Summary, b: Summary) -> Difference:
    """a − b, seed by seed."""
    return difference([x - y for x, y in zip(a.values, b.values, strict=True)])


def below(claim: str, a: Summary, b: Summary, prefix: str = "", suffix: str = "") -> Finding:
    """The finding that a is below b. ``prefix`` and ``suffix`` stand around its numbers."""
    return _finding(claim, -paired(a, b).sign, a, b, prefix, suffix)


def above(claim: str, a: Summary, b: Summary, prefix: str = "", suffix: str = "") -> Finding:
    """The finding that a is above b."""
    return _finding(claim, paired(a, b).sign, a, b, prefix, suffix)


def decided(sign: int) -> bool | None:
    """What becomes of a claim that a positive difference makes true."""
    return None if sign == 0 else sign > 0


def _finding(claim: str, sign: int, a: Summary, b: Summary, prefix: str, suffix: str) -> Finding:
    return Finding(claim, decided(sign), f"{prefix}{a.mean:.4f} against {b.mean:.4f}, {paired(a, b).told()}{suffix}")
