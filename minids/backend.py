"""Which code serves an operation: plain NumPy (``minids/ops``) or compiled (``minids/kernels``); only this file knows both.

Layers say ``op.rmsnorm.forward(...)``: the function of ``ops``, or with Numba its twin in ``kernels``, where there is one.

    MINIDS_BACKEND=numpy minids train …          for a process
    with minids.use_backend("numpy"): …          for a block of code

The default is Numba where it can be imported. All threads share the choice. What a forward pass saved belongs to its backend:
change between steps, not between the two halves of one.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from minids.errors import refuse

BACKENDS = ("numpy", "numba")
VARIABLE = "MINIDS_BACKEND"


@cache
def _module(package: str, name: str) -> ModuleType | None:
    """minids.PACKAGE.NAME, imported; None where there is none."""
    path = f"minids.{package}.{name}"
    return importlib.import_module(path) if importlib.util.find_spec(path) else None


class Operation:
    """One operation of ``minids/ops``. A function is looked up once and kept, until another backend is chosen."""

    __slots__ = ("__dict__", "name")

    def __init__(self, name: str):
        self.name = name

    def __getattr__(self, attribute: str) -> Any:
        """For what is not in ``__dict__`` yet."""
        kept = self.__dict__  # before the backend is asked for: if another thread changes it meanwhile, this is thrown away
        found = getattr(_module("ops", self.name), attribute)
        if isinstance(found, FunctionType) and backend_name() == "numba":
            found = getattr(_module("kernels", self.name), attribute, found)
        kept[attribute] = found
        return found


class Operations:
    """``op.NAME`` is operation NAME."""

    def __getattr__(self, name: str) -> Operation:
        if _module("ops", name) is None:
            raise AttributeError(f"there is no operation {name!r} in minids/ops")
        operation = Operation(name)
        _known.append(operation)
        setattr(self, name, operation)  # from now on an ordinary attribute
        return operation


if TYPE_CHECKING:
    from minids import ops as op  # to an editor op.rmsnorm.forward is the function in ops/rmsnorm.py, with its types
else:
    op = Operations()

_known: list[Operation] = []


def _forget() -> None:
    """What operations have looked up may no longer be what serves them."""
    for operation in _known:
        operation.__dict__ = {}


_active: str | None = None  # None: not chosen yet


def backend_name() -> str:
    """The active backend, "numba" or "numpy". The first call decides, from MINIDS_BACKEND or by importing Numba."""
    global _active
    if _active is None:
        asked = os.environ.get(VARIABLE)
        _active = _checked(asked, VARIABLE) if asked else ("numpy" if _why_no_numba() else "numba")
    return _active


def use_backend(name: str) -> AbstractContextManager[None]:
    """``with minids.use_backend("numpy"): …`` has "numpy" or "numba" serve all operations in the block."""
    return _chosen(_checked(name, "backend"))


@contextmanager
def _chosen(name: str) -> Iterator[None]:
    global _active
    before, _active = _active, name
    _forget()
    try:
        yield
    finally:
        _active = before
        _forget()


@contextmanager
def replaced(owner: object, **functions: Callable) -> Iterator[None]:
    """``with replaced(op.rope, forward=mine): …`` has NumPy's ``op.rope.forward`` be ``mine`` in the block, for operations that
    build on it too. ``owner`` may also be any other module, or a class whose method is replaced."""
    if isinstance(owner, Operation):
        owner = _module("ops", owner.name)
    before = {name: vars(owner)[name] for name in functions}  # KeyError: there is nothing of that name to replace
    try:
        for name, function in functions.items():
            setattr(owner, name, function)
        _forget()
        yield
    finally:
        for name, function in before.items():
            setattr(owner, name, function)
        _forget()


def compiling() -> bool:
    """Whether the first operations to come have to be compiled, because no earlier process has left them in the cache."""
    return backend_name() == "numba" and importlib.import_module("minids.kernels").compiling()


def _checked(name: str, field: str) -> str:
    if not isinstance(name, str) or name not in BACKENDS:
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
