"""Linear map in FP8, compiled: the steps of ``minids/ops/fp8_linear.py`` by the quantiser and the sum of this package."""

from functools import partial

from minids.kernels import fp8_accumulation, quantise, swiglu
from minids.ops import fp8_linear as original

COMPILED = original.Arithmetic(
    quantise.forward, quantise.dequantise, quantise.rounded, fp8_accumulation.matmul, swiglu.forward, swiglu.backward
)

forward = partial(original.forward, by=COMPILED)
backward = partial(original.backward, by=COMPILED)
