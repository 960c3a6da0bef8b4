"""TensorBoard's event files beside ``metrics.jsonl``, which stays the source: they hold the same numbers under the same names.

    tensorboard --logdir runs          train/main_loss, train/max_vio/1, validation/prose/bits_per_byte, sums_right/…

A run that begins or goes on writes them anew from the lines that count, and then line by line. So no point is there twice,
however often a run was stopped and whatever was written after its last checkpoint.
"""

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minids.errors import refuse
from minids.training.metrics import read_metrics

FOLDER = "tensorboard"
"""Within a run's folder."""


def need_tensorboard() -> None:
    """Refuse, before any work is done, what cannot be written."""
    if importlib.util.find_spec("tensorboardX") is None:
        raise refuse("tensorboard", True, 'tensorboardX is not installed; pip install "minids[tensorboard]"')


class EventFiles:
    """A follower of a run's metrics (``MetricsFile.followers``)."""

    def __init__(self, run: Path):
        from tensorboardX import SummaryWriter

        shutil.rmtree(run / FOLDER, ignore_errors=True)
        self._writer = SummaryWriter(str(run / FOLDER))
        self._began = (run / "run.json").stat().st_mtime
        self._seconds = 0.0  # of training, when the line was written
        for line in read_metrics(run / "metrics.jsonl"):
            self._add(line)
        self._writer.flush()

    def write(self, line: dict) -> None:
        self._add(line)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _add(self, line: dict) -> None:
        self._seconds = line.get("seconds", self._seconds)
        for name, value in scalars(line):
            self._writer.add_scalar(name, value, line["step"], walltime=self._began + self._seconds)


def scalars(line: dict) -> Iterator[tuple[str, float]]:
    """The numbers of a line of metrics by their paths, as TensorBoard groups them; entries of a list count from 1."""
    for name, value in line.items():
        if name not in ("step", "seconds"):
            yield from _leaves(name if isinstance(value, dict) else f"train/{name}", value)


def _leaves(path: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict | list):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value, start=1):
            yield from _leaves(f"{path}/{name}", item)
    else:
        yield path.replace(" ", "-"), float(value)
