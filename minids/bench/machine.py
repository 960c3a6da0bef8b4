"""What the machine can do at best: the two limits that the speed of code is measured against.

A matrix product of 2048 × 2048 runs as fast as any will; copying an array shows what its level of the memory gives.
Both are measured in the run that they are compared with, because neither is a constant: clocks and neighbours change.
"""

from __future__ import annotations

import time

import numpy as np
from threadpoolctl import threadpool_limits


def sgemm_peak(threads: int, size: int = 2048, repeats: int = 5) -> float:
    """FLOP/s of the fastest of ``repeats`` float32 products of size × size, BLAS on ``threads`` threads."""
    a, b = (np.random.default_rng(i).standard_normal((size, size), dtype=np.float32) for i in range(2))
    out = np.empty_like(a)
    with threadpool_limits(threads, user_api="blas"):
        np.matmul(a, b, out=out)
        return 2 * size**3 / _fastest(lambda: np.matmul(a, b, out=out), repeats)


def copy_limit(size: int, repeats: int = 5) -> float:
    """Bytes per second, read and written together, of one thread that copies an array of ``size`` bytes."""
    source = np.ones(max(size, 4096) // 4, np.float32)
    target = np.zeros_like(source)
    return 2 * source.nbytes / _fastest(lambda: np.copyto(target, source), repeats)


def _fastest(call, repeats: int) -> float:
    best = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - began)
    return best
