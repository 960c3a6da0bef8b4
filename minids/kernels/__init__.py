"""The operations that pay for compiling, with Numba: twins of the modules of ``minids/ops``, name for name.

A twin has the functions and signatures of its original, which holds the equations and remains the reference; what it saves
between forward and backward may differ. Products stay with BLAS; what costs nothing (``bias_update``, ``yarn``) has no twin.

    in every kernel        serial, GIL released, float32 or float64, C order                          ``_jit``, ``_arrays``
    inside a loop          a vectorised exponential, which NumPy calls for once per pass                ``_exp``
    inside a loop          exponents read from bits, instead of frexp and ldexp                         ``_bits``
    between two steps      freed memory stays with the process instead of being faulted in again       ``_memory``

How much each gains is measured by ``minids bench kernels`` and told in docs/performance.md.

Import this package through ``minids.backend``: importing it imports Numba.
"""

from minids.kernels import _memory
from minids.kernels._jit import CACHE_FOLDER, compiling

_memory.keep_freed_pages()

__all__ = ["CACHE_FOLDER", "compiling"]
