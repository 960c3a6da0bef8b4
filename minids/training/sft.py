"""Supervised fine-tuning (DeepSeek-V3, section 5.1): answers are learned, prompts are only read, and packed samples see nothing
of each other. The balancing bias stays as it is: samples are few, and not the text that experts have to be balanced for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from minids import arguments
from minids.backend import compiling, op
from minids.config.sft import SFTConfig
from minids.errors import MinidsError, refuse
from minids.inference.generate import Prompt
from minids.layers.parameters import Array
from minids.model import IGNORE, DeepSeekV3
from minids.terminal import say
from minids.training.loop import Diverged, training_steps
from minids.training.optimizer import optimizer
from minids.training.printing import Say, progress_bar
from minids.training.samples import Packed, Sample, batches, encoded_samples, laid_out
from minids.training.workers import Workers


class Supply:
    """The steps' sequences, one after the other, for the training loop."""

    def __init__(self, steps: Iterator[tuple[Array, Array, dict[str, Any]]]):
        self.steps = steps

    def next(self) -> tuple[Array, Array, dict[str, Any]]:
        return next(self.steps)


def sft(model: DeepSeekV3, samples: Iterable[tuple[Prompt, Prompt]], say: Say = say, **settings: Any) -> list[dict[str, Any]]:
    """Fine-tune ``model``, in place, on (prompt, answer) pairs of texts or token ids; a line of numbers for each step.

        history = minids.sft(model, [("2 + 2 = ", "4"), ("3 + 5 = ", "8")], epochs=20)

    ``settings`` are fields of ``SFTConfig``: two epochs, and a cosine from ``learning_rate`` down to a fifth of it. The same
    seed gives the same bits.
    """
    arguments.instance("model", model, DeepSeekV3, "a model: minids.load(folder), or minids.DeepSeekV3(config)")
    if not callable(say):
        raise refuse("say", say, "must be a function that is given a line, such as print")
    if isinstance(samples, str | bytes) or not isinstance(samples, Iterable):
        raise refuse("samples", samples, "must be a list of pairs, each a prompt and its answer")
    config = SFTConfig().replace(**settings)
    most, least = model.config.max_position_embeddings, len(model.mtp) + 1
    if not least <= config.context_length <= most:
        raise refuse("context_length", config.context_length, f"must be from {least} to max_position_embeddings = {most}")
    return tuned(model, encoded_samples(model, samples, config.context_length), config, say)


def tuned(
    model: DeepSeekV3, found: list[Sample], config: SFTConfig, say: Say, teacher: DeepSeekV3 | None = None
) -> list[dict[str, Any]]:
    """``sft`` on samples of token ids. ``teacher``: not the answers' tokens are learned, but what this model expects there."""
    rng = np.random.default_rng(config.seed)
    plan = batches(found, config.context_length, config.batch_size, config.epochs, rng)
    train = config.as_training(len(plan))
    how = {"mtp": config.mtp, "restart": config.restart}
    packed = (laid_out(found, rows, config.context_length) for rows in plan)
    supply = Supply((p.tokens, p.targets, {"segments": p.segments, **how, **_soft(teacher, p, config)}) for p in packed)
    if compiling():
        say("Compiling the kernels, once per installation: the first step takes some seconds longer …")
    sequences = sum(map(len, plan))
    say(f"{len(found):,} samples, {config.epochs} times over, in {sequences:,} sequences of {config.context_length} tokens:")
    say(f"{len(plan):,} steps")
    history = []
    with Workers(model, 1) as workers, np.errstate(all="ignore"), progress_bar(len(plan), 0) as bar:
        steps = training_steps(model, optimizer(model.parameters, train), supply, train, workers, balancing=False)
        try:
            for done in steps:
                line = {"step": done.step, "loss": done.losses.main, "mtp_loss": list(done.losses.mtp)}
                history.append(line | {"grad_norm": done.norm, "learning_rate": done.learning_rate})
                bar.set_postfix_str(f"loss {done.losses.main:.3f}", refresh=False)
                bar.update()
                if bar.disable and (done.step % config.log_every == 0 or done.step == len(plan)):
                    say(f"step {done.step}/{len(plan)}: loss {done.losses.main:.3f}")
        except Diverged as error:
            raise MinidsError(f"{error}; try a lower learning_rate than {config.learning_rate:g}") from None
    return history


class SoftTargets:
    """The divergence from a teacher's expectations, at the positions where an answer's token follows."""

    def __init__(self, rows: Array, positions: int, teacher: Array):
        """rows (N,) among the B·T ``positions``; teacher (N, V): its logits there."""
        self.rows, self.positions, self.teacher = rows, positions, teacher

    def forward(self, logits: Array) -> tuple[float, op.distillation.Saved]:
        return op.distillation.forward(logits[self.rows], self.teacher)

    def backward(self, d_loss: float, saved: op.distillation.Saved) -> Array:
        d_logits = np.zeros((self.positions, saved.probs.shape[1]), saved.probs.dtype)
        d_logits[self.rows] = op.distillation.backward(d_loss, saved)
        return d_logits


def _soft(teacher: DeepSeekV3 | None, packed: Packed, config: SFTConfig) -> dict[str, Any]:
    """What a teacher expects of some packed samples, as an argument of the student's forward pass."""
    if teacher is None:
        return {}
    rows = np.flatnonzero(packed.targets.reshape(-1) != IGNORE)
    packing = teacher.packing(packed.tokens, packed.segments, config.restart)
    hidden = teacher.hidden_states(packed.tokens, packing)[0]  # (B, T, d)
    logits = teacher.head.forward(hidden.reshape(-1, hidden.shape[-1])[rows])[0]  # (N, V)
    return {"objective": SoftTargets(rows, packed.targets.size, logits)}
