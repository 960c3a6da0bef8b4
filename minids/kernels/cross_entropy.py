"""Cross-entropy, compiled: see ``minids/ops/cross_entropy.py`` for the equations. Forward keeps two numbers per row; backward
forms the probabilities from them again, straight into the gradient."""

from typing import NamedTuple

import numpy as np

from minids.kernels._arrays import Array, common_float, expect
from minids.kernels._exp import exp
from minids.kernels._jit import kernel
from minids.kernels._rows import largest
from minids.ops.cross_entropy import IGNORE


class Saved(NamedTuple):
    logits: Array  # (N, V)
    targets: Array  # (N,)
    peak: Array  # (N,) the largest logit
    rscale: Array  # (N,) 1 / Σ exp(logit − peak)
    divisor: float


def forward(logits: Array, targets: Array, divisor: float | None = None) -> tuple[float, Saved]:
    """logits (N, V), targets (N,) int, IGNORE where nothing is to be predicted → L. ``divisor``: D, if not their number."""
    dtype = common_float(logits)
    logits, targets = np.ascontiguousarray(logits, dtype), np.ascontiguousarray(targets, np.int64)
    expect("targets", targets, (len(logits),))
    peak, rscale = np.empty(len(logits), dtype), np.empty(len(logits), dtype)
    surprise, counted, outside = measure(logits, targets, peak, rscale)
    if outside >= 0:
        raise IndexError(f"target {targets[outside]} is out of bounds for a vocabulary of {logits.shape[1]}")
    if divisor is None:
        divisor = max(counted, 1)
    return float(surprise / divisor), Saved(logits, targets, peak, rscale, divisor)


def backward(d_loss: float, saved: Saved) -> Array:
    """dL → d_logits (N, V)."""
    logits, targets, peak, rscale, divisor = saved
    d_logits = np.empty_like(logits)
    differentiate(logits, targets, peak, rscale, d_loss / divisor, d_logits)
    return d_logits


@kernel
def measure(logits, targets, peak, rscale):
    """logits (N, V), targets (N,) → peak, rscale (N,); the sum of surprises, how many count, a row whose target is outside."""
    number = logits.dtype.type
    vocabulary = logits.shape[1]
    surprise, counted = 0.0, 0
    for n in range(logits.shape[0]):
        row = logits[n]
        highest = largest(row)
        total = number(0)
        for v in range(vocabulary):
            total += exp(row[v] - highest)  # summed, not stored: nothing of size N × V is written
        peak[n], rscale[n] = highest, number(1) / total
        target = targets[n]
        if target == IGNORE:
            continue
        if target < -vocabulary or target >= vocabulary:  # would be read beside the row
            return surprise, counted, n
        counted += 1
        surprise += np.log(total) - (row[target] - highest)
    return surprise, counted, -1


@kernel
def differentiate(logits, targets, peak, rscale, weight, d_logits):
    """logits (N, V), targets, peak, rscale (N,) → d_logits (N, V) = weight · (p − onehot)."""
    number = logits.dtype.type
    weight = number(weight)
    for n in range(logits.shape[0]):
        row = d_logits[n]
        if targets[n] == IGNORE:
            row[:] = number(0)
            continue
        highest, scale = peak[n], rscale[n] * weight  # one factor for 1 / Σ and for dL / D
        for v in range(row.size):
            row[v] = exp(logits[n, v] - highest) * scale
        row[targets[n]] -= weight
