"""minids export: a checkpoint for a program that trains on many GPUs."""

import warnings
from dataclasses import dataclass
from typing import Literal

from minids.terminal import say


@dataclass(frozen=True)
class Options:
    """Write a checkpoint under the names, and with the settings, of torchtitan or Megatron-Core (docs/parallel.md)."""

    checkpoint: str
    """A run's folder, or any Hugging Face DeepSeek folder."""
    to: Literal["torchtitan", "megatron"]
    """The program it is for."""
    out: str
    """Folder to write to."""
    mtp: bool = True
    """Take the multi-token-prediction modules along."""


def run(options: Options, given: set[str]) -> None:
    from minids.checkpoint.export import export
    from minids.checkpoint.model_folder import load

    model = load(options.checkpoint, mtp=options.mtp)
    if warning := export(model, options.out, options.to):
        warnings.warn(warning, stacklevel=2)
    say(f"{len(model.parameters):,} parameters for {options.to}, and {options.to}.json with its settings: {options.out}")
