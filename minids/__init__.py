"""minids: DeepSeek-V3 written out by hand, forward and backward, in plain NumPy.

What importing changes in the process, all of it for speed:

    import minids          sets OPENBLAS_CORETYPE in the environment, on AMD processors whose NumPy would    ``processor``
                           otherwise take slower kernels, and only before NumPy is imported
    the first operation    imports Numba where the compiled backend serves, and asks glibc to keep freed     ``kernels/_memory``
                           memory with the process
                           keeps compiled kernels in a folder of their own; Numba's setting for everybody    ``kernels/_jit``
                           else is put back

Nothing else is touched: no random state, no NumPy setting, no threads. ``minids doctor`` shows what holds here.
"""

import importlib
import os
import sys
from types import ModuleType

from minids import processor

processor.choose_openblas_kernels(os.environ, processor.processor(), "numpy" in sys.modules)  # first: NumPy's BLAS reads it

from minids.backend import backend_name, use_backend
from minids.checkpoint.model_folder import load, save
from minids.checkpoint.streaming import load_layer, load_streamed
from minids.config import ModelConfig, TrainConfig, Yarn
from minids.errors import MinidsError
from minids.inference.generate import generate, generate_batch
from minids.inference.infill import infill
from minids.model import DeepSeekV3, Losses

__all__ = [
    "DeepSeekV3",
    "Losses",
    "MinidsError",
    "ModelConfig",
    "TrainConfig",
    "Yarn",
    "backend_name",
    "generate",
    "generate_batch",
    "infill",
    "load",
    "load_layer",
    "load_streamed",
    "save",
    "use_backend",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> ModuleType:
    """``minids.check`` and ``minids.lab`` without an import of their own, and without their cost for those who use none."""
    if name in ("check", "lab"):
        return importlib.import_module(f"minids.{name}")
    raise AttributeError(f"module 'minids' has no attribute {name!r}")
