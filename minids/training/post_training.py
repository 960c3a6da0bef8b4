"""A run that teaches a trained model something more (DeepSeek-V3, section 5): what fine-tuning, GRPO and reward models share.

Steps of the training loop with the balancing bias held still, a line of numbers for each, measurements on the way, Ctrl-C
between two steps, and with a folder checkpoints: a run that was stopped or killed goes on from the newest one, with the bits of
a run that was not.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from minids.backend import compiling
from minids.checkpoint.latest import latest_checkpoint
from minids.checkpoint.model_folder import load, save
from minids.checkpoint.tensor_file import TensorFile, write_tensor_file
from minids.config.training import TrainConfig
from minids.errors import MinidsError, refuse
from minids.layers.parameters import Array
from minids.model import DeepSeekV3
from minids.training.loop import Diverged, TrainStep, training_steps
from minids.training.metrics import MetricsFile
from minids.training.optimizer import optimizer
from minids.training.printing import Say, Voice, interrupt, progress_bar
from minids.training.process_group import ProcessGroup
from minids.training.run_folder import RunFolder, read_state, write_state
from minids.training.workers import Workers

OF_THE_BASE = ("preset", "data", "corpus", "train")
"""What a run's description keeps of its base model's, so that the model can still be measured on that text."""


class PostTraining:
    """One such run on ``model``, which it changes. A kind of run says what a step learns from, and what its numbers are."""

    kind = ""  # the command that makes such runs, by which run.json knows them

    def __init__(
        self,
        model: DeepSeekV3,
        config: Any,
        train: TrainConfig,
        steps: int,
        say: Say,
        folder: RunFolder | None,
        group: ProcessGroup | None = None,
    ):
        """``config`` has learning_rate, log_every and save_every. ``train.steps`` optimizer steps are made in ``steps`` steps
        of the run, as many in each. The processes of ``group`` make the same updates; the first one has the folder."""
        self.group = group or ProcessGroup()
        self.model, self.config, self.train, self.steps, self.folder = model, config, train, steps, folder
        self.optimizer = optimizer(model.parameters, train)
        self.step = 0  # steps finished
        self.seconds = 0.0
        self.history: list[dict[str, Any]] = []  # of this session, a line of numbers for every step
        self.on_step: Callable[[dict[str, Any]], None] = lambda line: None  # told the numbers of each step
        self.metrics: MetricsFile | None = None
        self.say = Voice(say, self.ask_to_stop)
        self.saved = True  # nothing has been learned that is not on the disk
        self._stop = False

    # What a kind of run says for itself.

    def next(self) -> tuple[Array, Array, Mapping[str, Any]]:
        """The next optimizer step's batch, for the training loop."""
        raise NotImplementedError

    def learn(self, made: Iterator[TrainStep]) -> dict[str, Any]:
        """Have ``made`` make a step's optimizer steps; its numbers."""
        raise NotImplementedError

    def in_words(self, line: dict[str, Any]) -> str:
        """A step's numbers, for the terminal."""
        raise NotImplementedError

    def measure(self) -> None:
        """Before the first step, at the end, and every ``eval_every`` steps between."""

    def after_step(self) -> None:
        """When a step is counted and told."""

    def state(self) -> dict[str, Any]:
        """What the run needs to go on, besides model, optimizer and step."""
        return {}

    def restore(self, state: dict[str, Any], checkpoint: Path) -> None:
        """The reverse of ``state`` and ``write_more``."""

    def write_model(self, folder: Path) -> None:
        save(self.model, folder)

    def write_more(self, folder: Path) -> None:
        """Into a checkpoint's folder."""

    # What all have in common.

    def begin(self, checkpoint: Path | None) -> None:
        """Go on from ``checkpoint``, whose model the run was made with; from the beginning if None."""
        state = {"metrics_bytes": 0}
        if checkpoint:
            state = read_state(checkpoint / "training_state.json")
            self.step, self.seconds = state["step"], state["seconds"]
            moments = TensorFile(checkpoint / "optimizer.safetensors")
            self.optimizer.restore({name: moments.read(name) for name in moments.names()})
            self.restore(state, checkpoint)
        if self.folder:
            self.metrics = MetricsFile(self.folder.metrics, state["metrics_bytes"])

    def run(self) -> None:
        """Learn to the end, or to Ctrl-C."""
        try:
            with Workers(self.model, 1) as workers, np.errstate(all="ignore"):
                self._run(workers)
        finally:
            if self.metrics:
                self.metrics.close()
            if self.folder:
                self.folder.unlock()

    def _run(self, workers: Workers) -> None:
        c, eval_every = self.config, getattr(self.config, "eval_every", 0)
        if compiling():
            self.say("Compiling the kernels, once per installation: the first step takes some seconds longer …")
        if self.step == 0:
            self.measure()
        finished = self.step * self.train.steps // self.steps
        made = training_steps(self.model, self.optimizer, self, self.train, workers, finished, balancing=False)
        with interrupt(self.ask_to_stop), progress_bar(self.steps, self.step, quiet=not self.group.first) as bar:
            while self.step < self.steps and not self.group.any(self._stop):
                began = time.perf_counter()
                try:
                    line = self.learn(made)
                except Diverged as error:
                    advice = f"try a lower learning_rate than {c.learning_rate:g}"
                    raise MinidsError(f"{error}; {advice}{self._last_good()}") from None
                self.step += 1
                self.seconds += time.perf_counter() - began
                line = {"step": self.step} | line | {"seconds": round(self.seconds, 3)}
                self.history.append(line)
                self.on_step(line)
                last, self.saved = self.step == self.steps, False
                bar.set_postfix_str(self.in_words(line), refresh=False)
                if self.step % c.log_every == 0 or last:
                    self.write(line)
                    if bar.disable:
                        left = (self.steps - self.step) * self.seconds / self.step
                        self.say(f"step {self.step}/{self.steps}: {self.in_words(line)}, {left:.0f} s left")
                bar.update()
                self.after_step()
                if last or (eval_every and self.step % eval_every == 0):
                    self.measure()
                if last or self.step % c.save_every == 0:
                    self.save()
        if not self.saved:
            self.save()
        if self.step < self.steps:
            out = shlex.quote(str(self.folder.path)) if self.folder else ""
            how = f" To go on: minids {self.kind} --out {out} --resume" if out else ""
            self.say(f"Stopped after step {self.step}.{how}")

    def ask_to_stop(self) -> None:
        self._stop = True
        self.say("\nStopping after this step …")

    def write(self, line: dict[str, Any]) -> None:
        """Into metrics.jsonl, where there is a folder for it."""
        if self.metrics:
            self.metrics.write(line)

    def save(self) -> None:
        """A checkpoint, where there is a folder for it."""
        self.saved = True
        if self.folder is None or self.metrics is None:
            return
        state = {"step": self.step, "seconds": self.seconds, "metrics_bytes": self.metrics.sync()} | self.state()

        def fill(folder: Path) -> None:
            self.write_model(folder)
            write_tensor_file(folder / "optimizer.safetensors", self.optimizer.state())
            self.write_more(folder)
            write_state(folder / "training_state.json", state)

        self.folder.write_checkpoint(self.step, fill)

    def _last_good(self) -> str:
        good = latest_checkpoint(self.folder.path) if self.folder else None
        return f". Last good checkpoint: {good}" if good else ""


