"""Memory to train a model and to serve it, in bytes, and what each byte is for.

Training keeps, per parameter, the weight, its gradient and AdamW's two moments, and per token what the backward pass needs
again:

    activations = Σ_steps layers · saved elements · bytes         every saved array by name: ``minids.lab.analysis.steps``

"stored" activations are whatever the backward passes of the NumPy backend use (the compiled backend keeps less). "recompute":
norms, MLA's up-projections, attention probabilities and the SwiGLU product are made again (DeepSeek-V3 report, section 3.2.3).
"""

from typing import NamedTuple

from minids.config import ModelConfig
from minids.errors import refuse
from minids.lab.analysis import kv_cache
from minids.lab.analysis.parameters import mtp_total, total
from minids.lab.analysis.steps import walk


class Storage(NamedTuple):
    """How training stores numbers: bytes per parameter and per saved activation."""

    name: str
    weight: float
    gradient: float
    moments: float  # both together
    activation: float
    keeps: str  # "stored" or "recompute"
    source: str


_NUMPY = "this package: float32 throughout, activations as the NumPy backend keeps them"
_REPORT = (
    "DeepSeek-V3 report, sections 3.2.3 and 3.3: float32 master weights and gradients, BF16 moments, an FP8 copy to compute "
    "with, activations counted at BF16 although some are kept in FP8"
)
FP32 = Storage("float32, all stored", 4, 4, 8, 4, "stored", _NUMPY)
V3 = Storage("V3's recipe", 4 + 1, 4, 4, 2, "recompute", _REPORT)


class TrainingMemory(NamedTuple):
    """Bytes of one training step on one machine, without any sharding."""

    weights: int
    gradients: int
    moments: int
    activations: int

    @property
    def total(self) -> int:
        return sum(self)


def activation_elements(config: ModelConfig, batch: int, time: int, keeps: str = "stored") -> int:
    """Elements kept from forward to backward, MTP modules included."""
    skipped = {"stored": "recomputed", "recompute": "stored"}
    if keeps not in skipped:
        raise refuse("keeps", keeps, "must be stored or recompute")
    steps = walk(config, batch, time)
    return sum(step.layers * k.tensor.size for step in steps for k in step.kept if k.when != skipped[keeps])


def training_memory(config: ModelConfig, batch: int, time: int, storage: Storage = FP32) -> TrainingMemory:
    """Bytes to train ``config`` on one batch of (batch, time) tokens; MTP modules are trained too and count."""
    parameters = total(config) + mtp_total(config)
    activations = activation_elements(config, batch, time, storage.keeps) * storage.activation
    each = (parameters * size for size in (storage.weight, storage.gradient, storage.moments))
    return TrainingMemory(*map(round, each), round(activations))


class ServingMemory(NamedTuple):
    """Bytes to generate with the main model."""

    weights: int
    cache: int

    @property
    def total(self) -> int:
        return sum(self)


def serving_memory(
    config: ModelConfig, context: int, batch: int, weight_bytes: int = 1, cache_form: str = "bf16"
) -> ServingMemory:
    """Weights of the main model at one width (1: FP8, 2: BF16, 4: float32) and the cache of ``batch`` sequences."""
    cache = round(kv_cache.cache_bytes(config, context, batch, cache_form))
    return ServingMemory(total(config) * weight_bytes, cache)
