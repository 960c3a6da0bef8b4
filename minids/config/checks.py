"""The checks that every configuration has in common. Each refusal names the field, the value and what would work."""

import math
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Literal, Self

import numpy as np

from minids.errors import refuse
from minids.other_names import SETTINGS, perhaps
from minids.words import did_you_mean


def check_fields(
    config: Any,
    at_least: Mapping[str, float] = types.MappingProxyType({}),
    above: Mapping[str, float] = types.MappingProxyType({}),
    at_most: Mapping[str, float] = types.MappingProxyType({}),
    prefix: str = "",
) -> None:
    """Every field holds what its type says; whole numbers are at least 1 and other numbers at least 0 unless told otherwise."""
    for name, kind in typing.get_type_hints(type(config)).items():
        value, said = getattr(config, name), prefix + name
        if types.NoneType in typing.get_args(kind):
            if value is None:
                continue
            kind = typing.get_args(kind)[0]
        if kind is int:
            least, most = at_least.get(name, 1), at_most.get(name, math.inf)
            if isinstance(value, np.integer):  # from an array: as good as any
                value = int(value)
                object.__setattr__(config, name, value)
            if isinstance(value, bool) or not isinstance(value, int):
                raise refuse(said, value, f"must be a whole number of at least {least}")
            if not least <= value <= most:
                raise refuse(said, value, f"must be at least {least}" if value < least else f"must be at most {most:,}")
        elif kind is float:
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
                raise refuse(said, value, "must be a finite number")
            if name in above and not value > above[name]:
                raise refuse(said, value, f"must be above {above[name]:g}")
            if value < at_least.get(name, 0):
                raise refuse(said, value, f"must be at least {at_least.get(name, 0):g}")
        elif kind is bool and not isinstance(value, bool):
            raise refuse(said, value, "must be true or false")
        elif typing.get_origin(kind) is Literal and value not in typing.get_args(kind):
            raise refuse(said, value, f"must be one of {', '.join(typing.get_args(kind))}")


class Replaceable:
    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed; checked like a new one."""
        names = [field.name for field in fields(self)]  # type: ignore[arg-type]  # all that inherit this are dataclasses
        for name in changes.keys() - set(names):
            hint = perhaps(name, names, SETTINGS) or did_you_mean(name, names)
            because = f"{type(self).__name__} has no such field; {hint}".rstrip("; ")
            raise refuse(name, changes[name], because)
        return replace(self, **changes)  # type: ignore[type-var]
