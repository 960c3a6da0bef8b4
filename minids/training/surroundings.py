"""What a run's numbers depend on besides its settings, and what it means to resume it where that is something else."""

import platform
from importlib import metadata

import numpy as np
from threadpoolctl import threadpool_info

from minids.backend import backend_name
from minids.blas import one_blas_thread
from minids.processor import processor

SAME_RUN = "the run goes on, equal to the uninterrupted one to rounding but not to the bit"


def surroundings() -> dict[str, str]:
    """Backend, versions, processor and BLAS, as they are now. What cannot be told is left out."""
    backend, cpu = backend_name(), processor()
    found = {"backend": backend, "numpy": np.__version__, "machine": platform.machine(), "processor": cpu.model}
    if cpu.flags:  # of x86: on others the system names no width
        found["vector_bits"] = "512" if cpu.has_avx512 else "256" if "avx2" in cpu.flags else "128"
    if backend == "numba":
        found["numba"] = metadata.version("numba")
    with one_blas_thread():  # as Workers has it
        libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    for library in sorted(libraries, key=lambda library: "numpy" not in library["filepath"])[:1]:  # PyTorch brings another
        found["blas"] = " ".join(filter(None, (library["internal_api"], library["version"], library.get("architecture"))))
        found["blas_threads"] = str(library["num_threads"])
    return {name: value for name, value in found.items() if value}


def differences(then: dict[str, str]) -> list[str]:
    """A line for each thing that is not what it was when the run was started."""
    now = surroundings()
    return [
        f"{name} was {then[name]}, is {now.get(name, 'not in use')}: {SAME_RUN}"
        for name in then
        if now.get(name) != then[name] and not (name == "numba" and now["backend"] != "numba")
    ]
