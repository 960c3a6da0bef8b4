"""BLAS held to one thread while a small model is at work.

The matrix products of a small model are too short to be shared out inside BLAS: its threads wait actively for each other at
the end of every product, and when anything else runs on the machine they wait for a core. Beside busy neighbours training made
413 to 557 tokens a second with them and 6,900 without, and reading a prompt took up to 15 times as long.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController


@cache
def _blas() -> ThreadpoolController:
    """Finding the libraries takes a millisecond, setting their number of threads a hundredth of one."""
    return ThreadpoolController().select(user_api="blas")


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Within it, and in functions that it decorates, BLAS has one thread; afterwards as many as before.

    The number is one for the process. Of several Python threads threadpoolctl lets one change it, so they cannot leave behind
    what another has set.
    """
    with _blas().limit(limits=1):
        yield
