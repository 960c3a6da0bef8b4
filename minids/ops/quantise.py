"""Fine-grained quantisation: a matrix as 8-bit codes, and one scale for every tile of it.

    s_t = max(|x| over tile t, 10⁻⁴) / 448        codes = E4M3(x / s_t)        x ≈ x̂ = codes · s_t

DeepSeek-V3 section 3.3.2, figure 7, and inference/kernel.py of its repository. Which tile serves for what:

    1 × 128      activations and output gradients as rows: one token, 128 channels
    128 × 1      the same where tokens are summed over, in the product that gives the weight's gradient
    128 × 128    weights
    None         the whole matrix: per-tensor scaling, what the paper is compared with

What is 448 · 2¹⁰ = 458752 times smaller than the largest of its tile becomes 0. At the edges of a matrix tiles are cut off.

``power_of_two`` rounds s up to a power of two, so that multiplying by s has no rounding error: a matrix can be quantised again
along its other axis, with no loss but that of numbers below the smallest normal number of their new tile.
A tile that holds NaN or infinity comes back as NaN throughout.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from minids.ops import float8
from minids.ops.float8 import E4M3, Format

Array = np.ndarray
Tile = tuple[int, int] | None

SMALLEST_AMAX = np.float32(1e-4)  # keeps s away from 0 in tiles of zeros


class Quantised(NamedTuple):
    """A matrix (M, N) in codes and scales."""

    codes: Array  # (M, N) uint8; uint16 for E5M6
    scales: Array  # (⌈M / tile rows⌉, ⌈N / tile columns⌉) float32
    tile: tuple[int, int]  # rows and columns of a whole tile
    format: Format = E4M3

    @property
    def bits(self) -> int:
        """What the matrix takes, codes and scales."""
        return self.codes.size * self.format.bits + self.scales.size * 32


def grid(shape: tuple[int, int], tile: tuple[int, int]) -> tuple[int, int]:
    """Tiles of a matrix (M, N): (⌈M / tile rows⌉, ⌈N / tile columns⌉)."""
    return -(-shape[0] // tile[0]), -(-shape[1] // tile[1])


def whole_tile(shape: tuple[int, int], tile: Tile) -> tuple[int, int]:
    """The tile that is meant: of None, the matrix; of no rows or columns, at least one."""
    return tile if tile is not None else (max(shape[0], 1), max(shape[1], 1))


def forward(x: Array, tile: Tile, format: Format = E4M3, power_of_two: bool = False, amax: float | None = None) -> Quantised:
    """x (M, N) float32 or float64 → its codes and scales. ``amax``: the maximum to scale by, where it is not that of x, for
    one scale for the whole matrix; what is larger is cut off."""
    tile = whole_tile(x.shape, tile)
    scales = tile_scales(x, tile, format, power_of_two) if amax is None else scale_of(amax, format, power_of_two)
    with np.errstate(invalid="ignore"):  # inf / inf
        y = x / spread(scales, tile, x.shape)
    return Quantised(float8.encode(y, format), scales, tile, format)


def dequantise(q: Quantised, dtype: DTypeLike = np.float32) -> Array:
    """x̂ (M, N): every code's number times its tile's scale, in float32, as ``dtype``."""
    with np.errstate(invalid="ignore", over="ignore"):  # 0 · inf
        return (float8.decode(q.codes, q.format) * spread(q.scales, q.tile, q.codes.shape)).astype(dtype, copy=False)


def rounded(x: Array, tile: Tile, format: Format = E4M3, power_of_two: bool = False, amax: float | None = None) -> Array:
    """x (M, N) → x̂ (M, N) in the type of x: what is left of it after quantisation."""
    return dequantise(forward(x, tile, format, power_of_two, amax), x.dtype)


def tile_scales(x: Array, tile: tuple[int, int], format: Format, power_of_two: bool) -> Array:
    """x (M, N) → s, one per tile, float32."""
    starts = [np.arange(0, size, step) for size, step in zip(x.shape, tile, strict=True)]
    amax = np.maximum.reduceat(np.maximum.reduceat(np.abs(x), starts[0], axis=0), starts[1], axis=1)
    return _scales(amax, format, power_of_two)


def scale_of(amax: float, format: Format, power_of_two: bool) -> Array:
    """A given maximum → the one scale of a matrix, (1, 1) float32."""
    return _scales(np.full((1, 1), amax), format, power_of_two)


def _scales(amax: Array, format: Format, power_of_two: bool) -> Array:
    scales = np.maximum(amax.astype(np.float32), SMALLEST_AMAX) / np.float32(format.largest)
    if not power_of_two:
        return scales
    return np.where(np.isfinite(scales), float8.decode_scale(float8.encode_scale(scales)), scales)


def spread(scales: Array, tile: tuple[int, int], shape: tuple[int, int]) -> Array:
    """One number per tile → one per element, (M, N)."""
    rows = np.repeat(scales, tile[0], axis=0)[: shape[0]]
    return np.repeat(rows, tile[1], axis=1)[:, : shape[1]]
