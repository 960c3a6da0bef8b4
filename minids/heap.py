"""Keeps freed memory with the process, so that the arrays of the next step do not have to be faulted in again.

In between the C library of Linux gives large blocks back to the system, which hands out zeroed pages one fault at a time, for
10 to 30 % of a step (docs/performance.md). All threads share one heap: pages of their own are returned whatever was asked.
That is settled when the first of them wants memory, so ``import minids`` asks before there are any.
"""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_LARGEST_IN_HEAP = 32 << 20  # bytes; the most that every glibc accepts
_KEPT = 1 << 30  # bytes at the top of the heap that may stay free


def keep_freed_pages() -> bool:
    """Ask glibc to serve arrays up to 32 MB from a heap that it does not give back. Whether it agreed."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library, such as musl
        return False
    settings = (_M_MMAP_THRESHOLD, _LARGEST_IN_HEAP), (_M_TRIM_THRESHOLD, _KEPT), (_M_ARENA_MAX, 1)
    return all([bool(mallopt(*setting)) for setting in settings])
