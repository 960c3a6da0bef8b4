"""Supervised fine-tuning (DeepSeek-V3, section 5.1): answers are learned, prompts are only read, and packed samples see nothing
of each other. The balancing bias stays as it is: samples are few, and not the text that experts have to be balanced for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minids import arguments
from minids.backend import op
from minids.config.sft import SFTConfig
from minids.errors import refuse
from minids.inference.generate import Prompt
from minids.layers.parameters import Array
from minids.model import IGNORE, DeepSeekV3
from minids.terminal import say
from minids.training.loop import TrainStep
from minids.training.post_training import PostTraining, check_same, identity, new_folder, not_ours, readable_model, reopened
from minids.training.printing import Say
from minids.training.run_folder import RunFolder
from minids.training.samples import Packed, Sample, batches, encoded_samples, laid_out, read_json_lines


class SFTRun(PostTraining):
    """One run of fine-tuning on ``model``, which it changes. With a folder it has checkpoints, and can be resumed."""

    kind = "sft"

    def __init__(
        self,
        model: DeepSeekV3,
        samples: list[Sample],
        config: SFTConfig,
        say: Say,
        teacher: DeepSeekV3 | None = None,
        folder: RunFolder | None = None,
        checkpoint: Path | None = None,
    ):
        """``teacher``: not the answers' tokens are learned, but what this model expects there. ``checkpoint``: go on from
        there; ``model`` is then what it holds."""
        self.samples, self.teacher = samples, teacher
        rng = np.random.default_rng(config.seed)
        self.plan = batches(samples, config.context_length, config.batch_size, config.epochs, rng)
        super().__init__(model, config, config.as_training(len(self.plan)), len(self.plan), say, folder)
        self.begin(checkpoint)

    def run(self) -> None:
        c, sequences = self.config, sum(map(len, self.plan))
        times = f"{len(self.samples):,} samples, {c.epochs} times over"
        self.say(f"{times}, in {sequences:,} sequences of {c.context_length} tokens:")
        self.say(f"{self.steps:,} steps")
        super().run()

    def next(self) -> tuple[Array, Array, dict[str, Any]]:
        """The step's sequences."""
        c = self.config
        p = laid_out(self.samples, self.plan[self.step], c.context_length)
        how = {"segments": p.segments, "mtp": c.mtp, "restart": c.restart}
        return p.tokens, p.targets, how | _soft(self.teacher, p, c)

    def learn(self, made: Iterator[TrainStep]) -> dict[str, Any]:
        done = next(made)
        numbers = {"loss": done.losses.main, "mtp_loss": list(done.losses.mtp)}
        return numbers | {"grad_norm": done.norm, "learning_rate": done.learning_rate}

    def in_words(self, line: dict[str, Any]) -> str:
        return f"loss {line['loss']:.3f}"


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
    return tuned(model, _samples(model, samples, config), config, say)


def tuned(
    model: DeepSeekV3, found: list[Sample], config: SFTConfig, say: Say, teacher: DeepSeekV3 | None = None
) -> list[dict[str, Any]]:
    """``sft`` on samples of token ids. ``teacher``: not the answers' tokens are learned, but what this model expects there."""
    run = SFTRun(model, found, config, say, teacher)
    run.run()
    return run.history


def start(
    out: str | Path, checkpoint: str | Path, data: str | Path, config: SFTConfig, say: Say = say, overwrite: bool = False
) -> SFTRun:
    """A new run in the folder ``out``, from the model in ``checkpoint``, on a file of JSON lines."""
    RunFolder.refuse_taken(out, overwrite)
    lines = read_json_lines(data)
    model = readable_model(checkpoint)
    samples = _samples(model, lines.values(), config, list(lines))
    own = {"sft": dataclasses.asdict(config), "samples": {"path": str(data), "sha256": identity(list(lines.values()))}}
    return SFTRun(model, samples, config, say, folder=new_folder(SFTRun.kind, out, checkpoint, model, own, overwrite))


def resume(out: str | Path, asked: dict[str, Any], say: Say = say) -> SFTRun:
    """The run in the folder ``out``, from its newest checkpoint. ``asked``: settings given anew, which must be its own; but
    ``data`` says where the samples are now."""
    with reopened(SFTRun.kind, out) as (folder, described):
        try:
            config, was, source = SFTConfig(**described["sft"]), described["samples"], described["init_from"]
            data, known = asked.get("data", was["path"]), {**described["sft"], "checkpoint": source}
            sha256 = was["sha256"]
        except (KeyError, TypeError) as error:
            not_ours(folder, error)
        check_same({name: value for name, value in asked.items() if name != "data"}, known)
        lines = read_json_lines(data)
        if identity(list(lines.values())) != sha256:
            raise refuse("data", str(data), "holds other samples than the run began with; give those back, or start another")
        checkpoint = folder.newest(say)
        model = readable_model(checkpoint or source)
        samples = _samples(model, lines.values(), config, list(lines))
        return SFTRun(model, samples, config, say, folder=folder, checkpoint=checkpoint)


def _samples(
    model: DeepSeekV3, pairs: Iterable[Sequence[Prompt]], config: SFTConfig, names: Sequence[str] = ()
) -> list[Sample]:
    most, least = model.config.max_position_embeddings, len(model.mtp) + 1
    if not least <= config.context_length <= most:
        raise refuse("context_length", config.context_length, f"must be from {least} to max_position_embeddings = {most}")
    return encoded_samples(model, pairs, config.context_length, names)


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
