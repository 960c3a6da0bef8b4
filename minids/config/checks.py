"""The checks of both configurations, one per kind of value. Each names the field, the value and what would work."""

from __future__ import annotations

import difflib
import math
import sys
import typing
from dataclasses import fields
from typing import Literal

import numpy as np

from minids.errors import refuse


def whole(config, name: str, at_least: int, at_most: float = math.inf, prefix: str = "") -> None:
    value = getattr(config, name)
    if isinstance(value, np.integer):  # from an array: as good as any
        value = int(value)
        object.__setattr__(config, name, value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise refuse(prefix + name, value, f"must be a whole number of at least {at_least}")
    if value < at_least:
        raise refuse(prefix + name, value, f"must be at least {at_least}")
    if value > at_most:
        raise refuse(prefix + name, value, f"must be at most {at_most:,}")


def finite(config, name: str, above: float | None = None, at_least: float | None = None, prefix: str = "") -> None:
    value = getattr(config, name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
        raise refuse(prefix + name, value, "must be a finite number")
    if above is not None and not value > above:
        raise refuse(prefix + name, value, f"must be above {above:g}")
    if at_least is not None and not value >= at_least:
        raise refuse(prefix + name, value, f"must be at least {at_least:g}")


def choices(config) -> None:
    """Every ``Literal`` field holds one of its values."""
    for name, hint in typing.get_type_hints(type(config)).items():
        if typing.get_origin(hint) is Literal and getattr(config, name) not in typing.get_args(hint):
            raise refuse(name, getattr(config, name), f"must be one of {', '.join(typing.get_args(hint))}")


def known(cls, changes: dict) -> None:
    names = [field.name for field in fields(cls)]
    for name in changes:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            raise refuse(
                name, changes[name], f"{cls.__name__} has no such field" + (f"; did you mean {close[0]}?" if close else "")
            )
