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

    cos: Array  # (T, d_r/2)
    sin: Array  # (T, d_r/2)

    def first(self, count: int) -> Rotary:
        """Those of the first ``count`` positions."""
        return Rotary(self.cos[:count], self.sin[:count])


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
