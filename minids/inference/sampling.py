"""From logits to the next token: greedy, or drawn after temperature, top-k and top-p."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from minids.errors import refuse
from minids.layers.parameters import Array


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn."""

    temperature: float = 0.0
    """0 takes the most likely token; 1 draws from the model's own distribution."""
    top_k: int = 0
    """Draw among the k most likely tokens only; 0 for all."""
    top_p: float = 1.0
    """Draw among the fewest tokens that together have this probability."""

    def __post_init__(self):
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise refuse("temperature", self.temperature, "must be a finite number of at least 0")
        if self.top_k < 0:
            raise refuse("top_k", self.top_k, "must be at least 0; 0 means all tokens")
        if not 0 < self.top_p <= 1:
            raise refuse("top_p", self.top_p, "must lie above 0 and not above 1")

    def probabilities(self, logits: Array) -> Array:
        """logits (B, V) → the distribution that is drawn from, (B, V) float64."""
        logits = logits.astype(np.float64)
        if self.temperature == 0:
            return np.eye(logits.shape[-1])[logits.argmax(axis=-1)]
        logits = (logits - logits.max(axis=-1, keepdims=True)) / self.temperature  # the largest is 0, however cold it is
        if 0 < self.top_k < logits.shape[-1]:
            smallest = np.partition(logits, -self.top_k, axis=-1)[:, -self.top_k, None]
            logits = np.where(logits < smallest, -np.inf, logits)
        p = np.exp(logits)
        p /= p.sum(axis=-1, keepdims=True)
        if self.top_p < 1:
            order = np.argsort(-p, axis=-1, kind="stable")
            ranked = np.take_along_axis(p, order, axis=-1)
            before = np.cumsum(ranked, axis=-1) - ranked  # probability of everything more likely
            np.put_along_axis(p, order, np.where(before < self.top_p, ranked, 0.0), axis=-1)
            p /= p.sum(axis=-1, keepdims=True)
        return p

    def draw(self, logits: Array, rng: np.random.Generator) -> Array:
        """logits (B, V) → one token per row, (B,) int."""
        if self.temperature == 0:
            return logits.argmax(axis=-1)
        cumulative = np.cumsum(self.probabilities(logits), axis=-1)
        points = rng.random((len(logits), 1)) * cumulative[:, -1:]
        return (cumulative <= points).sum(axis=-1).clip(max=logits.shape[-1] - 1)
