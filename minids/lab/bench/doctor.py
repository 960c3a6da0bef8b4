"""What the speed on this machine depends on: found out by ``examined``, judged by ``advice``, shown by ``table``.

Every bench says above its numbers what machine they are of: ``machine`` and ``machine_in_words``.
"""

import importlib
import importlib.metadata
import os
import platform
import sys
import textwrap
from dataclasses import dataclass

import numpy as np
import threadpoolctl

from minids import processor
from minids.backend import VARIABLE, backend_name, compiling
from minids.processor import cores
from minids.terminal import columns

PACKAGES = ("minids", "numpy", "numba", "llvmlite", "safetensors", "tokenizers", "matplotlib", "torch", "transformers")


@dataclass(frozen=True)
class Facts:
    """What there is. None: cannot be told, or not there."""

    system: str
    python: str
    cpu: str
    cores: int  # that this process may use
    load: float | None  # processes that wanted a core, on average over the last minute
    avx512: bool
    better_kernels: str | None  # what OpenBLAS should use on this processor, where its own choice is known to be slower
    coretype: str | None  # OPENBLAS_CORETYPE as this process sees it, set by the user or by ``import minids``
    blas: str  # name and version of NumPy's
    blas_kernels: str | None  # what the processor was taken for
    blas_threads: int | None
    blas_in_kernels: bool  # whether compiled kernels can call it themselves
    backend: str
    numba_error: str | None  # why the compiled backend cannot be used
    jit_disabled: bool
    threading_layer: str | None  # Numba's, for parallel kernels; those of minids are serial
    cache: str | None  # folder of compiled kernels
    cache_megabytes: float
    cache_warm: bool  # whether a training step finds compiled kernels there
    versions: dict[str, str]


def examined() -> Facts:
    """Look at this process and this machine."""
    machine = processor.processor()
    np.ones((2, 2)) @ np.ones((2, 2))  # has NumPy load its BLAS
    library = next((entry for entry in threadpoolctl.threadpool_info() if entry["user_api"] == "blas"), {})
    error, layer, cache, in_kernels = None, None, None, False
    try:
        kernels = importlib.import_module("minids.kernels")
        cache, layer = kernels.CACHE_FOLDER, sys.modules["numba"].config.THREADING_LAYER
        in_kernels = bool(importlib.import_module("minids.kernels._blas").address(np.dtype(np.float32)))
    except ImportError as problem:
        error = str(problem).partition("\n")[0] or "no reason given"
    return Facts(
        system=f"{platform.system()} {platform.release()} on {platform.machine()}",
        python=platform.python_version(),
        cpu=machine.model or platform.processor() or "unknown",
        cores=cores(),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        avx512=machine.has_avx512,
        better_kernels=processor.better_kernels(machine),
        coretype=os.environ.get(processor.VARIABLE),
        blas=f"{library.get('internal_api', 'unknown')} {library.get('version') or ''}".strip(),
        blas_kernels=library.get("architecture"),
        blas_threads=library.get("num_threads"),
        blas_in_kernels=in_kernels,
        backend=backend_name(),
        numba_error=error,
        jit_disabled=os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"),
        threading_layer=layer,
        cache=str(cache) if cache else None,
        cache_megabytes=sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) / 1e6 if cache else 0.0,
        cache_warm=error is None and backend_name() == "numba" and not compiling(),
        versions={name: version for name in PACKAGES if (version := _version(name))},
    )


