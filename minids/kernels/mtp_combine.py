"""MTP combine, compiled: the steps of ``minids/ops/mtp_combine.py`` with the norms of this package."""

from functools import partial

from minids.kernels import rmsnorm
from minids.ops import mtp_combine as original

forward = partial(original.forward, norms=rmsnorm)
backward = partial(original.backward, norms=rmsnorm)
backward_input = partial(original.backward_input, norms=rmsnorm)
