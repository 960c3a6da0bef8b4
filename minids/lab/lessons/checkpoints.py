"""Notebook 12: the checks of its exercises on FP8 and on the layout of rotary rows."""

from collections.abc import Callable

import numpy as np

from minids import check
from minids.check import Report
from minids.checkpoint.dtypes import dequantise
from minids.ops.float8 import E4M3

Array = np.ndarray


# Exercise 2.


def check_undo_fp8(undo_fp8: Callable, codes: Array, scales: Array) -> Report:
    """A trained matrix, codes (M, N) and scales of 128 × 128, and a piece of it in small blocks that are cut at the edge."""
    small = np.float32(2) ** np.random.default_rng(0).integers(-8, 0, (3, 3)).astype(np.float32)
    usual = {"it divides by the scale, as the name weight_scale_inv suggests: the stored scale multiplies.": divided}
    return check.against(of_the_package, undo_fp8, [(codes, scales, 128), (codes[:40, :33], small, 16)], usual=usual)


def of_the_package(codes: Array, scales: Array, block: int) -> Array:
    """The same by checkpoint/dtypes.py."""
    values = E4M3.values[codes]
    dequantise(values, scales, (block, block))
    return values


def divided(codes: Array, scales: Array, block: int) -> Array:
    """Wrong: takes the name at its word."""
    return of_the_package(codes, 1 / scales, block)


# Exercise 3.


def check_to_half_split(to_half_split: Callable) -> Report:
    """Heads with content rows and without."""
    rng = np.random.default_rng(0)
    return check.against(row_by_row, to_half_split, [(rng.normal(size=(42, 5)), 3, 6, 8), (rng.normal(size=(8, 3)), 2, 0, 4)])


def row_by_row(weight: Array, heads: int, d_nope: int, d_r: int) -> Array:
    """Every rotary row to its place, one after the other."""
    out = weight.copy()
    for head in range(heads):
        start = head * (d_nope + d_r) + d_nope
        for i in range(d_r // 2):
            out[start + i] = weight[start + 2 * i]
            out[start + d_r // 2 + i] = weight[start + 2 * i + 1]
    return out
