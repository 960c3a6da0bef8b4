"""From a configuration to the rotary angles and to the scale of the attention logits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from minids.config import ModelConfig
from minids.ops import yarn

Array = np.ndarray


class Rotary(NamedTuple):
    """The angles of some positions, as attention layers take them."""

    cos: Array  # (T, d_r/2), or (B, T, d_r/2) where sequences have positions of their own
    sin: Array  # the same

    def first(self, count: int) -> Rotary:
        """Those of the first ``count`` positions."""
        return Rotary(self.cos[..., :count, :], self.sin[..., :count, :])

    def at(self, positions: Array) -> Rotary:
        """Those of ``positions`` (B, T)."""
        return Rotary(self.cos[positions], self.sin[positions])


def sample_starts(segments: Array) -> Array:
    """segments (B, T), the number of each token's sample → the position in the sequence at which that begins, (B, T)."""
    begins = np.ones(segments.shape, bool)
    begins[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return np.maximum.accumulate(np.where(begins, np.arange(segments.shape[1]), 0), axis=1)


def rotary(config: ModelConfig, positions: Array, dtype: DTypeLike) -> Rotary:
    """Angles of ``positions`` (T,), with YaRN where the configuration has it."""
    size, base, s = config.qk_rope_head_dim, config.rope_theta, config.rope_scaling
    if s is None:
        frequencies, amplitude = yarn.plain_frequencies(size, base), 1.0
    else:
        length = s.original_max_position_embeddings
        frequencies = yarn.yarn_frequencies(size, base, s.factor, length, s.beta_fast, s.beta_slow)
        amplitude = yarn.mscale(s.factor, s.mscale) / yarn.mscale(s.factor, s.mscale_all_dim)
    return Rotary(*yarn.rotation_table(frequencies, positions, amplitude, dtype))


def softmax_scale(config: ModelConfig) -> float:
    """σ = (d_nope + d_r)^(−1/2), times m(s, mscale_all_dim)² under YaRN. V3: 0.0721687836, with YaRN 0.1352337788."""
    scale = config.qk_head_dim**-0.5
    if config.rope_scaling is not None:
        scale *= yarn.mscale(config.rope_scaling.factor, config.rope_scaling.mscale_all_dim) ** 2
    return scale
