"""What a run's numbers depend on besides its settings, and what it means to resume it where that is something else."""

from __future__ import annotations

import platform
from importlib import metadata

import numpy as np

from minids.backend import backend_name

_SAME_RUN = "the run goes on, equal to the uninterrupted one to rounding but not to the bit"


def surroundings() -> dict[str, str]:
    """Backend, versions and kind of processor, as they are now."""
    backend = backend_name()
    found = {"backend": backend, "numpy": np.__version__, "machine": platform.machine()}
    if backend == "numba":
        found["numba"] = metadata.version("numba")
    return found


def differences(then: dict[str, str]) -> list[str]:
    """A line for each thing that is not what it was when the run was started."""
    now = surroundings()
    return [
        f"{name} was {then[name]}, is {now.get(name, 'not in use')}: {_SAME_RUN}"
        for name in then
        if now.get(name) != then[name] and not (name == "numba" and now["backend"] != "numba")
    ]


def other_threads(then: int, now: int) -> str:
    """What it means to resume with another number of threads."""
    return f"workers was {then}, is {now}: gradients are added in another order, so that {_SAME_RUN}"