def advice(facts: Facts) -> list[str]:
    """What would be faster, one sentence or two each; nothing where nothing is known."""
    found = []
    if facts.numba_error:
        found.append(f"Numba cannot be imported ({facts.numba_error}): the NumPy backend serves. pip install numba")
    elif facts.backend == "numpy":
        found.append(f"{VARIABLE}=numpy is set: the compiled backend is there and does not serve. Unset it.")
    if facts.jit_disabled:
        found.append("NUMBA_DISABLE_JIT is set: kernels run as Python, hundreds of times slower. Unset it.")
    if facts.better_kernels and facts.blas_kernels != facts.better_kernels:
        if facts.coretype and facts.coretype != facts.better_kernels:
            better = f"{facts.better_kernels} suits this processor better"
            found.append(f"OPENBLAS_CORETYPE={facts.coretype} is set; {better}. Unset it.")
        else:
            found.append(
                f"OpenBLAS uses its {facts.blas_kernels} kernels although this processor has AVX-512: NumPy was imported "
                f"before minids. Import minids first, or set OPENBLAS_CORETYPE={facts.better_kernels} before Python starts."
            )
    if not facts.numba_error and not facts.cache:
        found.append("No folder to keep compiled kernels in: every process compiles anew. Set NUMBA_CACHE_DIR to one of yours.")
    if not facts.numba_error and not facts.blas_in_kernels:
        found.append("NumPy's BLAS cannot be called from kernels: large products are slower. NumPy's own wheels allow it.")
    if facts.load is not None and facts.load > facts.cores / 2 + 0.5:
        wanted = f"{facts.load:.1f} processes wanted the {facts.cores} cores in the last minute"
        found.append(f"{wanted}: close others before you measure.")
    return found


def table(facts: Facts) -> str:
    """For a terminal."""
    avx512 = "with" if facts.avx512 else "without"
    chosen = f", told to by {processor.VARIABLE}={facts.coretype}" if facts.coretype else ""
    state = "warm" if facts.cache_warm else "cold: the first training step compiles, once"
    rows = {
        "system": f"{facts.system}, Python {facts.python}",
        "processor": f"{facts.cpu}, {avx512} AVX-512; {facts.cores} cores for this process",
        "BLAS": f"{facts.blas}, {facts.blas_kernels or 'unknown'} kernels{chosen}, {facts.blas_threads} threads",
        "backend": facts.backend + (", its kernels call this BLAS for large products" if facts.blas_in_kernels else ""),
        "threads": f"one worker per core, each with part of the batch and BLAS held to one thread; Numba's threading layer "
        f"({facts.threading_layer}) is not used, because kernels are serial",
        "cache": f"{facts.cache}, {facts.cache_megabytes:.1f} MB, {state}" if facts.cache else "none",
        "versions": ", ".join(f"{name} {version}" for name, version in facts.versions.items()),
    }
    lines = [_folded(f"{name:<11}", text) for name, text in rows.items()]
    found = advice(facts)
    lines += ["", "What would be faster:" if found else "Nothing is known that would be faster here."]
    return "\n".join(lines + [_folded("  - ", sentence) for sentence in found])


def machine(facts: Facts) -> dict:
    """What a measured speed has to say of where it was measured, for JSON."""
    names = ["system", "python", "cpu", "cores", "load", "avx512"]
    names += ["blas", "blas_kernels", "blas_in_kernels", "backend", "versions"]
    return {name: getattr(facts, name) for name in names}


def machine_in_words(facts: Facts) -> str:
    """The same, in a line or two above a table of speeds."""
    vectors = ", AVX-512" if facts.avx512 else ""
    cores = f"{facts.cores} core{'s' * (facts.cores != 1)}"
    blas = f"{facts.blas} with {facts.blas_kernels or 'unknown'} kernels"
    versions = ", ".join(f"{name} {facts.versions[name]}" for name in ("numpy", "numba", "torch") if name in facts.versions)
    load = "" if facts.load is None else f"; {facts.load:.1f} processes wanted a core before"
    return _folded("", f"{facts.cpu}{vectors}, {cores}; {blas}; Python {facts.python}, {versions}{load}.")


def _folded(mark: str, text: str) -> str:
    """Behind a mark, and on a terminal in lines that it has room for: a folder's name is not cut."""
    wide = columns()
    wrap = {"initial_indent": mark, "subsequent_indent": " " * len(mark), "break_long_words": False, "break_on_hyphens": False}
    return mark + text if wide is None else "\n".join(textwrap.wrap(text, wide, **wrap))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
