"""What the machine can do at best: the two limits that the speed of code is measured against.

A matrix product of 2048 × 2048 runs as fast as any will; copying an array shows what its level of the memory gives.
Both are measured in the run that they are compared with, because neither is a constant: clocks and neighbours change.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_limits

from minids.lab.bench.timing import alternate


def sgemm_peak(threads: int, size: int = 2048, repeats: int = 5) -> float:
    """FLOP/s of the fastest of ``repeats`` calls of ``sgemm``."""
    call, flops = sgemm(threads, size)
    return flops / min(alternate({"product": call}, repeats, 0)["product"])


def sgemm(threads: int, size: int = 2048) -> tuple[Callable[[], None], int]:
    """A call that makes a float32 product of size × size, and its FLOPs: the yardstick, to take turns with what it measures.

    The rows of the result are shared out among ``threads`` of our own, each with BLAS held to one: as fast as BLAS's own
    threads on a machine at rest, and not brought down by their waiting for each other when it is not.
    """
    a, b = (np.random.default_rng(i).standard_normal((size, size), dtype=np.float32) for i in range(2))
    out = np.empty_like(a)
    rows = np.array_split(np.arange(size), threads)
    parts = [slice(part[0], part[-1] + 1) for part in rows]

    def product() -> None:
        with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda part: np.matmul(a[part], b, out=out[part]), parts))

    return product, 2 * size**3


def copy_limit(size: int, repeats: int = 5) -> float:
    """Bytes per second, read and written together, of one thread that copies an array of ``size`` bytes."""
    source = np.ones(max(size, 4096) // 4, np.float32)
    target = np.zeros_like(source)
    seconds = alternate({"copy": lambda: np.copyto(target, source)}, repeats, 0)["copy"]
    return 2 * source.nbytes / min(seconds)
