"""The products of ``fp8_linear`` and ``fp8_feed_forward`` with BF16 operands: what V3's FP8 is compared with (section 3.3).

Every operand of a product is rounded to BF16 and kept so for the backward pass; sums, results, gradients and master weights
stay in full precision. BF16 has the exponents of float32: there are no scales, and tiles and formats mean nothing.
"""

import numpy as np
from numpy.typing import DTypeLike

from minids.ops import bfloat16, fp8_accumulation, swiglu
from minids.ops.float8 import Format
from minids.ops.fp8_linear import Arithmetic
from minids.ops.quantise import Quantised

Array = np.ndarray
FORMAT = Format("BF16", 8, 7, 127, ieee=True)
_NO_SCALES = np.ones((1, 1), np.float32)


def quantised(x: Array, *scaling: object, **more: object) -> Quantised:
    """x (M, N) → its BF16 codes. What says how to scale is not used."""
    return Quantised(bfloat16.encode(x), _NO_SCALES, (max(x.shape[0], 1), max(x.shape[1], 1)), FORMAT)


def dequantise(q: Quantised, dtype: DTypeLike = np.float32) -> Array:
    """The numbers (M, N) of the codes, as ``dtype``."""
    return bfloat16.decode(q.codes).astype(dtype, copy=False)


def rounded(x: Array, *scaling: object, **more: object) -> Array:
    """x (M, N) → what BF16 leaves of it, in the type of x."""
    return bfloat16.decode(bfloat16.encode(x)).astype(x.dtype, copy=False)


BF16 = Arithmetic(quantised, dequantise, rounded, fp8_accumulation.matmul, swiglu.forward, swiglu.backward)
