"""Numbers that tell how a run goes: balance of the experts, bits per byte, and the file they are kept in."""

import json
import math
import os
from pathlib import Path
from typing import Protocol

import numpy as np

from minids.errors import MinidsError
from minids.layers.parameters import Array


def max_violation(counts: Array) -> Array:
    """MaxVio = max_i load_i / mean load − 1 of each layer: 0 is perfect, E/K − 1 the worst (Wang et al. 2024, eq. 4). counts
    (layers, E) → (layers,)."""
    counts = np.asarray(counts, dtype=np.float64)
    return counts.max(axis=-1) / counts.mean(axis=-1) - 1


def bits_per_byte(nats: float, n_bytes: int) -> float:
    """Total surprise in nats over a text of ``n_bytes`` bytes → bits per byte, comparable across tokenizers."""
    return nats / math.log(2) / n_bytes


class Follower(Protocol):
    """Is told every line of a metrics file when it is written."""

    def write(self, line: dict) -> None: ...

    def close(self) -> None: ...


class MetricsFile:
    """``metrics.jsonl``: one JSON object a line, only ever appended to."""

    def __init__(self, path: Path, length: int = 0):
        """``length``: bytes to keep; lines after the last checkpoint are written again by a resumed run."""
        self.path = path
        if path.exists():
            kept = path.read_bytes()[:length]
            os.truncate(path, kept.rfind(b"\n") + 1)  # a power cut may have left half a line of those that counted
        self._file = path.open("ab")
        self.followers: list[Follower] = []

    def write(self, line: dict) -> None:
        for follower in self.followers:
            follower.write(line)
        self._put(json.dumps(line, allow_nan=False).encode() + b"\n")

    def sync(self) -> int:
        """See that all lines are on the disk; their bytes."""
        self._put(b"", durably=True)
        return self._file.tell()

    def _put(self, text: bytes, durably: bool = False) -> None:
        try:
            self._file.write(text)
            self._file.flush()
            if durably:
                os.fsync(self._file.fileno())
        except OSError as error:  # half a line may be there; a resumed run cuts it off
            raise MinidsError(f"{self.path}: cannot be written: {error.strerror}; the checkpoints are untouched") from None

    def close(self) -> None:
        for follower in self.followers:
            follower.close()
        self._file.close()


class NoMetrics(MetricsFile):
    """Of a process that leaves writing to the first one of its group."""

    def __init__(self) -> None:
        self.followers = []

    def write(self, line: dict) -> None:
        pass

    def sync(self) -> int:
        return 0

    def close(self) -> None:
        pass


def read_metrics(path: Path) -> list[dict]:
    """The lines of a metrics file; the last one only when it is whole."""
    lines = []
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                lines.append(json.loads(line))
            except ValueError as error:
                raise MinidsError(f"{path}: line {number} is not JSON ({error}); it is not what this program wrote") from None
    return lines
