"""Every operation on one core: plain NumPy and compiled by turns, and the share of what the machine can do at best.

The limit of an operation with large products is the measured float32 product; of any other a copy of as many bytes as it has
to read and write. The copy is as large as the operation's own arrays: where these fit into a cache, so does it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from threadpoolctl import threadpool_limits

from minids.backend import op, use_backend
from minids.errors import MinidsError
from minids.lab.bench.machine import copy_limit, sgemm_peak
from minids.lab.bench.operations import Case, cases
from minids.lab.bench.sizes import SIZES
from minids.lab.bench.timing import alternate, median, ratio


def run(sizes: tuple[str, ...], rounds: int, threads: int, against: str | None) -> dict:
    """Measure all operations at all ``sizes`` → what ``table`` prints. One core, whatever ``threads`` says."""
    if against:
        raise MinidsError(
            "against: operations are measured against NumPy and the machine; say minids bench train --against torch"
        )
    with threadpool_limits(1, user_api="blas"):
        peak = sgemm_peak(1)
        return {
            "sgemm_flops_per_second": peak,
            "sizes": {
                name: {op: _measured(op, case, rounds, peak) for op, case in cases(SIZES[name]).items()} for name in sizes
            },
        }


def _measured(name: str, case: Case, rounds: int, peak: float) -> dict:
    module = getattr(op, name)
    seconds = {"forward": {}, "backward": {}}
    backends = {backend: _serving(backend, case, module) for backend in ("numpy", "numba")}
    for direction, index in (("forward", 0), ("backward", 1)):
        if index == 0 or case.backward:
            calls = {backend: pair[index] for backend, pair in backends.items()}
            seconds[direction] = alternate(calls, rounds * 3, warm_up=2)
    directions = [taken for taken in seconds.values() if taken]
    ours = sum(median(taken["numba"]) for taken in directions)
    best = case.flops / peak if case.flops else case.traffic / copy_limit(case.traffic // 2)
    return {
        "compiled": importlib.util.find_spec(f"minids.kernels.{name}") is not None,
        "microseconds": {
            direction: {backend: 1e6 * median(times) for backend, times in taken.items()}
            for direction, taken in seconds.items()
        },
        "times_as_fast": {direction: ratio(taken, "numba", "numpy") for direction, taken in seconds.items() if taken},
        "limit": "sgemm" if case.flops else "copy",
        "share_of_limit": best / ours,
    }


def _serving(backend: str, case: Case, module) -> tuple[Callable, Callable]:
    """forward and backward of ``module`` with ``backend``. What forward saves belongs to the backend."""
    with use_backend(backend):
        saved = case.forward(module)

    def forward():
        with use_backend(backend):
            case.forward(module)

    def backward():
        with use_backend(backend):
            case.backward(module, saved)

    return forward, backward


def table(found: dict) -> str:
    """What ``run`` found, for a terminal."""
    lines = [
        f"Operations on one core, float32; a product of 2048² reached {found['sgemm_flops_per_second'] / 1e9:.0f} GFLOP/s."
    ]
    for size, rows in found["sizes"].items():
        lines += ["", f"{size:<22}{'forward, µs':>22}{'':7}{'backward, µs':>22}{'':7}   share of limit, both"]
        lines.append(f"{'':<22}" + f"{'NumPy':>11}{'Numba':>11}{'ratio':>7}" * 2)
        for name, row in rows.items():
            line = f"{name:<22}"
            for direction in ("forward", "backward"):
                times = row["microseconds"][direction]
                if not times:
                    line += " " * 29
                    continue
                compiled = f"{times['numba']:>11,.0f}{row['times_as_fast'][direction]:>7.1f}" if row["compiled"] else f"{'':18}"
                line += f"{times['numpy']:>11,.0f}{compiled}"
            lines.append(f"{line}   {row['share_of_limit']:.0%} of {row['limit']}")
    return "\n".join(lines)
