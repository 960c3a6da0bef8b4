"""A whole training step, clipping and AdamW included: NumPy, Numba and, if asked, PyTorch, by turns in one process."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from minids.analysis import flops
from minids.backend import use_backend
from minids.bench import peers
from minids.bench.machine import sgemm_peak
from minids.bench.sizes import SIZES, Size
from minids.bench.timing import alternate, median, ratio
from minids.config import TrainConfig
from minids.model import DeepSeekV3
from minids.training.optimizer import AdamW
from minids.training.workers import Workers, cores, useful_workers

TRAIN = TrainConfig(learning_rate=1e-3)
BACKENDS = ("numpy", "numba")

Step = Callable[[], float]


def run(sizes: tuple[str, ...], rounds: int, threads: int, against: str | None) -> dict:
    """Measure training steps of all ``sizes`` → what ``table`` prints, as JSON knows it."""
    threads = threads or cores()
    if against:
        peers.require_torch()
    peak = sgemm_peak(threads)
    found = {"threads": threads, "sgemm_flops_per_second": peak, "sizes": {}}
    for name in sizes:
        found["sizes"][name] = _measured(SIZES[name], rounds, threads, against, peak)
    return found


def _measured(size: Size, rounds: int, threads: int, against: str | None, peak: float) -> dict:
    work = size.tokens * flops.training(size.config, size.length)
    with ExitStack() as stack:
        steps = contenders(size, threads, against, stack)
        losses = {name: step() for name, step in steps.items()}  # the first step compiles; all start from the same weights
        seconds = alternate(steps, rounds)
    rows = {}
    for name, times in seconds.items():
        middle = median(times)
        rows[name] = {
            "milliseconds": 1e3 * middle,
            "tokens_per_second": size.tokens / middle,
            "share_of_sgemm": work / middle / peak,
            "first_loss": losses[name],
            "times_as_fast_as": {other: ratio(seconds, name, other) for other in seconds if other != name},
        }
    return {"tokens_per_step": size.tokens, "flops_per_step": work, "contenders": rows}


def contenders(size: Size, threads: int, against: str | None, stack: ExitStack) -> dict[str, Step]:
    """Everyone's training step, from the same initial weights. What has to be closed goes on ``stack``."""
    steps = {name: our_step(size, threads, name, stack) for name in BACKENDS}
    if against == "torch":
        for name, compiled in peers.PEERS.items():
            steps[name] = peers.torch_step(DeepSeekV3(size.config, 0), size, TRAIN, threads, compiled)
    return steps


def our_step(size: Size, threads: int, backend: str, stack: ExitStack) -> Step:
    """A call that makes one training step with ``backend`` and returns its loss before the step."""
    model = DeepSeekV3(size.config, 0)
    optimizer = AdamW(model.parameters, TRAIN)
    workers = stack.enter_context(Workers(model, useful_workers(model, size.batch, threads)))
    tokens, targets = size.sequences()

    def step() -> float:
        with use_backend(backend):
            model.parameters.zero_grads()
            losses = workers.forward_backward(tokens, targets, 1.0, 0.0)
            optimizer.step(TRAIN.learning_rate)
        return losses.total

    return step


def table(found: dict) -> str:
    """What ``run`` found, for a terminal."""
    lines = [
        f"Training steps on {found['threads']} threads, clipping and AdamW included; medians of calls that took turns.",
        f"A float32 product of 2048 × 2048 reached {found['sgemm_flops_per_second'] / 1e9:.0f} GFLOP/s.",
    ]
    for name, size in found["sizes"].items():
        rows = size["contenders"]
        last = next((peer for peer in peers.PEERS if peer in rows), "numpy")
        lines += ["", f"{name}: {size['tokens_per_step']} tokens, {size['flops_per_step'] / 1e9:.2f} GFLOP a step"]
        lines.append(f"  {'':<15}{'ms':>9}{'tokens/s':>11}{'of sgemm':>10}   times as fast as {last}")
        for contender, row in rows.items():
            times = row["times_as_fast_as"].get(last)
            lines.append(
                f"  {contender:<15}{row['milliseconds']:>9.1f}{row['tokens_per_second']:>11,.0f}{row['share_of_sgemm']:>10.0%}"
                + (f"   {times:.2f}" if times else "")
            )
    return "\n".join(lines)
