"""Which of its kernels OpenBLAS should use, decided before NumPy loads it.

OpenBLAS looks at the processor once, when it is loaded. On AMD's Zen 4 and Zen 5, which have AVX-512, the library in NumPy's
wheels has been seen to take its *Haswell* kernels, made for AVX2: 245 GFLOP/s in float32 on two cores of a Zen 5, where its
*SkylakeX* kernels reach 400 to 460. The environment variable OPENBLAS_CORETYPE overrules its choice. It is set only on an AMD
processor that says it has all these instructions (on others it would end the process; Intel's are recognised), where the user
has not set it, and before NumPy is imported: later it would not be read.

``import minids`` does this first. In a program that imports NumPy before minids nothing is changed; ``minids doctor`` tells.
"""

import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import NamedTuple

VARIABLE, KERNELS = "OPENBLAS_CORETYPE", "SkylakeX"
_NEEDED = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}  # what the SkylakeX kernels are compiled for


class Processor(NamedTuple):
    """What the system says of the first core."""

    vendor: str
    model: str
    flags: frozenset[str]

    @property
    def has_avx512(self) -> bool:
        return self.flags >= _NEEDED


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor(cpuinfo: str | None = None) -> Processor:
    """The processor, from the text of Linux's /proc/cpuinfo; empty fields where there is none to read."""
    if cpuinfo is None:
        try:
            cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        except OSError:
            cpuinfo = ""
    first = cpuinfo.partition("\n\n")[0]
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}
    return Processor(fields.get("vendor_id", ""), fields.get("model name", ""), frozenset(fields.get("flags", "").split()))


def better_kernels(machine: Processor) -> str | None:
    """The kernels that OpenBLAS should be told to use on ``machine``; None where its own choice is right, or unknown."""
    return KERNELS if machine.vendor == "AuthenticAMD" and machine.has_avx512 else None


def choose_openblas_kernels(environment: MutableMapping[str, str], machine: Processor, numpy_imported: bool) -> bool:
    """Set OPENBLAS_CORETYPE in ``environment`` where that is safe and of use. Whether it was set."""
    useful = bool(better_kernels(machine)) and not numpy_imported and VARIABLE not in environment
    if useful:
        environment[VARIABLE] = KERNELS
    return useful
