"""A whole training step, clipping and AdamW included: NumPy, Numba and, if asked, PyTorch, by turns in one process.

Ours are steps of the loop that trains (``training/loop.py``), so that what is measured is what is used.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple

from minids import words
from minids.backend import use_backend
from minids.config import TrainConfig
from minids.lab.analysis import flops
from minids.lab.bench import peers
from minids.lab.bench.machine import sgemm
from minids.lab.bench.memory import peak_megabytes
from minids.lab.bench.sizes import SIZES, Size
from minids.lab.bench.timing import alternate, median, ratio
from minids.layers.parameters import Array
from minids.model import DeepSeekV3
from minids.processor import cores
from minids.training.loop import training_steps
from minids.training.optimizer import AdamW
from minids.training.workers import Workers, useful_workers

# Every step with the same rate, and as many as anyone asks for.
TRAIN = TrainConfig(learning_rate=1e-3, steps=2**31 - 1, warmup_steps=0, constant_until=1.0, decay_until=1.0, final_from=1.0)
BACKENDS = ("numpy", "numba")
SGEMM = "sgemm"  # the yardstick takes its turn like everyone

TimedStep = Callable[[], float]


def run(sizes: tuple[str, ...], rounds: int, threads: int, against: str | None) -> dict:
    """Measure training steps of all ``sizes`` → what ``table`` prints, as JSON knows it."""
    threads = threads or cores()
    if against:
        peers.require_torch()
    measured = {name: _measured(name, rounds, threads, against) for name in sizes}
    return {"threads": threads, "sizes": measured}


def _measured(name: str, rounds: int, threads: int, against: str | None) -> dict:
    size = SIZES[name]
    work = size.tokens * flops.training(size.config, size.length)
    product, product_work = sgemm(threads)
    with ExitStack() as stack:
        steps = contenders(size, threads, against, stack)
        losses = {who: step() for who, step in steps.items()}  # the first step compiles; all start from the same weights
        seconds = alternate({**steps, SGEMM: product}, rounds)
    rows = {}
    for who, loss in losses.items():
        middle = median(seconds[who])
        rows[who] = {
            "milliseconds": 1e3 * middle,
            "tokens_per_second": size.tokens / middle,
            "share_of_sgemm": ratio(seconds, who, SGEMM) * work / product_work,
            "first_loss": loss,
            "times_as_fast_as": {other: ratio(seconds, who, other) for other in losses if other != who},
            "peak_megabytes": peak_megabytes(name, who, threads),
        }
    return {
        "tokens_per_step": size.tokens,
        "flops_per_step": work,
        "sgemm_flops_per_second": product_work / median(seconds[SGEMM]),
        "contenders": rows,
    }


def contenders(size: Size, threads: int, against: str | None, stack: ExitStack) -> dict[str, TimedStep]:
    """Everyone's training step, from the same initial weights. What has to be closed goes on ``stack``."""
    return {name: contender(size, threads, name, stack) for name in (*BACKENDS, *(peers.PEERS[against] if against else ()))}


def contender(size: Size, threads: int, name: str, stack: ExitStack) -> TimedStep:
    """A call that makes one training step of a backend's or a peer's and returns its loss before the step."""
    model = DeepSeekV3(size.config, 0)
    if name not in BACKENDS:
        return peers.torch_step(model, size, TRAIN, threads, name == peers.COMPILED)
    workers = stack.enter_context(Workers(model, useful_workers(model, size.batch, threads)))
    steps = training_steps(model, AdamW(model.parameters, TRAIN), Again(*size.sequences()), TRAIN, workers)

    def step() -> float:
        with use_backend(name):
            return next(steps).losses.total

    return step


class Again(NamedTuple):
    """The same batch for ever."""

    tokens: Array
    targets: Array

    def next(self) -> tuple[Array, Array]:
        return self.tokens, self.targets


def table(found: dict) -> str:
    """What ``run`` found, for a terminal."""
    lines = [f"Training steps on {found['threads']} threads, clipping and AdamW included; medians of calls that took turns."]
    for name, size in found["sizes"].items():
        rows = size["contenders"]
        others = [other for other in (*peers.PEERS["torch-compiled"], "numpy") if other in rows]
        peak = size["sgemm_flops_per_second"] / 1e9
        work = f"{size['tokens_per_step']} tokens, {size['flops_per_step'] / 1e9:.2f} GFLOP a step"
        lines += ["", f"{name}: {work}; sgemm {peak:.0f} GFLOP/s"]
        cells = []
        for who, row in rows.items():
            times = ", ".join(f"{row['times_as_fast_as'].get(other, 1):.2f}" for other in others)
            speed = f"{row['milliseconds']:.1f}", f"{row['tokens_per_second']:,.0f}", f"{row['share_of_sgemm']:.0%}"
            cells.append((who, *speed, "-" if (peak := row["peak_megabytes"]) is None else round(peak), times))
        head = ("", "ms", "tokens/s", "of sgemm", "peak MB", f"times as fast as {', '.join(others)}")
        lines.append(words.table(cells, head, "lrrrrl"))
    return "\n".join(lines)
