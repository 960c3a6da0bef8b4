"""Every operation on one core: plain NumPy and compiled by turns, and the share of what the machine can do at best.

The limit of an operation with large products is the measured float32 product; of any other a copy of as many bytes as it has
to read and write. The copy is as large as the operation's own arrays: where these fit into a cache, so does it.
"""

import importlib.util
from collections.abc import Callable

from threadpoolctl import threadpool_limits

from minids import words
from minids.backend import op, use_backend
from minids.errors import MinidsError
from minids.lab.bench.machine import copy_limit, sgemm_peak
from minids.lab.bench.operations import Operation, operations
from minids.lab.bench.sizes import SIZES
from minids.lab.bench.timing import alternate, median, ratio


def run(sizes: tuple[str, ...], rounds: int, threads: int, against: str | None) -> dict:
    """Measure all operations at all ``sizes`` → what ``table`` prints. One core, whatever ``threads`` says."""
    if against:
        raise MinidsError("against: operations are measured against NumPy and the machine; torch: minids bench train")
    with threadpool_limits(1, user_api="blas"):
        peak = sgemm_peak(1)
        measured = {
            size: {name: _measured(name, one, rounds, peak) for name, one in operations(SIZES[size]).items()} for size in sizes
        }
        return {"sgemm_flops_per_second": peak, "sizes": measured}


def _measured(name: str, operation: Operation, rounds: int, peak: float) -> dict:
    module = getattr(op, name)
    seconds = {"forward": {}, "backward": {}}
    backends = {backend: _serving(backend, operation, module) for backend in ("numpy", "numba")}
    for index, direction in enumerate(seconds):
        if index == 0 or operation.backward:
            calls = {backend: pair[index] for backend, pair in backends.items()}
            seconds[direction] = alternate(calls, rounds * 3, warm_up=2)
    directions = [taken for taken in seconds.values() if taken]
    ours = sum(median(taken["numba"]) for taken in directions)
    o = operation
    best = o.flops / peak if o.flops else o.bytes / copy_limit(o.bytes // 2)
    return {
        "compiled": importlib.util.find_spec(f"minids.kernels.{name}") is not None,
        "microseconds": {
            direction: {backend: 1e6 * median(times) for backend, times in taken.items()}
            for direction, taken in seconds.items()
        },
        "times_as_fast": {direction: ratio(taken, "numba", "numpy") for direction, taken in seconds.items() if taken},
        "limit": "sgemm" if o.flops else "copy",
        "share_of_limit": best / ours,
    }


def _serving(backend: str, operation: Operation, module) -> tuple[Callable, Callable]:
    """forward and backward of ``module`` with ``backend``. What forward saves belongs to the backend."""
    with use_backend(backend):
        saved = operation.forward(module)

    def forward():
        with use_backend(backend):
            operation.forward(module)

    def backward():
        with use_backend(backend):
            operation.backward(module, saved)

    return forward, backward


def table(found: dict) -> str:
    """What ``run`` found, for a terminal."""
    lines = [
        f"Operations on one core, float32; a product of 2048² reached {found['sgemm_flops_per_second'] / 1e9:.0f} GFLOP/s."
    ]
    head = ("", "forward, µs: NumPy", "Numba", "ratio", "backward, µs: NumPy", "Numba", "ratio", "share of limit, both")
    for size, rows in found["sizes"].items():
        cells = []
        for name, row in rows.items():
            told = [name]
            for direction, times in row["microseconds"].items():
                told.append(f"{times['numpy']:,.0f}" if times else "")
                compiled = times and row["compiled"]
                told += [f"{times['numba']:,.0f}", f"{row['times_as_fast'][direction]:.1f}"] if compiled else ["", ""]
            cells.append([*told, f"{row['share_of_limit']:.0%} of {row['limit']}"])
        lines += ["", size, words.table(cells, head)]
    return "\n".join(lines)
