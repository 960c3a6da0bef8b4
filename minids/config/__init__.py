"""Every size and switch of the model, and every setting of a training run.

Field names are those of the Hugging Face ``DeepseekV3Config``, so that ``config.json`` of a real checkpoint reads like
``model.py``; ours come last. A configuration that cannot work is refused when it is made, never later.
"""

from minids.config.model import ModelConfig, Yarn
from minids.config.parallel import ParallelConfig
from minids.config.policy import PolicyConfig
from minids.config.sft import SFTConfig
from minids.config.training import TrainConfig

__all__ = ["ModelConfig", "ParallelConfig", "PolicyConfig", "SFTConfig", "TrainConfig", "Yarn"]
