"""How every kernel of this package is compiled: the decorator ``kernel``, and where compiled code is kept between runs.

- Float arithmetic may be reordered and contracted, which lets a sum use vector registers, but NaN and infinity stay what they
  are: full ``fastmath`` assumes that there are none and deletes the tests for them.
- A sum is formed in a loop that writes to no other array. LLVM runs a loop that reads one array and writes another one by one
  where the two lie within a vector's reach of each other, and then the last digit would depend on their place in memory.
- Kernels are serial and release the GIL (docs/performance.md, "What did not help", on threads).
- A kernel that another one calls is put into it (``forceinline``): else a process that compiles both and one that loads them
  from the cache would get other last digits.
- Compiled code is kept in a folder named by a hash of the sources of ``kernels`` and ``ops`` and of Numba's version: Numba
  itself does not see an edit in another file, be it of a kernel that is called or of a constant that was compiled in.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numba.core.config

from minids.caches import user_cache, writable

# All of fastmath but "nnan" and "ninf", which are as said, and "afn" and "arcp": those replace 1 / sqrt(x) by an estimate and
# a Newton step, which makes NaN of x = inf, and cost the last digits.
FLOAT_RULES = {"nsz", "contract", "reassoc"}

_kernels: list[Callable] = []
_called: list[Any] = []
_numba_settings: Any = numba.core.config  # its names are made from the environment while it is imported


def kernel(function: Callable) -> Callable:
    """Compile ``function`` when it is first called, one version per set of argument types."""
    compiled = numba.njit(function, fastmath=FLOAT_RULES, nogil=True, error_model="numpy", forceinline=True)
    if CACHE_FOLDER is not None and hasattr(compiled, "enable_caching"):  # a plain function under NUMBA_DISABLE_JIT
        with _in_cache_folder():  # which is read once, by enable_caching
            compiled.enable_caching()
    _kernels.append(compiled)
    return compiled


def part(function: Callable) -> Callable:
    """Have ``function`` put into each kernel that calls it before anything is compiled: by itself it is never compiled. Costs a
    first step less time than ``kernel`` where nobody else calls it."""
    return numba.njit(function, inline="always")


def called_by_address(signature: Any) -> Callable:
    """Compile a function for callers that know its address alone, when that is first asked for: ``function()``."""

    def decorate(function: Callable) -> Callable[[], int]:
        @cache
        def address() -> int:
            with _in_cache_folder():
                made = numba.cfunc(signature, cache=CACHE_FOLDER is not None, error_model="numpy")(function)
            _called.append(made)  # as long as this process lives
            return made.address or 0

        return address

    return decorate


@contextmanager
def _in_cache_folder() -> Iterator[None]:
    chosen_by_user = _numba_settings.CACHE_DIR
    if CACHE_FOLDER is not None:
        _numba_settings.CACHE_DIR = str(CACHE_FOLDER)
    try:
        yield
    finally:
        _numba_settings.CACHE_DIR = chosen_by_user


def compiling() -> bool:
    """Whether the next training step has to compile: nothing in the cache for this version, nothing compiled so far."""
    if any(getattr(compiled, "signatures", True) for compiled in _kernels):
        return False
    return CACHE_FOLDER is None or next(CACHE_FOLDER.rglob("*.nbi"), None) is None


def cache_folder() -> Path | None:
    """Where compiled kernels are kept: below NUMBA_CACHE_DIR, or the user's cache folder; None where neither can be written."""
    key = hashlib.sha256(numba.__version__.encode())
    here = Path(__file__).parent
    for source in sorted((*here.glob("*.py"), *(here.parent / "ops").glob("*.py"))):
        key.update(source.name.encode() + b"\0" + source.read_bytes())
    given = os.environ.get("NUMBA_CACHE_DIR")
    parent = Path(given) if given else user_cache()  # never a folder that others can write to: code is loaded from it
    if parent is None:
        return None
    folder = parent / f"minids-kernels-{key.hexdigest()[:16]}"
    return folder if writable(folder) else None


CACHE_FOLDER = cache_folder()
