"""Keeps freed memory with the process, so that the arrays of the next step do not have to be faulted in again.

A training step frees what it saved and allocates the same sizes again. The C library of Linux gives large blocks back to the
system in between, which then hands out zeroed pages one fault at a time: 9,300 faults in a NumPy step of 12 × 64 tokens,
52,000 at 16 × 256, 10 to 20 % of the time. Threads share one heap, because it returns the pages of the heaps it makes for
threads whatever it was asked: 6,200 faults in a step of the 18.5 M model on two threads, 2 % of its CPU time. Other systems'
allocators are left alone.
"""

from __future__ import annotations

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
