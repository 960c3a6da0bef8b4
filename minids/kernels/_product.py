"""Matrix products from inside a kernel: ours for the small ones, BLAS for the large.

A training step of a small model is made of products of 16 to 1,000 rows, and much of such a product's time in a BLAS goes into
getting ready for a large one. ``product`` cuts the result into tiles that stay in registers (``_tile``) and goes over them

    for every DEPTH of k                         so that a panel of b stays in the first-level cache
        for every SPAN of b's columns            packed, if they have to be
            for every BLOCK of a's rows          which stays in the second-level cache
                for every panel of b             as wide as the tile: 32 numbers with AVX-512
                    for every tile of rows       12 at a time, and what is left with lower tiles

- **b is packed where it has to be** (``_pack``): where its columns are not adjacent (a transposed operand), each panel once,
  and its last columns where they are fewer than a register holds, with zeros behind them.
- **a is seldom packed.** Its numbers are read one by one, so it is the same to the tile whether rows or columns are adjacent.
  But rows a whole page of memory apart push each other out of the cache.
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
from minids.kernels._jit import FLOAT_RULES, called_by_address, part
from minids.kernels._pack import PANEL, bytes_of, fetch, pack_panel, pack_rows, read, write
from minids.kernels._tile import LINE, TALLEST, WIDTH, tile

DEPTH = 256
"""Of k, in a panel of b: 256 × 32 numbers of four bytes are the 32 KB that a first-level cache holds."""
BLOCK = 16 * TALLEST
"""Rows of a between two panels: with AVX-512 192 × 256 numbers of four bytes, 196 KB, stay in the second-level cache."""
SPAN = 2048
"""Bytes of a row of b that are packed at a time, 16 panels of AVX-512: half a megabyte."""

LARGE = 1 << 29
"""Multiplications from which BLAS, where there is one, is as fast or faster."""
NARROW = WIDTH < 64
"""Whether a panel's row is one cache line or less: then its neighbours in b come in vain, and a packed panel is read faster."""
NEAREST = 1 << 16
"""Bytes of b up to which all of it is asked for before the first tile: weights come from far, and are used once a step."""
PAGE, LINES = 4096, PANEL // LINE  # bytes; lines of a row of a panel
HEIGHTS = TALLEST, 2 * TALLEST // 3, TALLEST // 3, 2, 1

_WIDE = tuple(tile(rows, 2) for rows in HEIGHTS)
_THIN = tuple(tile(rows, 1) for rows in HEIGHTS)
wide_1, wide_2, wide_3, wide_4, wide_5 = _WIDE
thin_1, thin_2, thin_3, thin_4, thin_5 = _THIN
H_1, H_2, H_3, H_4, H_5 = HEIGHTS


class Products(NamedTuple):
    """How products are made in one precision: addresses of functions, 0 where there is none; and what comes next."""

    ours: int
    blas: int
    then: int = 0  # address
    size: int = 0  # bytes


def products(dtype: np.dtype) -> Products:
    """What ``product`` needs to be told, for float32 or float64."""
    if numba_config.DISABLE_JIT:  # type: ignore[attr-defined]
        return Products(0, 0)
    dtype = np.dtype(dtype)
    return Products(single() if dtype == np.float32 else double(), _blas.address(dtype))


@part
def before(then, by):
    """``by`` for the product before one that reads ``then``, in C order: it is brought near meanwhile."""
    return Products(by.ours, by.blas, then.ctypes.data, then.nbytes)


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
        turned = NARROW and a.strides[0] == size and k > 1  # six numbers of a at a time, against its grain: BLAS packs better
        if by.blas and (turned or m * n * k >= LARGE or n * size % WIDTH):
            _blas.gemm(a, b, out, add, by.blas)
        else:
            _call(
                by.ours, m, n, k, a.ctypes.data, a.strides[0], a.strides[1], b.ctypes.data, b.strides[0], b.strides[1],
                out.ctypes.data, out.strides[0], 1 if add else 0, by.then, by.size,
            )  # fmt: skip

    return on_arrays


