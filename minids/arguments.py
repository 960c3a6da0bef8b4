"""Arguments of the public functions, checked in words: what has the wrong kind is refused by name, before anything is done."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minids.errors import refuse


def number(
    field: str, value: Any, least: float = 0, most: float = math.inf, above: float = -math.inf, below: float = math.inf
) -> float:
    """``value``, a finite number from ``least`` to ``most``, and above ``above`` and below ``below``."""
    right = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not (right and math.isfinite(value) and least <= value <= most and above < value < below):
        limits = f"above {above:g}" if above >= least else f"of at least {least:g}"
        limits += f" and not above {most:g}" if most < math.inf else f" and below {below:g}" if below < math.inf else ""
        raise refuse(field, value, f"must be a finite number {limits}")
    return float(value)


def whole(field: str, value: Any, least: int = 0, most: float = math.inf, because: str = "") -> int:
    """``value``, a whole number between ``least`` and ``most``."""
    right = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not (right and least <= value <= most):
        limits = f"of {least} to {most}" if most < math.inf else f"of at least {least}"
        raise refuse(field, value, f"must be a whole number {limits}{because and '; '}{because}")
    return int(value)


def switch(field: str, value: Any) -> bool:
    if not isinstance(value, bool | np.bool):
        raise refuse(field, value, "must be True or False")
    return bool(value)


def one_of(field: str, value: Any, names: Sequence[str]) -> Any:
    if not isinstance(value, str) or value not in names:
        raise refuse(field, value, f"must be one of {', '.join(names)}")
    return value


def instance(field: str, value: Any, kind: type | tuple[type, ...], what: str) -> Any:
    """``value``, an instance of ``kind``, which is called ``what``."""
    if not isinstance(value, kind):
        raise refuse(field, value, f"must be {what}")
    return value


def seed(field: str, value: Any) -> Any:
    """What a generator of random numbers may be made of: a whole number, a generator, or None for other numbers every time."""
    if value is None or isinstance(value, np.random.Generator):
        return value
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
        raise refuse(field, value, "must be a whole number of at least 0, a numpy Generator, or None for another every time")
    return int(value)
