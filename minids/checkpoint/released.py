"""A model's tensors in the number types of DeepSeek-V3's release (section 3.3.2; README_WEIGHTS.md of its repository).

    matrices of attention, dense networks and experts    F8_E4M3, one float32 scale per 128 × 128 in ``weight_scale_inv``
    embedding, head, router, ``eh_proj``                 BF16
    routing biases                                       float32

Gains are kept as float32 here, where the release has BF16: they are few, and another digit of them costs nothing.
"""

from collections.abc import Mapping

import numpy as np

from minids.checkpoint.folder import SCALE_SUFFIX
from minids.ops import quantise

Array = np.ndarray

TILE = (128, 128)
QUANTISATION = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [*TILE]}
"""What ``config.json`` says of such a folder."""

_BF16 = ("embed_tokens", "lm_head", "shared_head.head", "mlp.gate.weight", "eh_proj")


def type_of(name: str, dimensions: int) -> str:
    """The type of a tensor with this name on disk or in memory: "F32", "BF16" or "F8_E4M3"."""
    if dimensions < 2:
        return "F32"
    return "BF16" if any(part in name for part in _BF16) else "F8_E4M3"


def as_released(tensors: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, str]]:
    """Name on disk → array, matrices quantised and their scales among them; and the type of each, for ``write_folder``."""
    arrays: dict[str, Array] = {}
    types: dict[str, str] = {}
    for name, array in tensors.items():
        arrays[name], types[name] = array, type_of(name, array.ndim)
        if types[name] == "F8_E4M3" and array.size:
            found = quantise.forward(np.asarray(array, np.float32), TILE)
            arrays[name], arrays[name + SCALE_SUFFIX] = found.codes, found.scales
            types[name + SCALE_SUFFIX] = "F32"
        elif types[name] == "F8_E4M3":  # a matrix without an element has nothing to scale
            types[name] = "BF16"
    return arrays, types
