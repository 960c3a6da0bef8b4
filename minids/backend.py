"""Which code serves an operation: plain NumPy (``minids/ops``) or compiled (``minids/kernels``); only this file knows both.

Layers say ``op.rmsnorm.forward(...)``. With the NumPy backend that is the function of ``ops``; with Numba it is the one of
``kernels``, where there is one, and otherwise that of ``ops``. Constants and types are always those of ``ops``.

    MINIDS_BACKEND=numpy minids train …          for a process
    with minids.use_backend("numpy"): …          for a block of code

The default is Numba where it can be imported. Nothing is imported or compiled before the first operation runs.

The choice is one for the process, seen by all its threads. What a forward pass saved belongs to its backend: change between
steps, not between the two halves of one.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from types import FunctionType, ModuleType

from minids.errors import refuse

BACKENDS = ("numpy", "numba")
VARIABLE = "MINIDS_BACKEND"


class Operation:
    """One operation, by its name in ``minids/ops``. Its functions come from the active backend."""

    def __init__(self, name: str):
        self._name = name
        try:
            self._original = importlib.import_module(f"minids.ops.{name}")
        except ModuleNotFoundError as error:
            raise AttributeError(f"there is no operation {name!r} in minids/ops") from error

    @cached_property
    def _twin(self) -> ModuleType | None:
        """The compiled module, None where there is none."""
        module = f"minids.kernels.{self._name}"
        return importlib.import_module(module) if importlib.util.find_spec(module) else None

    def __getattr__(self, attribute: str):
        original = getattr(self._original, attribute)
        if isinstance(original, FunctionType) and backend_name() == "numba":
            return getattr(self._twin, attribute, original)
        return original


class Operations:
    """``op.NAME`` is operation NAME."""

    def __getattr__(self, name: str) -> Operation:
        operation = Operation(name)
        setattr(self, name, operation)  # from now on an ordinary attribute
        return operation


op = Operations()

_active: str | None = None  # None: not chosen yet


def backend_name() -> str:
    """The active backend, "numba" or "numpy". The first call decides, from MINIDS_BACKEND or by importing Numba."""
    global _active
    if _active is None:
        asked = os.environ.get(VARIABLE)
        _active = _checked(asked, VARIABLE) if asked else ("numpy" if _why_no_numba() else "numba")
    return _active


def use_backend(name: str) -> AbstractContextManager[None]:
    """``with minids.use_backend("numpy"): …`` has "numpy" or "numba" serve all operations in the block, and what served them
    before afterwards."""
    return _chosen(_checked(name, "backend"))


@contextmanager
def _chosen(name: str) -> Iterator[None]:
    global _active
    before, _active = _active, name
    try:
        yield
    finally:
        _active = before


def compiling() -> bool:
    """Whether the first operations to come have to be compiled, because no earlier process has left them in the cache."""
    return backend_name() == "numba" and importlib.import_module("minids.kernels").compiling()


def _checked(name: str, field: str) -> str:
    if name not in BACKENDS:
        raise refuse(field, name, f"must be one of {', '.join(BACKENDS)}")
    if name == "numba" and (why := _why_no_numba()):
        raise refuse(field, name, f"Numba cannot be imported ({why}); install it, or say numpy")
    return name


def _why_no_numba() -> str | None:
    """Why the compiled backend cannot be used, in one line; None if it can."""
    try:
        importlib.import_module("minids.kernels")
    except ImportError as error:
        return str(error).partition("\n")[0] or "no reason given"
    return None
