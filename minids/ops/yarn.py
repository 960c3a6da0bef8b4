"""Rotary frequencies, and YaRN, which stretches them to a longer context.

Plain RoPE turns pair i of d_r/2 pairs by the angle position · θ_i with

    θ_i = base^(−2i / d_r)

YaRN (Peng et al. 2023, sections 3.2-3.4; DeepSeek-V3 section 4.3, s = 40, β_fast = 32, β_slow = 1): pairs that turn often
within the original context L0 keep their frequency, those that turn less than once are slowed down by s, or their angles would
leave the range seen in training; between the two lies a linear ramp over the *index* i:

    dim(r)  = d_r ln( L0 / 2πr ) / (2 ln base)           the index of the pair that turns r times in L0 tokens
    low     = floor(dim(β_fast)),  high = ceil(dim(β_slow)),  both clipped to [0, d_r − 1]
    ramp_i  = clip( (i − low) / (high − low), 0, 1 )     0: keep, 1: divide by s
    θ'_i    = θ_i · ( (1 − ramp_i) + ramp_i / s )

Longer contexts spread the softmax over more keys; YaRN sharpens it again through the scale of the logits:

    m(s, a) = 0.1 · a · ln s + 1  for s > 1, else 1
    softmax scale = (d_nope + d_r)^(−1/2) · m(s, mscale_all_dim)²

and multiplies cos and sin by m(s, mscale) / m(s, mscale_all_dim), which is 1 for V3. Nothing here is learned.
"""

import math

import numpy as np
from numpy.typing import DTypeLike

Array = np.ndarray


def plain_frequencies(rope_dim: int, base: float) -> Array:
    """θ_i of unscaled RoPE, (d_r/2,) float64, in radians per token."""
    return base ** (-np.arange(0, rope_dim, 2) / rope_dim)


def correction_dim(rotations: float, rope_dim: int, base: float, original_length: int) -> float:
    """dim(r): the (fractional) index of the pair that turns ``rotations`` times within the original context."""
    return rope_dim * math.log(original_length / (2 * math.pi * rotations)) / (2 * math.log(base))


def cut_offs(
    rope_dim: int, base: float, original_length: int, beta_fast: float = 32.0, beta_slow: float = 1.0
) -> tuple[int, int]:
    """(low, high): pairs up to ``low`` are kept, pairs from ``high`` are divided by s. For V3: (10, 23)."""
    low = math.floor(correction_dim(beta_fast, rope_dim, base, original_length))
    high = math.ceil(correction_dim(beta_slow, rope_dim, base, original_length))
    return max(low, 0), min(high, rope_dim - 1)


def ramp(rope_dim: int, low: int, high: int) -> Array:
    """ramp_i in [0, 1], (d_r/2,): which share of pair i is slowed down."""
    width = high - low if high != low else 0.001  # a step, without dividing by zero
    return np.clip((np.arange(rope_dim // 2) - low) / width, 0.0, 1.0)


def yarn_frequencies(
    rope_dim: int, base: float, factor: float, original_length: int, beta_fast: float = 32.0, beta_slow: float = 1.0
) -> Array:
    """θ'_i, (d_r/2,) float64: frequencies for a context ``factor`` times as long as ``original_length``."""
    slowed = ramp(rope_dim, *cut_offs(rope_dim, base, original_length, beta_fast, beta_slow))
    return plain_frequencies(rope_dim, base) * ((1 - slowed) + slowed / factor)


def mscale(factor: float, weight: float) -> float:
    """m(s, a) = 0.1 a ln s + 1. V3: m(40, 1) = 1.3688879454."""
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


def rotation_table(
    frequencies: Array, positions: Array, amplitude: float = 1.0, dtype: DTypeLike = np.float64
) -> tuple[Array, Array]:
    """cos and sin of position · θ_i, each (T, d_r/2). Angles are formed in float64: at position 10⁵ float32 has lost 1 %."""
    angles = np.asarray(positions, dtype=np.float64)[:, None] * frequencies  # (T, d_r/2)
    return (np.cos(angles) * amplitude).astype(dtype), (np.sin(angles) * amplitude).astype(dtype)
