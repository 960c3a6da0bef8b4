"""Matrix products from inside a kernel: ours for the small ones, BLAS for the large.

A training step of a small model is made of products of 16 to 1,000 rows, and most of such a product's time in a BLAS goes into
getting ready for a large one. ``product`` cuts the result into tiles that stay in registers (``_tile``) and goes over them

    for every block of DEPTH of k            so that a panel of b stays in the first-level cache
        for every panel of b                 as wide as the tile: 32 numbers with AVX-512
            for every tile of rows of a      12 at a time, and what is left with lower tiles

- **a is not packed.** Its numbers are read one at a time, so it is the same to the tile whether rows or columns are adjacent.
- **b is packed where it has to be**: where its columns are not adjacent (a transposed operand), once per panel, and the last
  panel where it is narrower than a tile, with zeros behind it. Packing reads each number of b once; each is used m times.
- **Edges**: nothing past the end of an operand is read, nothing past the end of the result written: a ragged tile goes to
  scratch and from there into its place.

Each element is one chain of multiply-adds in the order of k, block by block: the same bits whatever the BLAS, the other
operands, the number of rows, or the place in the result.

The function is compiled once for each precision and called by address, as BLAS is: an argument of the kernels, so that their
compiled code can be kept. Larger products, and those with a ragged panel, go to BLAS where there is one to call (``_blas``);
where there is none, as with Apple's Accelerate, all are ours.
"""

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import config as numba_config
from numba.extending import intrinsic, overload

from minids.kernels import _blas
from minids.kernels._jit import FLOAT_RULES, called_by_address, kernel
from minids.kernels._tile import TALLEST, WIDTH, bytes_of, read, tile, write

DEPTH = 256
"""Of k, in a panel of b: 256 × 32 numbers of four bytes are the 32 KB that a first-level cache holds."""
LARGE = 1 << 24
"""Multiplications from which BLAS, where there is one, is as fast or faster."""
PANEL = 2 * WIDTH  # bytes of a row of a panel
ROOM = DEPTH * PANEL + TALLEST * WIDTH + 64  # bytes of scratch
HEIGHTS = TALLEST, 2 * TALLEST // 3, TALLEST // 3, 2, 1

_WIDE = tuple(tile(rows, 2) for rows in HEIGHTS)
_THIN = tuple(tile(rows, 1) for rows in HEIGHTS)
wide_1, wide_2, wide_3, wide_4, wide_5 = _WIDE
thin_1, thin_2, thin_3, thin_4, thin_5 = _THIN
H_1, H_2, H_3, H_4, H_5 = HEIGHTS


class Products(NamedTuple):
    """Addresses of functions for one precision; 0: there is none."""

    ours: int
    blas: int


def products(dtype: np.dtype) -> Products:
    """What ``product`` needs to be told, for float32 or float64."""
    if numba_config.DISABLE_JIT:  # type: ignore[attr-defined]
        return Products(0, 0)
    dtype = np.dtype(dtype)
    return Products(single() if dtype == np.float32 else double(), _blas.address(dtype))


def product(a, b, out, add, by):
    """out = a b, or out += a b; a (m, k) and b (k, n) in any order, out (m, n) with adjacent columns; ``by``: ``products``."""
    if add:
        out += a @ b
    else:
        np.matmul(a, b, out=out)


@overload(product, jit_options={"fastmath": FLOAT_RULES})
def _product(a, b, out, add, by):
    def on_arrays(a, b, out, add, by):
        m, k = a.shape
        n, size = b.shape[1], out.itemsize
        if by.blas and (m * n * k >= LARGE or n * size % WIDTH):
            _blas.gemm(a, b, out, add, by.blas)
        else:
            _call(
                by.ours, m, n, k, a.ctypes.data, a.strides[0], a.strides[1], b.ctypes.data, b.strides[0], b.strides[1],
                out.ctypes.data, out.strides[0], 1 if add else 0,
            )  # fmt: skip

    return on_arrays


