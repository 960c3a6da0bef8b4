"""Fine-grained quantisation, compiled: see ``minids/ops`` for tiles and scales (``quantise``) and for formats (``float8``).

The inner loops run along whole rows whatever the tile is, 1 × 128 or 128 × 1, and are vector code from end to end: exponents
and magnitudes are read from bits (``_bits``), which as integers have the order of the numbers, and NaN above all. float64 goes
the way of ``ops``, in one rounding.
"""

from functools import cache

import numpy as np

from minids.kernels._arrays import Array
from minids.kernels._bits import exponent, float_of_bits, power_of_two
from minids.kernels._jit import kernel
from minids.ops import quantise as original
from minids.ops.float8 import E4M3, Format
from minids.ops.quantise import SMALLEST_AMAX, Quantised, Tile, grid, scale_of, whole_tile


def forward(x: Array, tile: Tile, format: Format = E4M3, power_of_two: bool = False, amax: float | None = None) -> Quantised:
    """x (M, N) float32 or float64 → its codes and scales; ``amax`` as in ``ops``."""
    if x.dtype != np.float32:
        return original.forward(x, tile, format, power_of_two, amax)
    x, tile = np.ascontiguousarray(x), whole_tile(x.shape, tile)
    scales, codes = _room(x, tile, format, power_of_two, amax), np.empty(x.shape, format.dtype)
    quantise_matrix(x, x.view(np.int32), *tile, numbers_of(format), power_of_two, amax is None, scales, codes)
    return Quantised(codes, scales, tile, format)


def dequantise(q: Quantised, dtype=np.float32) -> Array:
    """x̂ (M, N): every code's number times its tile's scale, in float32, as ``dtype``."""
    values = np.empty(q.codes.shape, np.float32)
    decode_matrix(q.codes, q.scales, *q.tile, q.format.values, values)
    return values.astype(dtype, copy=False)


def rounded(x: Array, tile: Tile, format: Format = E4M3, power_of_two: bool = False, amax: float | None = None) -> Array:
    """x (M, N) → x̂ (M, N) in the type of x; no code is formed on the way."""
    if x.dtype != np.float32:
        return original.rounded(x, tile, format, power_of_two, amax)
    x, tile = np.ascontiguousarray(x), whole_tile(x.shape, tile)
    scales, values = _room(x, tile, format, power_of_two, amax), np.empty_like(x)
    round_matrix(x, x.view(np.int32), *tile, numbers_of(format), power_of_two, amax is None, scales, values)
    return values


def _room(x: Array, tile: tuple[int, int], format: Format, power_of_two: bool, amax: float | None) -> Array:
    """For the scales that a kernel finds, or with the one that follows from a given maximum."""
    return np.empty(grid(x.shape, tile), np.float32) if amax is None else scale_of(amax, format, power_of_two)


@cache
def numbers_of(format: Format) -> tuple[np.float32, np.int32, np.int32, np.int32, np.int32]:
    """Of a format, what the kernels need: largest number, lowest exponent, mantissa bits, bits before the sign, code of NaN."""
    whole = (1 - format.bias, format.mantissa_bits, format.bits - 1, format.nan)
    return (np.float32(format.largest), *map(np.int32, whole))  # type: ignore[return-value]


@kernel
def encode_one(y, numbers):
    """y → its code."""
    largest, lowest, mantissa, sign_place, nan = numbers
    size = abs(y)
    size = largest if size > largest else size  # saturates; a NaN is not above it
    e = max(exponent(size), lowest)  # below the smallest normal number steps no longer shrink
    q = np.rint(size * power_of_two(mantissa - e))  # exact but for the rounding: a product with a power of two
    code = ((e - lowest) << mantissa) + np.int32(q if q == q else np.float32(0))
    sign = np.int32(np.signbit(y)) << sign_place  # of −0 too, which y < 0 would not see
    return (code if size == size else nan) | sign


@kernel
def round_one(y, numbers):
    """y → the nearest number of the format, without a code in between."""
    largest, lowest, mantissa, _, _ = numbers
    size = abs(y)
    size = largest if size > largest else size
    e = max(exponent(size), lowest)
    size = np.rint(size * power_of_two(mantissa - e)) * power_of_two(e - mantissa)
    return np.copysign(size, y)


@kernel
def quantise_matrix(x, x_bits, rows, columns, numbers, round_up, find, scales, codes):
    """x (M, N) and its bits → scales of tiles (rows, columns), unless not to ``find`` them; codes (M, N)."""
    if find:
        find_scales(x_bits, rows, columns, numbers[0], round_up, scales)
    of_column = np.empty(x.shape[1], np.float32)
    for i in range(x.shape[0]):
        if i % rows == 0:  # the next row of tiles begins
            lay_out(scales[i // rows], columns, of_column)
        row, target = x[i], codes[i]
        for j in range(row.size):
            target[j] = encode_one(row[j] / of_column[j], numbers)  # divided as in ``ops``: a reciprocal would round twice


@kernel
def round_matrix(x, x_bits, rows, columns, numbers, round_up, find, scales, values):
    """x (M, N) and its bits → values (M, N), rounded in tiles (rows, columns), whose scales are given if not to ``find``."""
    if find:
        find_scales(x_bits, rows, columns, numbers[0], round_up, scales)
    of_column = np.empty(x.shape[1], np.float32)
    for i in range(x.shape[0]):
        if i % rows == 0:
            lay_out(scales[i // rows], columns, of_column)
        row, target = x[i], values[i]
        for j in range(row.size):
            target[j] = round_one(row[j] / of_column[j], numbers) * of_column[j]


@kernel
def decode_matrix(codes, scales, rows, columns, numbers, values):
    """codes (M, N), scales, the format's numbers → values (M, N)."""
    of_column = np.empty(codes.shape[1], np.float32)
    for i in range(codes.shape[0]):
        if i % rows == 0:
            lay_out(scales[i // rows], columns, of_column)
        row, target = codes[i], values[i]
        for j in range(row.size):
            target[j] = numbers[row[j]] * of_column[j]


@kernel
def find_scales(x_bits, rows, columns, largest, round_up, scales):
    """x_bits (M, N), the bits of x → scales of tiles (rows, columns)."""
    magnitude, column_bits = np.int32(0x7FFFFFFF), np.empty(x_bits.shape[1], np.int32)
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
            scale = (SMALLEST_AMAX if amax < SMALLEST_AMAX else amax) / largest
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
