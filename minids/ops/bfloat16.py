"""BF16, the upper half of a float32: 1 sign, 8 exponent and 7 mantissa bits. NumPy has no such type: numbers are kept as
uint16. DeepSeek-V3 has AdamW's moments in it, norms, embeddings and head."""

import numpy as np

Array = np.ndarray


def decode(bits: Array) -> Array:
    """BF16 as uint16 → float32, exactly."""
    return (np.asarray(bits).astype(np.uint32) << 16).view(np.float32)


def encode(values: Array) -> Array:
    """float32 → BF16 as uint16, to nearest, ties to even; beyond the largest finite value infinity, NaN stays NaN."""
    values = np.asarray(values, dtype=np.float32, order="C")
    bits = values.view(np.uint32)
    rounded = np.asarray((bits >> 16) & 1)  # of a single number NumPy makes a scalar, which nothing can be added to in place
    rounded += 0x7FFF
    rounded += bits  # wraps only for NaN, which the next line but one replaces
    rounded >>= 16
    np.copyto(rounded, (bits >> 16) | 0x40, where=np.isnan(values))  # quiet bit: a payload in the lower half must not be lost
    return rounded.astype(np.uint16)
