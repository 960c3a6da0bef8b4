"""Fine-grained quantisation, compiled: see ``minids/ops/quantise.py`` for tiles, scales and what they are for.

The largest magnitudes are found column by column of a row of tiles and only then tile by tile, and a row's scales are laid
out one per column before its elements are divided. So the inner loops run along whole rows whatever the tile is, 1 × 128 or
128 × 1, and are vector code. Magnitudes are compared as integers, whose order is that of the numbers with NaN above all.
"""

from __future__ import annotations

import numpy as np

from minids.kernels._arrays import Array
from minids.kernels._bits import exponent, float_of_bits, power_of_two
from minids.kernels._jit import kernel
from minids.kernels.float8 import encode_one, numbers_of, round_one
from minids.ops import quantise as original
from minids.ops.float8 import E4M3, Format
from minids.ops.quantise import SMALLEST_AMAX, Quantised, Tile, grid, whole_tile

__all__ = ["Quantised", "Tile", "dequantise", "forward", "grid", "rounded", "tile_scales", "whole_tile"]


def forward(x: Array, tile: Tile, format: Format = E4M3, power_of_two: bool = False) -> Quantised:
    """x (M, N) float32 or float64 → its codes and scales."""
    if x.dtype != np.float32:
        return original.forward(x, tile, format, power_of_two)
    x, tile = np.ascontiguousarray(x), whole_tile(x.shape, tile)
    scales, codes = np.empty(grid(x.shape, tile), np.float32), np.empty(x.shape, format.dtype)
    quantise_matrix(x, x.view(np.int32), *tile, SMALLEST_AMAX, numbers_of(format), power_of_two, scales, codes)
    return Quantised(codes, scales, tile, format)


def dequantise(q: Quantised, dtype=np.float32) -> Array:
    """x̂ (M, N): every code's number times its tile's scale, in float32, as ``dtype``."""
    values = np.empty(q.codes.shape, np.float32)
    decode_tiles(q.codes, q.scales, *q.tile, q.format.values, values, np.empty(q.codes.shape[1], np.float32))
    return values.astype(dtype, copy=False)


def rounded(x: Array, tile: Tile, format: Format = E4M3, power_of_two: bool = False) -> Array:
    """x (M, N) → x̂ (M, N) in the type of x; no code is formed on the way."""
    if x.dtype != np.float32:
        return original.rounded(x, tile, format, power_of_two)
    x, tile = np.ascontiguousarray(x), whole_tile(x.shape, tile)
    values = np.empty_like(x)
    round_matrix(x, x.view(np.int32), *tile, SMALLEST_AMAX, numbers_of(format), power_of_two, values)
    return values


def tile_scales(x: Array, tile: tuple[int, int], format: Format, power_of_two: bool) -> Array:
    """x (M, N) → s, one per tile, float32."""
    if x.dtype != np.float32:
        return original.tile_scales(x, tile, format, power_of_two)
    x = np.ascontiguousarray(x)
    scales = np.empty(grid(x.shape, tile), np.float32)
    largest = numbers_of(format)[0]
    find_scales(x.view(np.int32), *tile, SMALLEST_AMAX, largest, power_of_two, np.empty(x.shape[1], np.int32), scales)
    return scales


# One call from Python for both passes: for the small matrices of single experts, calls are a good part of the time.


@kernel
def quantise_matrix(x, x_bits, rows, columns, smallest, numbers, round_up, scales, codes):
    """x (M, N) and its bits → scales of tiles (rows, columns), codes (M, N)."""
    find_scales(x_bits, rows, columns, smallest, numbers[0], round_up, np.empty(x.shape[1], np.int32), scales)
    encode_tiles(x, scales, rows, columns, numbers, codes, np.empty(x.shape[1], np.float32))


@kernel
def round_matrix(x, x_bits, rows, columns, smallest, numbers, round_up, values):
    """x (M, N) and its bits → values (M, N), rounded in tiles (rows, columns)."""
    scales = np.empty((-(-x.shape[0] // rows), -(-x.shape[1] // columns)), np.float32)
    find_scales(x_bits, rows, columns, smallest, numbers[0], round_up, np.empty(x.shape[1], np.int32), scales)
    round_tiles(x, scales, rows, columns, numbers, values, np.empty(x.shape[1], np.float32))


@kernel
def find_scales(x_bits, rows, columns, smallest, largest, round_up, column_bits, scales):
    """x_bits (M, N), the bits of x → scales of tiles (rows, columns). column_bits (N,) is scratch."""
    magnitude = np.int32(0x7FFFFFFF)
    for r in range(scales.shape[0]):
        # Down the columns of a row of tiles first, whole rows at a time: vector code whatever the tile's width.
        first = x_bits[r * rows]
        for j in range(first.size):
            column_bits[j] = first[j] & magnitude
        for i in range(r * rows + 1, min((r + 1) * rows, x_bits.shape[0])):
            row = x_bits[i]
            for j in range(row.size):
                column_bits[j] = max(column_bits[j], row[j] & magnitude)
        for c in range(scales.shape[1]):
            bits = np.int32(0)  # NaN's bits are above all others: it wins, and its tile becomes NaN
            for j in range(c * columns, min((c + 1) * columns, column_bits.size)):
                bits = max(bits, column_bits[j])
            amax = float_of_bits(bits)
            scale = (smallest if amax < smallest else amax) / largest
            if round_up and scale < np.inf:
                power = power_of_two(exponent(scale))  # never above scale
                scale = power if power == scale else power * np.float32(2)
            scales[r, c] = scale


@kernel
def lay_out(scales, columns, of_column):
    """scales (tiles of a row,) → of_column (N,): each column's."""
    for c in range(scales.size):  # so that the loops over elements need no division to find their tile
        for j in range(c * columns, min((c + 1) * columns, of_column.size)):
            of_column[j] = scales[c]


@kernel
def encode_tiles(x, scales, rows, columns, numbers, codes, of_column):
    """x (M, N), scales → codes (M, N). of_column (N,) is scratch."""
    for i in range(x.shape[0]):
        if i % rows == 0:
            lay_out(scales[i // rows], columns, of_column)
        row, target = x[i], codes[i]
        for j in range(row.size):
            target[j] = encode_one(row[j] / of_column[j], numbers)  # divided as in ``ops``: a reciprocal would round twice


@kernel
def round_tiles(x, scales, rows, columns, numbers, values, of_column):
    """x (M, N), scales → values (M, N). of_column (N,) is scratch."""
    for i in range(x.shape[0]):
        if i % rows == 0:
            lay_out(scales[i // rows], columns, of_column)
        row, target = x[i], values[i]
        for j in range(row.size):
            target[j] = round_one(row[j] / of_column[j], numbers) * of_column[j]  # no code in between


@kernel
def decode_tiles(codes, scales, rows, columns, numbers, values, of_column):
    """codes (M, N), scales, the format's numbers → values (M, N). of_column (N,) is scratch."""
    for i in range(codes.shape[0]):
        if i % rows == 0:  # the next row of tiles begins
            lay_out(scales[i // rows], columns, of_column)
        row, target = codes[i], values[i]
        for j in range(row.size):
            target[j] = numbers[row[j]] * of_column[j]
