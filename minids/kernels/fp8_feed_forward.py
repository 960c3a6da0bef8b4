"""SwiGLU networks in FP8, compiled: the steps of ``minids/ops/fp8_feed_forward.py`` by the parts of this package."""

from functools import partial

from minids.kernels.fp8_linear import COMPILED
from minids.ops import fp8_feed_forward as original

forward = partial(original.forward, by=COMPILED)
backward = partial(original.backward, by=COMPILED)
