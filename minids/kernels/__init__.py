"""The operations that pay for compiling, with Numba: twins of the modules of ``minids/ops``, name for name.

A twin has the functions and signatures of its original, which holds the equations; what it saves between forward and backward
may differ. What costs nothing (``bias_update``, ``yarn``) has no twin. ``minids bench kernels``
measures what each gains, see docs/performance.md. Import this package through ``minids.backend``: importing it imports Numba.
"""

from minids.kernels._jit import CACHE_FOLDER, compiling

__all__ = ["CACHE_FOLDER", "compiling"]
