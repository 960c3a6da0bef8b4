"""GRPO's loss as what a model's forward pass minimises: at the positions where an answer's token follows, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from minids.backend import op
from minids.blas import one_blas_thread
from minids.config.policy import PolicyConfig
from minids.layers.parameters import Array, Parameters
from minids.model import DeepSeekV3, routing_fixed
from minids.training.rollout import Rollouts


class Measured(NamedTuple):
    """What the pass over some answers found, before its update; means over tokens, in nats."""

    divergence: float  # D from the reference, of each token or answer
    entropy: float  # of the policy
    clipped: float  # share of the ratios that the clip holds
    drift: float  # |ln π − ln π_old|
    dropped: float  # share of the answers that are bad and that the policy has left behind: V3.2's M = 0


class PolicyObjective:
    """−J of eq. 26 over some ``rollouts``."""

    def __init__(self, rollouts: Rollouts, advantage: Array, config: PolicyConfig, log_ref: Array | None = None):
        """advantage (A,); log_ref (N,): ln π_ref of the answers' tokens, where the divergence has a weight."""
        self.rollouts, self.advantage, self.config, self.log_ref = rollouts, advantage, config, log_ref
        self.measured: Measured | None = None

    def forward(self, logits: Array) -> tuple[float, op.policy_loss.Saved]:
        """logits (A·T, V)."""
        r, c = self.rollouts, self.config
        rows = r.rows
        of_tokens = logits[rows] / logits.dtype.type(c.temperature)  # (N, V)
        tokens = r.targets.reshape(-1)[rows]
        loss, saved = op.policy_loss.forward(
            of_tokens, tokens, r.answer, self.advantage, r.log_probs, self.log_ref,
            c.by, c.clip, c.beta, c.corrected, c.divisor or None, c.drop_above or np.inf, r.kept,
        )  # fmt: skip
        self.measured = Measured(
            float(saved.divergence.mean()),
            float(op.policy_loss.entropy(saved.probs).mean()),
            float(saved.clipped.mean()),
            float(np.abs(saved.log_ratio).mean()),
            float(saved.dropped.mean()),
        )
        return loss, saved

    def backward(self, d_loss: float, saved: op.policy_loss.Saved) -> Array:
        d_logits = np.zeros((self.rollouts.targets.size, saved.probs.shape[1]), saved.probs.dtype)
        d_logits[self.rollouts.rows] = op.policy_loss.backward(d_loss / self.config.temperature, saved)
        return d_logits


def replayed(model: DeepSeekV3, rollouts: Rollouts) -> list[Array | None]:
    """For ``routing_fixed``: the experts of the rollouts, (A·T, K) of each layer. MTP modules, which were not there, choose."""
    chosen: list[Array | None] = [layer.reshape(-1, layer.shape[-1]) for layer in rollouts.chosen]
    return chosen + [None] * (len(model.moe_layers) - len(chosen))


class Reference:
    """Weights that the policy is held near to."""

    def __init__(self, parameters: Parameters):
        self.parameters, self.values = parameters, parameters.values.copy()

    def replace(self) -> None:
        """By the present ones."""
        self.values[...] = self.parameters.values

    @contextmanager
    def _in_place(self) -> Iterator[None]:
        own = self.parameters.values.copy()
        self.parameters.values[...] = self.values
        try:
            yield
        finally:
            self.parameters.values[...] = own

    @one_blas_thread()
    def log_probs(self, model: DeepSeekV3, rollouts: Rollouts, temperature: float) -> Array:
        """ln π_ref of the answers' N tokens, by the experts and among the tokens of the rollouts: the same as ln π while the
        weights are."""
        with self._in_place(), routing_fixed(model, replayed(model, rollouts)):
            hidden = model.hidden_states(rollouts.tokens)[0]  # (A, T, d)
            logits = model.head.forward(hidden.reshape(-1, hidden.shape[-1])[rollouts.rows])[0]  # (N, V)
        tokens = rollouts.targets.reshape(-1)[rollouts.rows]
        return op.policy_loss.log_probabilities(logits / logits.dtype.type(temperature), tokens, rollouts.kept)
