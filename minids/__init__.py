"""minids: DeepSeek-V3 written out by hand, forward and backward, in plain NumPy."""

from minids.checkpoint.model_folder import load, save
from minids.checkpoint.streaming import load_layer, load_streamed
from minids.config import ModelConfig, TrainConfig, Yarn
from minids.errors import MinidsError
from minids.inference.generate import generate
from minids.model import DeepSeekV3, Losses

__all__ = [
    "DeepSeekV3",
    "Losses",
    "MinidsError",
    "ModelConfig",
    "TrainConfig",
    "Yarn",
    "generate",
    "load",
    "load_layer",
    "load_streamed",
    "save",
]
__version__ = "0.1.0"
