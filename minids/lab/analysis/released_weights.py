"""Which type every tensor of the released DeepSeek-V3 has, and what that makes in bytes.

The release stores the matrices of attention, dense networks and experts as E4M3 with one float32 scale per 128 × 128 block
(``weight_scale_inv``), everything else in BF16, and the routing bias in float32 (DeepSeek-V3 repository, README_WEIGHTS.md).
That the count of each type comes out at the number the model hub shows is what proves the types of the small tensors: router,
``eh_proj`` and norms BF16, bias float32.
"""

from math import prod
from typing import NamedTuple

from minids.config import ModelConfig
from minids.lab.analysis.parameters import ROUTER, ROUTING_BIAS, Tensor, mtp_copies, tensors
from minids.ops.quantise import grid

BLOCK = 128  # rows and columns that share one scale
BYTES = {"BF16": 2, "F8_E4M3": 1, "F32": 4}


class Census(NamedTuple):
    """Elements of a release by type."""

    elements: dict[str, int]
    scales: int  # of the float32 elements, the block scales

    @property
    def total(self) -> int:
        return sum(self.elements.values())

    @property
    def bytes(self) -> int:
        return sum(BYTES[dtype] * count for dtype, count in self.elements.items())


def scale_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Scales of an FP8 matrix: ceil(out / 128) × ceil(in / 128). kv_a_proj_with_mqa (576 × 7168) has 5 × 56."""
    *stacked, rows, columns = shape
    return *stacked, *grid((rows, columns), (BLOCK, BLOCK))


def dtype(tensor: Tensor) -> str:
    """Type of a tensor in the release, from the part it belongs to."""
    if tensor.part == ROUTING_BIAS:
        return "F32"
    if len(tensor.shape) == 1 or tensor.part in ("embedding", "head", ROUTER, "MTP eh_proj", "MTP copies"):
        return "BF16"
    return "F8_E4M3"


def census(config: ModelConfig) -> Census:
    """Elements by type of a release in V3's format, MTP modules and their copies of embedding and head included.

    V3: BF16 3,918,786,560; E4M3 680,571,043,840; float32 41,555,600; together 684,531,386,000, the hub's "685B".
    """
    elements, scales = dict.fromkeys(BYTES, 0), 0
    for tensor in (*tensors(config), *mtp_copies(config)):
        kind = dtype(tensor)
        elements[kind] += tensor.size
        if kind == "F8_E4M3":
            scales += prod(scale_shape(tensor.shape))
    elements["F32"] += scales
    return Census(elements, scales)
