"""minids: DeepSeek-V3 written out by hand, forward and backward, in plain NumPy."""

from minids.config import ModelConfig, TrainConfig, Yarn
from minids.errors import MinidsError
from minids.model import DeepSeekV3, Losses

__all__ = ["DeepSeekV3", "Losses", "MinidsError", "ModelConfig", "TrainConfig", "Yarn"]
__version__ = "0.1.0"
