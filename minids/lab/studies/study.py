"""What a study is: a question, the arms that are compared, and one function that runs one arm with one seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple


def _silent(steps: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Job:
    """One run that is asked for. Everything but ``tell`` goes into what is kept of it."""

    arm: str
    seed: int
    steps: int  # of the optimizer
    data: tuple[str, ...] = ("builtin",)  # the text, as ``minids train --data`` takes it
    tell: Callable[[int], None] = field(default=_silent, compare=False, repr=False)  # called with the steps done since the last
    threads: int = 1  # that share every batch; the losses differ by rounding alone


class Outcome(NamedTuple):
    """What one run gave, in plain numbers."""

    numbers: dict[str, float]
    """Name → the one number a run ends with. Their mean and spread over the seeds are the results."""
    curves: dict[str, list[float]] = {}  # noqa: RUF012  a default that nobody writes to
    """Name → values along the run; "step" says where. Up to 50 points each, so that results stay small."""
    details: dict[str, Any] = {}  # noqa: RUF012  tables and such, kept for the first seed only


class Finding(NamedTuple):
    """A sentence about the results that the results themselves decide."""

    claim: str
    holds: bool | None  # None where the seeds do not decide it
    numbers: str  # those behind it, in words


@dataclass(frozen=True)
class Study:
    """A module of ``minids.lab.studies`` holds one as ``STUDY``."""

    question: str  # one line
    arms: dict[str, dict]  # name → what makes this arm another one, as plain JSON values; ``run`` gets it back
    run: Callable[[dict, Job], Outcome]  # one arm, one seed; the same arguments give the same numbers (but for measured times)
    shown: tuple[str, ...]  # the numbers worth a column in the printed table
    common: dict = field(default_factory=dict)  # what all arms share (sizes, learning rate, …), as plain JSON values
    findings: Callable[[dict[str, dict[str, Summary]]], list[Finding]] = lambda arms: []
    """Arm → number → its summary; what follows from them. Only asked once every arm is there."""
    remarks: Callable[[dict], list[str]] = lambda results: []  # the results → further lines below the printed table
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 300
    data: tuple[str, ...] = ("builtin",)  # the text where none is asked for
    quick_steps: int = 6  # of ``--quick``, which shows that a study runs and not what comes out


class Summary(NamedTuple):
    """A number over the seeds."""

    mean: float
    spread: float  # standard deviation over the seeds (n − 1); 0 with one seed
    values: tuple[float, ...]

    def __str__(self) -> str:
        mean = f"{self.mean:,.0f}" if abs(self.mean) >= 1e4 else f"{self.mean:.4g}"
        return f"{mean} ± {self.spread:.2g}" if len(set(self.values)) > 1 else mean
