"""minids: DeepSeek-V3 written out by hand, forward and backward, in plain NumPy.

What importing changes in the process, all of it for speed:

    import minids          sets OPENBLAS_CORETYPE in the environment, on AMD processors whose NumPy would    ``processor``
                           otherwise take slower kernels, and only before NumPy is imported
                           asks glibc to keep freed memory with the process, in one heap for all threads     ``heap``
    the first operation    imports Numba where the compiled backend serves
                           keeps compiled kernels in a folder of their own; Numba's setting for everybody    ``kernels/_jit``
                           else is put back
    a model at work        holds NumPy's BLAS to one thread, and puts the number back when it has ended       ``blas``

Nothing else is touched: no random state, no NumPy setting, no threads. ``minids doctor`` shows what holds here.
"""

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

from minids import heap, processor

heap.keep_freed_pages()  # before there are threads, each of which would get a heap of its own
processor.choose_openblas_kernels(os.environ, processor.processor(), "numpy" in sys.modules)  # first: NumPy's BLAS reads it

from minids.backend import backend_name, use_backend
from minids.blas import use_blas_threads
from minids.checkpoint.model_folder import load, save
from minids.checkpoint.streaming import load_layer, load_streamed
from minids.checkpoint.tokenizer import Tokenizer
from minids.config import ModelConfig, TrainConfig, Yarn
from minids.errors import MinidsError
from minids.inference.generate import generate, generate_batch, stream
from minids.inference.infill import infill
from minids.model import DeepSeekV3, Losses

__all__ = [
    "DeepSeekV3",
    "Losses",
    "MinidsError",
    "ModelConfig",
    "RewardModel",
    "Tokenizer",
    "TrainConfig",
    "Yarn",
    "backend_name",
    "generate",
    "generate_batch",
    "grpo",
    "infill",
    "load",
    "load_layer",
    "load_streamed",
    "reward_model",
    "save",
    "sft",
    "stream",
    "train",
    "use_backend",
    "use_blas_threads",
]
__version__ = "0.1.0"


if TYPE_CHECKING:
    from minids.training.grpo import grpo
    from minids.training.preferences import reward_model
    from minids.training.reward_model import RewardModel
    from minids.training.sft import sft
    from minids.training.train import train


_LATER = {"train": "train", "sft": "sft", "grpo": "grpo", "reward_model": "preferences", "RewardModel": "reward_model"}
"""What trains, and the module of minids/training that it is in."""


def __getattr__(name: str) -> Any:
    """``minids.check``, ``minids.lab`` and what trains, without an import of their own, and their cost."""
    if name in ("check", "lab"):
        return importlib.import_module(f"minids.{name}")
    if name in _LATER:
        return getattr(importlib.import_module(f"minids.training.{_LATER[name]}"), name)
    raise AttributeError(f"module 'minids' has no attribute {name!r}")
