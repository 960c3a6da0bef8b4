"""AdamW with gradient clipping, over the flat arrays (DeepSeek-V3 section 4.2: β = 0.9, 0.95, decay 0.1, clip norm 1.0).

    m ← β₁ m + (1 − β₁) g                 m̂ = m / (1 − β₁ᵗ)
    v ← β₂ v + (1 − β₂) g²                v̂ = v / (1 − β₂ᵗ)
    θ ← θ − η ( m̂ / (√v̂ + ε) + w θ )      w only for matrices

Loshchilov & Hutter 2019, algorithm 2. Before that, the gradient of *all* parameters is scaled to norm 1 where it is longer.
Norm gains and biases are not decayed: pulling a gain towards 0 would shrink the signal, not simplify the map. The
balancing bias of the routers is no parameter and is never seen here.
"""

from __future__ import annotations

import math

import numpy as np

from minids.backend import op
from minids.config import TrainConfig
from minids.layers.parameters import Array, Parameters


class AdamW:
    """Moments of all parameters, and one step at a time."""

    def __init__(self, parameters: Parameters, config: TrainConfig):
        self.parameters, self.config = parameters, config
        self.steps_taken = 0
        self.m = np.zeros_like(parameters.values)  # (P,) first moment
        self.v = np.zeros_like(parameters.values)  # (P,) second moment

    def step(self, learning_rate: float) -> float:
        """Clip, then update every parameter from its gradient. Returns the gradient's norm before clipping.

        Where the norm is no number nothing is updated: the weights stay the last good ones.
        """
        c, p = self.config, self.parameters
        norm = math.sqrt(op.adamw.squared_norm(p.grads))
        if not math.isfinite(norm):
            return norm
        scale = min(1.0, c.clip_norm / norm) if c.clip_norm and norm > 0 else 1.0
        self.steps_taken += 1
        matrices, vectors = p.decayed, slice(p.decayed.stop, None)
        for part, decay in ((matrices, c.weight_decay), (vectors, 0.0)):
            op.adamw.update(
                p.values[part],
                p.grads[part],
                self.m[part],
                self.v[part],
                learning_rate,
                c.beta1,
                c.beta2,
                c.adam_eps,
                decay,
                self.steps_taken,
                scale,
            )
        return norm

    def state(self) -> dict[str, Array]:
        """What a resumed run needs, besides the values themselves."""
        return {"m": self.m, "v": self.v, "steps_taken": np.array(self.steps_taken, dtype=np.int64)}

    def restore(self, state: dict[str, Array]) -> None:
        self.m[...], self.v[...] = state["m"], state["v"]
        self.steps_taken = int(state["steps_taken"])