@intrinsic
def _call(context, ours, m, n, k, a, a_row, a_step, b, b_step, b_column, c, c_row, add, then, then_size):
    """``ours`` by its address."""

    def build(context, builder, signature, arguments):
        integers = [ir.IntType(64)] * 14
        function = ir.FunctionType(ir.VoidType(), integers)
        builder.call(builder.inttoptr(arguments[0], function.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 15), build


@part
def multiply(zero, m, n, k, a, a_row, a_step, b, b_step, b_column, c, c_row, add, then, then_size):
    """c (m, n) = a (m, k) b (k, n), or added to it, by addresses and bytes; ``zero`` says which numbers."""
    size = bytes_of(zero)
    wide, ragged, deepest = n * size, n * size % WIDTH, min(DEPTH, k)
    # Rows a whole page apart meet in the same lines of the nearest cache, and no processor asks for the next one in advance.
    paged_a = a_row % PAGE == 0 if a_step == size else 2 * a_step % PAGE == 0
    packs_a = m > TALLEST and wide > PANEL and (paged_a or (NARROW and a_row == size and wide >= 4 * PANEL))
    packs_b = b_column != size or (m >= 8 * TALLEST and (NARROW or 2 * b_step % PAGE == 0))
    block = max(1, min(m, BLOCK) if wide > PANEL else m)
    room_b = deepest * (min(SPAN, wide) + PANEL) if packs_b else deepest * WIDTH if ragged else 0
    room_c, room_a = TALLEST * WIDTH if ragged else 0, (block + TALLEST) * deepest * size if packs_a else 0
    scratch = np.empty(room_b + room_c + room_a + 3 * LINE, np.uint8)
    for_b = (scratch.ctypes.data + LINE - 1) & -LINE
    for_c = (for_b + room_b + LINE - 1) & -LINE
    for_a = (for_c + room_c + LINE - 1) & -LINE
    then_last = then + max(then_size, (deepest + 1) // 2 * LINE)
    if k == 0 and not add:
        for i in range(m):
            for j in range(n):
                write(zero, c + i * c_row + j * size)
    for p in range(0, k, DEPTH):
        depth, onto = min(DEPTH, k - p), 1 if add or p else 0
        for first in range(0, wide, SPAN):
            stop = min(first + SPAN, wide)
            if not packs_b and m >= 4 * TALLEST and depth * (stop - first) <= NEAREST:
                for r in range(depth):
                    for x in range(first, stop, LINE):
                        fetch(b + (p + r) * b_step + x)
            for i in range(0, m, block):
                rows = min(block, m - i)
                at_a, row, step_a, tall = a + i * a_row + p * a_step, a_row, a_step, a_row * TALLEST
                if packs_a:
                    pack_rows(zero, at_a, a_row, a_step, rows, depth, for_a)
                    at_a, row, step_a, tall = for_a, size, TALLEST * size, TALLEST * size * depth
                half = (depth + 1) // 2 * LINE  # bytes that each tile asks for of what comes later
                j = first
                while j < stop:
                    width = PANEL if stop - j >= PANEL else WIDTH
                    source, at_c = b + p * b_step + j // size * b_column, c + i * c_row + j
                    at_b, step, soon = source, b_step, source
                    if packs_b or stop - j < WIDTH:
                        at_b, step = for_b + (j - first) * depth if packs_b else for_b, width
                        soon = at_b
                        if i == 0:
                            pack_panel(zero, source, b_step, b_column, depth, min(width, stop - j) // size, width, at_b)
                    elif stop - j >= 2 * PANEL:
                        soon = source + PANEL
                    elif p + DEPTH < k:
                        soon = b + (p + DEPTH) * b_step + first
                    later, end = at_a, at_a
                    if packs_b and i == 0 and stop - j > width and b_column == depth * size:
                        later = source + width // size * b_column  # the next panel, which will be packed
                        end = later + max(0, width // size * b_column - half)
                    elif then_size and p + DEPTH >= k and i + block >= m:
                        later, end = then, then_last - half
                        then += rows // H_1 * half
                    if width == PANEL:
                        wide_strip(zero, rows, at_a, tall, row, step_a, at_b, step, depth, at_c, c_row, onto, soon, later, end)
                    elif stop - j >= WIDTH:
                        thin_strip(zero, rows, at_a, tall, row, step_a, at_b, step, depth, at_c, c_row, onto, soon, later, end)
                    else:
                        columns = (stop - j) // size
                        ragged_strip(zero, rows, columns, at_a, tall, row, step_a, at_b, step, depth, at_c, c_row, onto, for_c)
                    j += width
    return scratch.size  # a use of it behind the last one of its address: Numba frees an array after its last use


@part
def wide_strip(zero, m, a, a_tall, a_row, a_step, b, b_step, k, c, c_row, add, soon, later, end):
    """All rows of c in two registers' width of columns; a_tall bytes from one tallest tile's rows of a to the next's.
    ``soon``: the next panel, one line of whose rows is asked for by each tile. ``later`` … ``end``: what else is asked for."""
    i = 0
    while i + H_1 <= m:
        line = soon + i // H_1 % LINES * LINE
        wide_1(zero, a, a_row, a_step, b, b_step, k, c + i * c_row, c_row, add, line, min(later, end))
        later += (k + 1) // 2 * LINE
        i, a = i + H_1, a + a_tall
    if i + H_2 <= m:
        wide_2(zero, a, a_row, a_step, b, b_step, k, c + i * c_row, c_row, add, soon, end)
        i, a = i + H_2, a + a_row * H_2
    if i + H_3 <= m:
        wide_3(zero, a, a_row, a_step, b, b_step, k, c + i * c_row, c_row, add, soon, end)
        i, a = i + H_3, a + a_row * H_3
    if i + H_4 <= m:
        wide_4(zero, a, a_row, a_step, b, b_step, k, c + i * c_row, c_row, add, soon, end)
        i, a = i + H_4, a + a_row * H_4
    if i + H_5 <= m:
        wide_5(zero, a, a_row, a_step, b, b_step, k, c + i * c_row, c_row, add, soon, end)


@part
def thin_strip(zero, m, a, a_tall, a_row, a_step, b, b_step, k, c, c_row, add, soon, later, end):
    """All rows of c in one register's width of columns; a_tall bytes from one tallest tile's rows of a to the next's.
    ``soon``: the next panel, one line of whose rows is asked for by each tile. ``later`` … ``end``: what else is asked for."""
    i = 0
    while i + H_1 <= m:
        line = soon + i // H_1 % LINES * LINE
        thin_1(zero, a, a_row, a_step, b, b_step, k, c + i * c_row, c_row, add, line, min(later, end))
        later += (k + 1) // 2 * LINE
        i, a = i + H_1, a + a_tall
    if i + H_2 <= m:
        thin_2(zero, a, a_row, a_step, b, b_step, k, c + i * c_row, c_row, add, soon, end)
        i, a = i + H_2, a + a_row * H_2
    if i + H_3 <= m:
        thin_3(zero, a, a_row, a_step, b, b_step, k, c + i * c_row, c_row, add, soon, end)
        i, a = i + H_3, a + a_row * H_3
    if i + H_4 <= m:
        thin_4(zero, a, a_row, a_step, b, b_step, k, c + i * c_row, c_row, add, soon, end)
        i, a = i + H_4, a + a_row * H_4
    if i + H_5 <= m:
        thin_5(zero, a, a_row, a_step, b, b_step, k, c + i * c_row, c_row, add, soon, end)


@part
def ragged_strip(zero, m, columns, a, a_tall, a_row, a_step, b, b_step, k, c, c_row, add, scratch):
    """All rows of c in the last columns, fewer than a register holds: by way of scratch."""
    size = bytes_of(zero)
    for i in range(0, m, H_1):
        rows = min(H_1, m - i)
        thin_strip(zero, rows, a, a_tall, a_row, a_step, b, b_step, k, scratch, WIDTH, 0, b, b, b)
        a += a_tall
        for r in range(rows):
            for x in range(columns):
                found, place = read(zero, scratch + r * WIDTH + x * size), c + (i + r) * c_row + x * size
                write(read(zero, place) + found if add else found, place)


@called_by_address(types.void(*[types.int64] * 14))
def single(m, n, k, a, a_row, a_step, b, b_step, b_column, c, c_row, add, then, then_size):
    multiply(np.float32(0), m, n, k, a, a_row, a_step, b, b_step, b_column, c, c_row, add, then, then_size)


@called_by_address(types.void(*[types.int64] * 14))
def double(m, n, k, a, a_row, a_step, b, b_step, b_column, c, c_row, add, then, then_size):
    multiply(np.float64(0), m, n, k, a, a_row, a_step, b, b_step, b_column, c, c_row, add, then, then_size)
