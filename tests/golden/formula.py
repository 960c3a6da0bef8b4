"""Weights and tokens by formula, the same on every machine and with every version of NumPy: no random generator to change.

The bits are those of splitmix64 (Steele, Lea & Flood 2014), computed in 64-bit integers.
"""

from __future__ import annotations

import numpy as np
from parity.small_models import weight_shapes

from minids.config import ModelConfig

Array = np.ndarray

NAMES = ("base", "no_query_latent", "attention_bias", "half_split_yarn", "three_mtp", "raw_gates", "tied_embeddings", "v2_like")
"""The configurations with golden numbers; ``parity.small_models.CONFIGS`` has them."""


def uniform(stream: int, shape: tuple[int, ...]) -> Array:
    """Numbers in [0, 1), float64, from the stream's bits."""
    with np.errstate(over="ignore"):
        z = (np.arange(1, np.prod(shape, dtype=int) + 1, dtype=np.uint64) + np.uint64(stream << 32)) * np.uint64(
            0x9E3779B97F4A7C15
        )
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return ((z >> np.uint64(11)) * 2.0**-53).reshape(shape)


def weights(config: ModelConfig) -> dict[str, Array]:
    """Every parameter and routing bias by its name in memory, float64."""
    result = {}
    for stream, (name, shape) in enumerate(sorted(weight_shapes(config).items()), start=1):
        u = uniform(stream, shape)
        if name.endswith("norm.weight"):
            result[name] = 0.8 + 0.4 * u
        elif name.endswith("e_score_correction_bias"):
            result[name] = ((u - 0.6) * 0.5).astype(np.float32).astype(np.float64)  # representable in float32, where it lives
        else:
            result[name] = (u - 0.5) * 0.8
    return result


def batch(config: ModelConfig, size: int = 2, length: int = 13) -> tuple[Array, Array]:
    """tokens and targets (B, T)."""
    text = (uniform(0, (size, length + 1)) * config.vocab_size).astype(np.int64)
    return text[:, :-1], text[:, 1:]


def fingerprint(gradient: Array) -> Array:
    """Four numbers that hardly any wrong gradient shares: norm, two projections and the largest entry, (4,) float64."""
    flat = np.asarray(gradient, np.float64).ravel()
    return np.array([np.sqrt(flat @ flat), flat @ uniform(7, flat.shape), flat @ uniform(8, flat.shape), np.abs(flat).max()])
