"""Large matrix products from inside a kernel, by the BLAS that NumPy brings along; small ones are ours (``_product``).

A call of NumPy takes as long as a small expert's arithmetic, and the interpreter's lock. Numba's own ``np.dot`` needs SciPy,
which brings a second BLAS; here ``cblas_sgemm`` and ``cblas_dgemm`` are looked up in NumPy's library and called by address: an
argument of the kernel, not a constant in it, so that compiled code can be kept. Where there is no such library ``address`` is
0, and all products are ours.
"""

import ctypes
from functools import cache

import numpy as np
import threadpoolctl
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from minids.kernels._jit import kernel

# Names under which OpenBLAS exports its interface with 64-bit integers, in NumPy's wheels and elsewhere.
_NAMES = ("scipy_cblas_{}gemm64_", "cblas_{}gemm64_")
_ROW_MAJOR, _PLAIN, _TRANSPOSED = 101, 111, 112  # cblas.h


@cache
def address(dtype: np.dtype) -> int:
    """Where the product for float32 or float64 is in memory; 0 if it cannot be told."""
    np.ones((2, 2), dtype) @ np.ones((2, 2), dtype)  # has NumPy's BLAS loaded
    for library in threadpoolctl.threadpool_info():
        if library["user_api"] != "blas" or library["internal_api"] != "openblas":
            continue
        try:
            loaded = ctypes.CDLL(library["filepath"])
        except OSError:
            continue
        for name in _NAMES:
            function = getattr(loaded, name.format("s" if dtype == np.float32 else "d"), None)
            if function is not None:
                return ctypes.cast(function, ctypes.c_void_p).value or 0
    return 0


@kernel
def gemm(a, b, out, add, blas):
    """out = a b, or out += a b; a (m, k), b (k, n), rows or columns adjacent, out (m, n) rows; ``blas``: its ``address``."""
    one, zero = out.dtype.type(1), out.dtype.type(0)
    m, k = a.shape
    n, size = b.shape[1], out.itemsize
    a_plain, b_plain = a.strides[1] == size, b.strides[1] == size
    # A leading dimension: elements from one row (or column) to the next, which BLAS wants to be no less than their length.
    lda = max(a.strides[0] // size, k) if a_plain else max(a.strides[1] // size, m)
    ldb = max(b.strides[0] // size, n) if b_plain else max(b.strides[1] // size, k)
    ldc = max(out.strides[0] // size, n)
    _gemm(
        blas, _ROW_MAJOR, _PLAIN if a_plain else _TRANSPOSED, _PLAIN if b_plain else _TRANSPOSED, m, n, k,
        one, a.ctypes.data, lda, b.ctypes.data, ldb, one if add else zero, out.ctypes.data, ldc,
    )  # fmt: skip


@intrinsic
def _gemm(context, blas, order, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc):
    """cblas_?gemm at address ``blas``; the type of alpha says which."""
    enum, size, number = types.int32, types.int64, alpha
    given = (size, enum, enum, enum, size, size, size, number, size, size, size, size, number, size, size)

    def build(context, builder, signature, arguments):
        kinds = [context.get_value_type(kind) for kind in signature.args[1:]]
        function = ir.FunctionType(ir.VoidType(), kinds)
        builder.call(builder.inttoptr(arguments[0], function.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(*given), build
