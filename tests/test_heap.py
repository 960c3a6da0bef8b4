"""Freed memory stays with the process, in one heap for all threads."""

import platform
import subprocess
import sys

import pytest

from minids import heap

GLIBC = platform.libc_ver()[0] == "glibc"


def test_memory_is_kept_on_linux_only(monkeypatch):
    monkeypatch.setattr(heap.sys, "platform", "darwin")
    assert heap.keep_freed_pages() is False


def test_a_c_library_without_mallopt_is_left_alone(monkeypatch):
    monkeypatch.setattr(heap.sys, "platform", "linux")
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: object())
    assert heap.keep_freed_pages() is False


def test_glibc_agrees_and_no_other_library_is_asked():
    assert heap.keep_freed_pages() is GLIBC


THREADS_THAT_ASK_FOR_MEMORY = """
import ctypes, threading
import minids
import numpy as np

threads = [threading.Thread(target=lambda: [np.ones(1 << 22) for _ in range(3)]) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
c = ctypes.CDLL(None)
c.fdopen.restype = ctypes.c_void_p
c.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
c.fflush.argtypes = [ctypes.c_void_p]
out = c.fdopen(1, b"w")
c.malloc_info(0, out)
c.fflush(out)
"""


@pytest.mark.skipif(not GLIBC, reason="another C library has other heaps")
def test_threads_that_start_after_the_import_share_one_heap():
    done = subprocess.run([sys.executable, "-c", THREADS_THAT_ASK_FOR_MEMORY], capture_output=True, text=True, check=True)
    assert done.stdout.count("<heap ") == 1, done.stdout[:2000]
