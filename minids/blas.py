"""BLAS held to one thread while a model is at work, unless more are asked for.

The matrix products of a small model are too short to be shared out inside BLAS: its threads wait actively for each other at
the end of every product, and when anything else runs on the machine they wait for a core. Beside busy neighbours training made
413 to 557 tokens a second with them and 6,900 without, and reading a prompt took up to 15 times as long.

    with minids.use_blas_threads(8): …     a model so large that its products are worth sharing out, on an idle machine
    MINIDS_BLAS_THREADS=8                  the same for a process
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache

from threadpoolctl import ThreadpoolController

from minids.errors import refuse

VARIABLE = "MINIDS_BLAS_THREADS"


@cache
def _libraries() -> tuple[ThreadpoolController, ThreadpoolController]:
    """(those with one number of threads for the process, those with one for each Python thread). Finding them takes a
    millisecond, setting their number a hundredth of one."""
    found = ThreadpoolController().select(user_api="blas")
    each = [library.filepath for library in found.lib_controllers if getattr(library, "threading_layer", "") == "openmp"]
    every = [library.filepath for library in found.lib_controllers if library.filepath not in each]
    return found.select(filepath=every), found.select(filepath=each)


_lock = threading.Lock()
_inside = 0  # blocks of ``one_blas_thread`` that are open, in all Python threads
_put_back: Callable[[], None]
_asked: int | None = None  # None: not asked for


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Within it, and in functions that it decorates, BLAS has one thread, or as many as were asked for; afterwards as many as
    before. Such blocks may lie in each other, and be open in several Python threads: the last to end puts the number back."""
    global _inside, _put_back
    every, each = _libraries()
    with _lock:
        number = _number()
        if not _inside:
            _put_back = every.limit(limits=number).restore_original_limits
        _inside += 1
    try:
        with each.limit(limits=number) if each.lib_controllers else nullcontext():
            yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _anybody_may(every)  # threadpoolctl lets only that thread put a number back which has set it
                _put_back()
                _anybody_may(every)


def _anybody_may(libraries: ThreadpoolController) -> None:
    for library in libraries.lib_controllers:
        if hasattr(library, "clear_controlling_thread"):
            library.clear_controlling_thread(force=True)


def use_blas_threads(count: int) -> AbstractContextManager[None]:
    """``with minids.use_blas_threads(8): …`` gives the products of models at work in the block so many threads of BLAS."""
    return _chosen(_checked(count, "count"))


@contextmanager
def _chosen(count: int) -> Iterator[None]:
    global _asked
    before, _asked = _asked, count
    try:
        yield
    finally:
        _asked = before


def _number() -> int:
    if _asked is not None:
        return _asked
    said = os.environ.get(VARIABLE, "1")
    return _checked(int(said) if said.isascii() and said.isdigit() else said, VARIABLE)


def _checked(count: object, field: str) -> int:
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise refuse(field, count, "threads of BLAS: must be a whole number of at least 1")
    return count
