"""RoPE: turn pairs of coordinates by an angle that grows with the position.

    (a, b) → (a cos φ − b sin φ,  a sin φ + b cos φ)        φ = position · θ_i

Su et al. 2021, eq. 15; DeepSeek-V3 eqs 3 and 8. The dot product of two turned vectors depends on the difference of their
positions alone. Which coordinates form pair i depends on the checkpoint:
    interleaved  (x_2i, x_2i+1)          DeepSeek's released weights
    half-split   (x_i, x_{i + d_r/2})    the other convention; the weights' rows must be re-ordered to match

Backward. The transpose of a rotation is the rotation by −φ, also times YaRN's constant amplitude in cos and sin.
"""

from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Saved(NamedTuple):
    cos: Array  # (T, d_r/2) or (B, T, d_r/2)
    sin: Array  # the same
    interleave: bool


def forward(x: Array, cos: Array, sin: Array, interleave: bool = True) -> tuple[Array, Saved]:
    """x (B, T, H, d_r), cos and sin of each token's position, (T, d_r/2) or by sequence (B, T, d_r/2) → turned x."""
    return _turn(x, cos, sin, interleave), Saved(cos, sin, interleave)


def backward(dy: Array, saved: Saved) -> Array:
    """dy (B, T, H, d_r) → dx (B, T, H, d_r): turned back."""
    cos, sin, interleave = saved
    return _turn(dy, cos, -sin, interleave)


def _turn(x: Array, cos: Array, sin: Array, interleave: bool) -> Array:
    half = x.shape[-1] // 2
    first, second = (np.s_[..., 0::2], np.s_[..., 1::2]) if interleave else (np.s_[..., :half], np.s_[..., half:])
    a, b = x[first], x[second]  # (B, T, H, d_r/2) each
    cos, sin = cos[..., None, :], sin[..., None, :]  # (T, 1, d_r/2): the same angle for every head
    y = np.empty(x.shape, np.result_type(x, cos))
    y[first] = a * cos - b * sin
    y[second] = a * sin + b * cos
    return y