@intrinsic
def _call(context, ours, m, n, k, a, a_row, a_step, b, b_step, b_column, c, c_row, add):
    """``ours`` by its address."""

    def build(context, builder, signature, arguments):
        integers = [ir.IntType(64)] * 12
        function = ir.FunctionType(ir.VoidType(), integers)
        builder.call(builder.inttoptr(arguments[0], function.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 13), build


@kernel
def multiply(zero, m, n, k, a, a_row, a_step, b, b_step, b_column, c, c_row, add):
    """c (m, n) = a (m, k) b (k, n), or added to it, by addresses and bytes; ``zero`` says which numbers."""
    size = bytes_of(zero)
    scratch = np.empty(ROOM if b_column != size or n * size % WIDTH else 0, np.uint8)
    packed = (scratch.ctypes.data + 63) & -64  # where a cache line begins
    ragged = packed + DEPTH * PANEL
    if k == 0 and not add:
        for i in range(m):
            for j in range(n):
                write(zero, c + i * c_row + j * size)
    for p in range(0, k, DEPTH):
        depth, onto = min(DEPTH, k - p), 1 if add or p else 0
        at_a, j = a + p * a_step, 0
        while j < n:
            left = (n - j) * size
            width = PANEL if left >= PANEL else WIDTH
            columns = min(width, left) // size
            at_b, step = b + p * b_step + j * b_column, b_step
            if b_column != size or left < WIDTH:
                pack(zero, at_b, b_step, b_column, depth, columns, width, packed)
                at_b, step = packed, width
            at_c = c + j * size
            if width == PANEL:
                wide_strip(zero, m, at_a, a_row, a_step, at_b, step, depth, at_c, c_row, onto)
            elif left >= WIDTH:
                thin_strip(zero, m, at_a, a_row, a_step, at_b, step, depth, at_c, c_row, onto)
            else:
                ragged_strip(zero, m, columns, at_a, a_row, a_step, at_b, step, depth, at_c, c_row, onto, ragged)
            j += columns
    return scratch.size  # a use of it behind the last one of its address: Numba frees an array after its last use


@kernel
def pack(zero, b, b_step, b_column, depth, columns, width, packed):
    """A panel of b, row by row, with zeros behind its columns."""
    size = bytes_of(zero)
    for p in range(depth):
        to, source = packed + p * width, b + p * b_step
        for x in range(columns):
            write(read(zero, source + x * b_column), to + x * size)
        for x in range(columns, width // size):
            write(zero, to + x * size)


@kernel
def wide_strip(zero, m, a, a_row, a_step, b, b_step, k, c, c_row, add):
    """All rows of c in two registers' width of columns."""
    i = 0
    while i + H_1 <= m:
        wide_1(zero, a + i * a_row, a_row, a_step, b, b_step, k, c + i * c_row, c_row, add)
        i += H_1
    if i + H_2 <= m:
        wide_2(zero, a + i * a_row, a_row, a_step, b, b_step, k, c + i * c_row, c_row, add)
        i += H_2
    if i + H_3 <= m:
        wide_3(zero, a + i * a_row, a_row, a_step, b, b_step, k, c + i * c_row, c_row, add)
        i += H_3
    if i + H_4 <= m:
        wide_4(zero, a + i * a_row, a_row, a_step, b, b_step, k, c + i * c_row, c_row, add)
        i += H_4
    if i + H_5 <= m:
        wide_5(zero, a + i * a_row, a_row, a_step, b, b_step, k, c + i * c_row, c_row, add)


@kernel
def thin_strip(zero, m, a, a_row, a_step, b, b_step, k, c, c_row, add):
    """All rows of c in one register's width of columns."""
    i = 0
    while i + H_1 <= m:
        thin_1(zero, a + i * a_row, a_row, a_step, b, b_step, k, c + i * c_row, c_row, add)
        i += H_1
    if i + H_2 <= m:
        thin_2(zero, a + i * a_row, a_row, a_step, b, b_step, k, c + i * c_row, c_row, add)
        i += H_2
    if i + H_3 <= m:
        thin_3(zero, a + i * a_row, a_row, a_step, b, b_step, k, c + i * c_row, c_row, add)
        i += H_3
    if i + H_4 <= m:
        thin_4(zero, a + i * a_row, a_row, a_step, b, b_step, k, c + i * c_row, c_row, add)
        i += H_4
    if i + H_5 <= m:
        thin_5(zero, a + i * a_row, a_row, a_step, b, b_step, k, c + i * c_row, c_row, add)


@kernel
def ragged_strip(zero, m, columns, a, a_row, a_step, b, b_step, k, c, c_row, add, scratch):
    """All rows of c in the last columns, fewer than a register holds: by way of scratch."""
    size = bytes_of(zero)
    for i in range(0, m, H_1):
        rows = min(H_1, m - i)
        thin_strip(zero, rows, a + i * a_row, a_row, a_step, b, b_step, k, scratch, WIDTH, 0)
        for r in range(rows):
            for x in range(columns):
                found, place = read(zero, scratch + r * WIDTH + x * size), c + (i + r) * c_row + x * size
                write(read(zero, place) + found if add else found, place)


@called_by_address(types.void(*[types.int64] * 12))
def single(m, n, k, a, a_row, a_step, b, b_step, b_column, c, c_row, add):
    multiply(np.float32(0), m, n, k, a, a_row, a_step, b, b_step, b_column, c, c_row, add)


@called_by_address(types.void(*[types.int64] * 12))
def double(m, n, k, a, a_row, a_step, b, b_step, b_column, c, c_row, add):
    multiply(np.float64(0), m, n, k, a, a_row, a_step, b, b_step, b_column, c, c_row, add)
