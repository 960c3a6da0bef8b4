"""Matrix products with causal attention's triangle: what causality makes zero is not multiplied, tile by tile.

Row r of a block of queries sees the keys up to r + ``later``: as many lie before the block's first query. Half of a square of
logits is beyond, and with it half of each product that it takes part in:

    LOGITS     z = q kᵀ      tiles of z beyond the triangle are not made
    WEIGHTED   o = p v       of p's rows only the keys that they see; so also dq = dz k
    GATHERED   dv = pᵀ do    of pᵀ's rows, a key each, only the queries that see it; so also dk = dzᵀ q

A product takes part as whole tiles, so what lies beyond the triangle and in its tile has to be zero in p and dz.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import config as numba_config
from numba.extending import intrinsic, overload

from minids.kernels._jit import FLOAT_RULES, called_by_address, kernel, part
from minids.kernels._pack import PANEL, bytes_of, pack_panel
from minids.kernels._product import H_1, NARROW, ragged_strip, thin_strip, wide_strip
from minids.kernels._tile import LINE, TALLEST, WIDTH

LOGITS, WEIGHTED, GATHERED = 0, 1, 2
LANES = 16
"""Numbers in a row of logits come in so many: the last tile of a row may write as far."""


@kernel
def padded(keys):
    """Numbers that a row of logits of ``keys`` keys has room for."""
    return -(-keys // LANES) * LANES


def triangles(dtype: np.dtype) -> int:
    """The address that ``causal_product`` needs to be told, for float32 or float64."""
    if numba_config.DISABLE_JIT:  # type: ignore[attr-defined]
        return 0
    return single() if dtype == np.float32 else double()


def causal_product(kind, later, a, b, out, add, by):
    """out = a b, or out += a b, of one ``kind``; a (m, k), b (k, n) in any order, out (m, n) with adjacent columns; ``by``:
    ``triangles``. A row of logits, n numbers, has room for ``padded(n)``."""
    if add:
        out += a @ b
    else:
        out[:] = a @ b


@overload(causal_product, jit_options={"fastmath": FLOAT_RULES})
def _causal_product(kind, later, a, b, out, add, by):
    def on_arrays(kind, later, a, b, out, add, by):
        _call(
            by, kind, later, a.shape[0], b.shape[1], a.shape[1], a.ctypes.data, a.strides[0], a.strides[1], b.ctypes.data,
            b.strides[0], b.strides[1], out.ctypes.data, out.strides[0], 1 if add else 0,
        )  # fmt: skip

    return on_arrays


@intrinsic
def _call(context, by, kind, later, m, n, k, a, a_row, a_step, b, b_step, b_column, c, c_row, add):
    """The function at address ``by``."""

    def build(context, builder, signature, arguments):
        function = ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * 14)
        builder.call(builder.inttoptr(arguments[0], function.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 15), build


@part
def multiply(zero, kind, later, m, n, k, a, a_row, a_step, b, b_step, b_column, c, c_row, add):
    """``causal_product`` by addresses and bytes; ``zero`` says which numbers. A chain of additions over all of k."""
    size = bytes_of(zero)
    wide = n * size
    packs = b_column != size or (NARROW and m >= 4 * TALLEST)
    ragged = wide % WIDTH != 0
    room_b, room_c = k * PANEL if packs or ragged else 0, TALLEST * WIDTH if ragged else 0
    scratch = np.empty(room_b + room_c + 2 * LINE, np.uint8)
    for_b = (scratch.ctypes.data + LINE - 1) & -LINE
    for_c = (for_b + room_b + LINE - 1) & -LINE
    j = 0
    while j < wide:
        width = PANEL if wide - j >= PANEL else WIDTH
        columns, first = min(width, wide - j) // size, j // size
        at_b, step, at_c = b + first * b_column, b_step, c + j
        if packs or wide - j < WIDTH:
            pack_panel(zero, at_b, b_step, b_column, k, columns, width, for_b)
            at_b, step = for_b, width
        for i in range(0, m, H_1):
            rows, start, stop = min(H_1, m - i), 0, k
            if kind == LOGITS and first >= i + rows + later:
                continue
            if kind == WEIGHTED:
                stop = min(k, i + rows + later)
            if kind == GATHERED:
                start = max(0, i - later)
            x, y, z, depth = a + i * a_row + start * a_step, at_b + start * step, at_c + i * c_row, stop - start
            if width == PANEL:
                wide_strip(zero, rows, x, 0, a_row, a_step, y, step, depth, z, c_row, add, y, y, y)
            elif columns * size == WIDTH or kind == LOGITS:
                thin_strip(zero, rows, x, 0, a_row, a_step, y, step, depth, z, c_row, add, y, y, y)
            else:
                ragged_strip(zero, rows, columns, x, 0, a_row, a_step, y, step, depth, z, c_row, add, for_c)
        j += width
    return scratch.size  # a use of it behind the last one of its address: Numba frees an array after its last use


@called_by_address(types.void(*[types.int64] * 14))
def single(kind, later, m, n, k, a, a_row, a_step, b, b_step, b_column, c, c_row, add):
    multiply(np.float32(0), kind, later, m, n, k, a, a_row, a_step, b, b_step, b_column, c, c_row, add)


@called_by_address(types.void(*[types.int64] * 14))
def double(kind, later, m, n, k, a, a_row, a_step, b, b_step, b_column, c, c_row, add):
    multiply(np.float64(0), kind, later, m, n, k, a, a_row, a_step, b, b_step, b_column, c, c_row, add)