# Folders of such runs.


def new_folder(
    kind: str, out: str | Path, checkpoint: str | Path, model: DeepSeekV3, own: dict[str, Any], overwrite: bool
) -> RunFolder:
    """The folder of a new run that begins from ``checkpoint``, with its description; ``own``: what this kind adds to that."""
    base = description_of(checkpoint)
    folder = RunFolder.create(out, overwrite)
    described = {name: base[name] for name in OF_THE_BASE if name in base}
    began = {"kind": kind, "init_from": str(checkpoint), "model": dataclasses.asdict(model.config)}
    folder.write_description(described | began | own)
    return folder


@contextmanager
def reopened(kind: str, out: str | Path, lock: bool = True) -> Iterator[tuple[RunFolder, dict[str, Any]]]:
    """The folder of a run of this kind with its description, to resume it; let go of where that fails. Without ``lock``: as a
    process whose group's first one has locked it."""
    folder = RunFolder.open(out, lock=lock)
    try:
        described = folder.description()
        found = described.get("kind", "train")
        if found != kind:
            raise refuse("out", str(out), f"holds no run of minids {kind}; minids {found} --resume goes on with what is there")
        yield folder, described
    except BaseException:
        folder.unlock()
        raise


def not_ours(folder: RunFolder, error: Exception) -> NoReturn:
    """A description without what every run of its kind has."""
    raise MinidsError(f"{folder.path / 'run.json'}: is not what this version writes ({error})") from None


def check_same(asked: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Settings ``asked`` for when a run is resumed must be its own."""
    for name, value in asked.items():
        if known[name] != value:
            raise refuse(name, value, f"the run there has {known[name]!r}; resume it as it is, or start another")


def readable_model(checkpoint: str | Path) -> DeepSeekV3:
    """The model in a folder, which has to have a tokenizer."""
    model = load(checkpoint)
    if model.tokenizer is None:
        raise refuse("checkpoint", str(checkpoint), "has no tokenizer.json, so there is no text to read or write")
    return model


def description_of(checkpoint: str | Path) -> dict[str, Any]:
    """run.json of the run that a checkpoint belongs to; empty where there is none."""
    path = Path(os.fspath(checkpoint))
    run = next((folder for folder in (path, path.absolute().parent) if (folder / "run.json").is_file()), None)
    return RunFolder(run).description() if run else {}


def identity(value: object) -> str:
    """A hash by which a run knows its data again."""
    return hashlib.sha256(repr(value).encode("utf-8", "surrogatepass")).hexdigest()
