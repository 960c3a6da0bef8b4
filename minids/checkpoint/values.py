"""Single values out of a JSON file, made harmless: of bearable size, finite, and printable in an error line."""

from __future__ import annotations

from minids.errors import refuse
from minids.files import shortened

LIMIT = 1 << 31
"""No size in a configuration is beyond this; a larger one is damage or malice."""


def scalar(name: str, value: object, limit: int = LIMIT) -> object:
    """A value as it stands, if it is a single one: no list, no object, no endless string, no integer beyond ``limit``."""
    if isinstance(value, (list, dict)) or (isinstance(value, str) and len(value) > 100):
        raise refuse(name, printable(value), "must be a single value")
    if type(value) is int and abs(value) > limit:
        raise refuse(name, printable(value), f"more than {limit:,} cannot be right")
    return value


def real(name: str, value: object) -> float:
    """A finite number as a float."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= 1e300:
        raise refuse(name, printable(value), "must be a finite number")
    return float(value)


def printable(value: object) -> object:
    """A value of a file for an error line, which shows its ``repr``: cut to a bearable length."""
    return value if value is None or isinstance(value, (bool, float)) else _Repr(shortened(value))


class _Repr(str):
    """A string that is its own ``repr``."""

    __repr__ = str.__str__
