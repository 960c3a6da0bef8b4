"""Numbers that tell how a run goes: balance of the experts, bits per byte, and the file they are kept in."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np

from minids.errors import MinidsError
from minids.layers.parameters import Array


def max_violation(counts: Array) -> Array:
    """MaxVio = max_i load_i / mean load − 1 of each layer: 0 is perfect, E/K − 1 the worst (Wang et al. 2024, eq. 4).

    counts (layers, E) → (layers,).
    """
    counts = np.asarray(counts, dtype=np.float64)
    return counts.max(axis=-1) / counts.mean(axis=-1) - 1


def bits_per_byte(nats: float, n_bytes: int) -> float:
    """Total surprise in nats over a text of ``n_bytes`` bytes → bits per byte, comparable across tokenizers."""
    return nats / math.log(2) / n_bytes


class MetricsFile:
    """``metrics.jsonl``: one JSON object a line, only ever appended to."""

    def __init__(self, path: Path, length: int = 0):
        """``length``: bytes to keep; lines after the last checkpoint are written again by a resumed run."""
        self.path = path
        if path.exists():
            os.truncate(path, min(length, path.stat().st_size))
        self._file = path.open("ab")

    def write(self, line: dict) -> None:
        text = json.dumps(line, allow_nan=False).encode() + b"\n"
        try:
            self._file.write(text)
            self._file.flush()
        except OSError as error:  # half a line may be there; a resumed run cuts it off
            raise MinidsError(f"{self.path}: cannot be written: {error.strerror}; the checkpoints are untouched") from None

    @property
    def length(self) -> int:
        """Bytes written so far."""
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


def read_metrics(path: Path) -> list[dict]:
    """The lines of a metrics file."""
    with Path(path).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
