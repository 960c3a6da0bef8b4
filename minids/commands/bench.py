"""minids bench: how fast it is here, against the machine's limits and the peers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import tyro

from minids.errors import refuse


@dataclass(frozen=True)
class Options:
    """How fast it is on this machine: training, every operation, decoding, with the peers measured in the same run."""

    what: tyro.conf.Positional[Literal["train", "kernels", "decode"]]
    """train: a training step. kernels: every operation by itself, on one core. decode: generation, caches and batches."""
    against: Literal["torch", "torch-compiled"] | None = None
    """Also measure transformers' model on PyTorch: same weights, same batch, by turns in the same process. torch-compiled adds
    ``torch.compile``, which needs a C++ compiler and some minutes."""
    sizes: tuple[Literal["A-12x64", "A-16x256", "B-16x256"], ...] = ("A-12x64", "A-16x256", "B-16x256")
    """Model and batch: A has 1.6 M parameters, B 18.5 M; sequences × tokens."""
    rounds: int = 9
    """How often each contender takes its turn."""
    threads: int = 0
    """Cores to use, the same for everyone; 0 for all."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self):
        for name, least in (("rounds", 1), ("threads", 0)):
            if getattr(self, name) < least:
                raise refuse(name, getattr(self, name), f"must be at least {least}")


def run(options: Options, given: set[str]) -> None:
    import importlib
    import json

    bench = importlib.import_module(f"minids.bench.{options.what}")  # each has run() → what JSON knows, and table()
    found = bench.run(options.sizes, options.rounds, options.threads, options.against)
    print(json.dumps(found, indent=2) if options.json else bench.table(found))
