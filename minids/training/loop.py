"""The training loop of DeepSeek-V3 (sections 2.1.2, 2.2 and 4.2): batches in, gradients, one optimizer step, one of the bias.

It is a generator: each ``next`` makes one optimizer step, and whoever drives it prints, validates, saves or stops in between.
``minids train``, the studies and the benchmarks all run this one.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple, Protocol

from minids.config import TrainConfig
from minids.errors import MinidsError
from minids.layers.parameters import Array
from minids.model import DeepSeekV3, Losses
from minids.training.qk_clip import QKClip
from minids.training.schedule import settings
from minids.training.workers import Workers, weighted


class Supply(Protocol):
    """Batches without end, such as ``Batches``: tokens and the tokens that follow them, (B, T) int each, and other
    arguments of ``DeepSeekV3.forward`` by name, where there are some."""

    def next(self) -> tuple[Array, Array] | tuple[Array, Array, Mapping[str, Any]]: ...


class Optimizer(Protocol):
    """Updates the parameters from their gradients and returns the gradients' norm; leaves them alone if that is no number."""

    def step(self, learning_rate: float, workers: Workers) -> float: ...


class TrainStep(NamedTuple):
    """One optimizer step that has been made."""

    step: int  # steps finished, this one among them
    losses: Losses  # means over the whole global batch, before the update; ``counts`` are its expert loads
    norm: float  # of the gradient, before clipping
    learning_rate: float
    largest_logit: float | None = None  # of the attention, before the step; where QK-Clip looks at it

    def __str__(self) -> str:
        return f"step {self.step}: loss = {self.losses.total:.4g}, gradient norm = {self.norm:.4g}"


class Diverged(MinidsError):
    """A run whose loss or gradient is no longer a number."""


def training_steps(
    model: DeepSeekV3,
    optimizer: Optimizer,
    batches: Supply,
    train: TrainConfig,
    workers: Workers,
    finished: int = 0,
    balancing: bool = True,
) -> Iterator[TrainStep]:
    """Make the steps of ``train`` after the first ``finished``, which model, optimizer and batches have behind them already.
    ``workers`` of ``model`` are entered by the caller (``with Workers(model, n) as workers``), who knows when they can end.
    ``balancing=False``: the balancing bias stays as it is."""
    parts = train.gradient_accumulation_steps
    clip = QKClip(workers.models, train.qk_clip) if train.qk_clip else None
    for step in range(finished, train.steps):
        now = settings(step, model.config, train)  # learning rate, weight λ of the MTP loss, speed γ of the bias

        # Forward and backward pass of every micro-batch. Gradients add up, each with its share, to those of the mean loss.
        workers.zero_grads()
        workers.begin_amaxes()
        each = []
        with clip.recording() if clip else nullcontext():
            for _ in range(parts):
                tokens, targets, *how = batches.next()  # (B, T) each; targets are the tokens that follow
                how_read = how[0] if how else None
                each.append(workers.forward_backward(tokens, targets, 1 / parts, now.mtp_loss_weight, how_read, now.mtp))
        losses = weighted(each, [1 / parts] * parts)

        # Clip the gradients' norm, then update every weight.
        norm = optimizer.step(now.learning_rate, workers)
        done = TrainStep(step + 1, losses, norm, now.learning_rate)
        if not (math.isfinite(losses.total) and math.isfinite(norm)):
            raise Diverged(str(done))
        if clip:
            done = done._replace(largest_logit=clip.apply(workers.greatest))

        workers.end_amaxes()

        # Auxiliary-loss-free balancing: b_i ← b_i + γ sign(mean load − load_i), once per optimizer step, from the loads of
        # the whole global batch, and after the step, so that the biases that chose are those that were trained with.
        if balancing:
            model.update_biases(losses.counts, now.bias_update_speed)

        yield done
