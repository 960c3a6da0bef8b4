"""A training run: the loop (``loop.py``) with a folder, checkpoints, validation, samples and what is told around it.

Everything random comes from one generator: two runs of the same seed, machine and thread count give the same bits, and a
resumed run those of one that was never interrupted.
"""

from __future__ import annotations

import dataclasses
import math
import shlex
import textwrap
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import numpy as np
from tqdm import tqdm

from minids.backend import compiling
from minids.checkpoint.checksums import Damaged, write_checksums
from minids.checkpoint.latest import latest_checkpoint
from minids.checkpoint.model_folder import load, save
from minids.checkpoint.tensor_file import TensorFile, write_tensor_file
from minids.config import ModelConfig, TrainConfig, Yarn
from minids.errors import MinidsError, refuse
from minids.inference.generate import generate
from minids.inference.sampling import MIN_P, TEMPERATURE
from minids.layers.parameters import Array
from minids.model import DeepSeekV3
from minids.model_checks import check_length, check_recompute
from minids.terminal import columns, fit, say
from minids.training import exam
from minids.training.average import WeightAverage, weights_in_place
from minids.training.batch_ramp import tokens_before
from minids.training.batches import Batches
from minids.training.corpus import Corpus, load_corpus
from minids.training.diagnosis import exploded, where_it_began
from minids.training.evaluate import validation
from minids.training.initial import described_source, initial_model
from minids.training.loop import Diverged, TrainStep, training_steps
from minids.training.metrics import MetricsFile, NoMetrics, max_violation
from minids.training.printing import Say, Voice, able, beside_bar, in_words, interrupt, progress_bar, sums_in_words
from minids.training.process_group import ProcessGroup
from minids.training.qk_clip import check_clip
from minids.training.run_folder import RunFolder, read_state, write_state
from minids.training.schedule import learning_rate
from minids.training.short_context import context, supply
from minids.training.surroundings import SAME_RUN, differences, surroundings
from minids.training.text import Text, held_out_prompt, layout_for, tokenizer_for

Observer = Callable[["Run"], AbstractContextManager[object]]
"""Called before every step, which is then made within the context that it returns. ``step`` is the number finished before."""


class Run:
    """One run, from its first step or from its last checkpoint. Make it with ``start`` or ``resume``, then ``run()``."""

    folder: RunFolder
    metrics: MetricsFile

    def __init__(
        self, halves: tuple[Corpus, Corpus], model: DeepSeekV3, train: TrainConfig, rng: np.random.Generator, say: Say,
        group: ProcessGroup,
    ):  # fmt: skip
        """``halves``: training and held-out text. ``start`` and ``resume`` add the folder and its metrics."""
        self.group, self.tokenizer, self.train = group, model.tokenizer, train
        self.model = group.parted(model)
        self.text = Text.encode(*halves, model.tokenizer, layout_for(train, model.tokenizer))
        self.sums = exam.sums(document.text for document in halves[0].documents)
        self.prompts = {domain: held_out_prompt(halves[1], domain) for domain in halves[1].domains}
        self.optimizer = group.optimizer(self.model.parameters, train)
        self.average = WeightAverage(self.model.parameters, train.ema_decay) if train.ema_decay else None
        self.model.recompute = train.recompute
        self.workers = group.workers(self.model, train.workers)
        per_step = train.gradient_accumulation_steps
        self.batches = Batches(self.text.training, train.batch_size, train.context_length, rng, keep=per_step)
        self.observers: list[Observer] = []
        self.step = 0  # steps finished
        self.seconds = 0.0  # spent training, over all sessions
        self.can_do = ""  # in a sentence, as the last validation found it
        self.say = Voice(say, self.ask_to_stop)
        self._stop = False

    @classmethod
    def start(
        cls, out: str | Path, model_config: ModelConfig, train: TrainConfig, data: list[str], preset: str, say: Say = say,
        overwrite: bool = False, init_from: str | Path = "", group: ProcessGroup | None = None,
    ) -> Run:  # fmt: skip
        """A new run in the folder ``out``, which may hold an older one only with ``overwrite``, or where that has made no
        checkpoint; the older one's files go once this one is ready to begin. From fresh weights, or from those and the
        tokenizer of the checkpoint ``init_from``. Each process of a ``group`` calls this alike."""
        group = group or ProcessGroup()
        if train.context_length > (most := model_config.max_position_embeddings):
            raise refuse("context_length", train.context_length, f"must not be above max_position_embeddings = {most}")
        check_length(context(0, train), model_config.num_nextn_predict_layers)
        check_clip(model_config, train)
        check_recompute(model_config, train.recompute)
        group.check(model_config, train)
        if group.first:
            RunFolder.refuse_taken(out, overwrite)
        corpus = load_corpus(data)
        if corpus.skipped:
            say(corpus.passed_over())
        source = described_source(init_from) if init_from else None
        run = cls._fresh(corpus, model_config, train, say, group, source)
        description = {"preset": preset, "data": list(data), "corpus": _identity(corpus)}
        settings = {"model": dataclasses.asdict(run.model.config), "train": dataclasses.asdict(run.train)}
        description |= ({"init_from": source} if source else {}) | group.described()
        folder = RunFolder.create(out, overwrite) if group.first else RunFolder(Path(out))
        if group.first:
            folder.write_description(description | settings | {"surroundings": surroundings()})
        group.wait()
        run._take(folder)
        return run

    def _take(self, folder: RunFolder, length: int = 0) -> None:
        """The run's folder and its metrics, of which ``length`` bytes count."""
        self.folder = folder
        self.metrics = MetricsFile(folder.metrics, length) if self.group.first else NoMetrics()

    @classmethod
    def _fresh(
        cls, corpus: Corpus, model_config: ModelConfig, train: TrainConfig, say: Say, group: ProcessGroup,
        source: dict | None = None,
    ) -> Run:  # fmt: skip
        """Before the first step: tokenizer, weights and order of the data, all from the settings alone, or tokenizer and
        weights from the checkpoint that ``source`` describes."""
        halves = corpus.split(train.validation_share)
        rng = np.random.default_rng(train.seed)
        if source:
            model = initial_model(source, model_config)
            train = train.replace(workers=group.threads(model, train, train.workers))
            return cls(halves, model, train, rng, say, group)
        joins = train.bpe_line_tokens
        tokenizer = tokenizer_for(halves[0], train.tokenizer, train.bpe_vocab_size, fim=train.fim_rate > 0, line_tokens=joins)
        special = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
        model = DeepSeekV3(model_config.replace(vocab_size=tokenizer.vocab_size, **special), rng)
        model.tokenizer = tokenizer
        train = train.replace(workers=group.threads(model, train, train.workers))
        return cls(halves, model, train, rng, say, group)

    @classmethod
    def resume(
        cls, out: str | Path, asked: Mapping[str, object] | None = None, say: Say = say, group: ProcessGroup | None = None
    ) -> Run:
        """The run in the folder ``out``, from its newest checkpoint; by any ``group``, however many made it.

        ``asked`` are settings given anew, by their names in run.json ("data", or fields of the configurations): they must be
        what the run began with. But ``workers`` may differ, and what that means is said, as it is of another backend; ``data``
        may lie elsewhere, if it is the same text; and more ``steps`` extend the run.
        """
        group = group or ProcessGroup()
        folder = RunFolder.open(out, lock=group.first)
        try:
            return cls._resumed(folder, folder.description(), dict(asked or {}), say, group)
        except BaseException:
            folder.unlock()
            raise

    @classmethod
    def _resumed(cls, folder: RunFolder, described: dict, asked: dict, say: Say, group: ProcessGroup) -> Run:
        if (kind := described.get("kind", "train")) != "train":
            raise refuse("out", str(folder.path), f"holds a run of minids {kind}; minids {kind} --resume goes on with it")
        try:
            train, yarn = TrainConfig(**described["train"]), described["model"].get("rope_scaling")
            model_config = ModelConfig(**described["model"] | {"rope_scaling": Yarn(**yarn) if yarn else None})
            known = {**described["model"], **described["train"], "data": described["data"], "preset": described["preset"]}
            data = [str(entry) for entry in described["data"]]
            was, then = dict(described["corpus"]), dict(described.get("surroundings", {}))
            was = {"sha256": was["sha256"], "texts": was.get("texts_sha256"), "domains": list(was.get("domains", ()))}
            source = described.get("init_from")
            known["init_from"] = source["asked"] if source else ""
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise MinidsError(f"{folder.path / 'run.json'}: is not what this version writes ({error})") from None
        began = train.steps
        workers, steps, moved = asked.pop("workers", 0), asked.pop("steps", train.steps), asked.pop("data", data)
        if steps < train.steps:
            raise refuse("steps", steps, f"the run there has {train.steps}; more of them extend it, fewer are another run")
        for name, value in asked.items():
            if name not in known or known[name] != value:
                raise refuse(name, value, f"the run there has {known.get(name)!r}; resume it as it is, or start another")
        group.check(model_config, train.replace(workers=workers))
        for line in differences(then):
            say(line)
        corpus = _same_text(moved, was)
        if not group.first:  # which may have to put the pointer right
            group.wait()
        checkpoint = folder.newest(say)
        if group.first:
            group.wait()
        if steps > train.steps:
            longer = train.replace(steps=steps)
            rates = (learning_rate(train.steps - 1, train), learning_rate(train.steps, longer))
            say(f"Extended from {train.steps:,} steps to {steps:,}, with the schedule of {steps:,} from here on:")
            say(f"the learning rate was to end at {rates[0]:.2g}; step {train.steps + 1:,} is made at {rates[1]:.2g}")
            train = longer
        if group.first and (steps > began or moved != data):
            folder.write_description(described | {"data": moved, "train": described["train"] | {"steps": steps}})
        if checkpoint is None:  # stopped before the first: from the same settings the same run begins again
            run = cls._fresh(corpus, model_config, train.replace(workers=workers or train.workers), say, group, source)
            state: dict = {"step": 0, "seconds": 0.0, "metrics_bytes": 0}
        else:
            try:
                model = load(checkpoint)
            except Damaged as error:
                if (before := folder.before(checkpoint)) is None:
                    raise
                raise MinidsError(f"{error}. To go on from {before.name}, remove {checkpoint}") from None
            now = train.replace(workers=group.threads(model, train, workers)) if workers or group.size > 1 else train
            rng = np.random.default_rng(train.seed)
            run = cls(corpus.split(train.validation_share), model, now, rng, say, group)
            state = read_state(checkpoint / "training_state.json")
            run.batches.restore(state["data"])
            moments = TensorFile(checkpoint / "optimizer.safetensors")
            run.optimizer.restore({name: moments.read(name) for name in moments.names()})
            for name, history in run.model.parameters.histories.items():
                past = TensorFile(checkpoint / "amaxes.safetensors")
                mine = [each for each in past.names() if each.startswith(f"{name}:")]
                history.past.update({each.removeprefix(f"{name}:"): past.read(each) for each in mine})
            if run.average:
                kept = TensorFile(checkpoint / "average.safetensors")
                averages = {name: kept.read(name) for name in kept.names()}
                averages["average"] = group.own(averages["average"], run.model.parameters)
                run.average.restore(averages)
        threads, now_threads = _threads(described, train.workers), _threads(group.described(), run.train.workers)
        if threads != now_threads:
            of_all = " over all processes" * (group.size > 1 or threads != train.workers)
            change = f"workers was {threads}, is {now_threads}{of_all}"
            say(f"{change}: gradients are added in another order, so that {SAME_RUN}")
        run._take(folder, state["metrics_bytes"])
        run.step, run.seconds = state["step"], state["seconds"]
        return run

    def run(self) -> Path | None:
        """Train to the end, or to Ctrl-C; the newest checkpoint's folder, or None if it was stopped before the first."""
        try:
            if self.train.trace_every and not self.observers:
                why = "nothing records: add minids.lab.analysis.routing_trace.record to the run's observers"
                raise refuse("trace_every", self.train.trace_every, why)
            with self.workers, np.errstate(all="ignore"):  # what is not finite is found below, and said in words
                return self._run()
        finally:
            self.metrics.close()
            self.folder.unlock()

    def _run(self) -> Path | None:
        train = self.train
        if compiling():
            self.say("Compiling the kernels, once per installation: the first step takes some seconds longer …")
        if self.step == 0:
            self.validate()
            self.show_samples("before training")
        saved = True  # nothing has been done that is not on the disk
        given = supply(self.batches, train, self.step)
        steps = training_steps(self.model, self.optimizer, given, train, self.workers, self.step)
        with interrupt(self.ask_to_stop), progress_bar(train.steps, self.step, quiet=not self.group.first) as bar:
            while self.step < train.steps and not self.group.any(self._stop):  # all processes end with the same step
                began = time.perf_counter()
                try:
                    with ExitStack() as around:
                        for observe in self.observers:
                            around.enter_context(observe(self))
                        done = next(steps)
                except Diverged as error:
                    with self.group.whole(self.model, gradients=True) as model:
                        where = where_it_began(model, [(tokens, targets) for tokens, targets, _ in self.batches.kept])
                    raise self._broken(str(error), f"it began here: {where}") from None
                if exploded(done.losses.main, self.model.config.vocab_size):
                    raise self._broken(str(done), "the loss exploded")
                took = time.perf_counter() - began
                self.seconds += took
                self.step = done.step
                if self.average:
                    self.average.update()
                self._report(bar, done, took)
                last, saved = self.step == train.steps, False
                if last or (train.eval_every and self.step % train.eval_every == 0):
                    self.validate()
                if train.sample_every and self.step % train.sample_every == 0 and not last:
                    self.show_samples(f"after {self.step} steps")
                if last or self.step % train.save_every == 0:
                    self.save()
                    saved = True
        if not saved:
            self.save()
        if self.step < train.steps:
            out = shlex.quote(str(self.folder.path))
            self.say(f"Stopped after step {self.step}. To go on: minids train --out {out} --resume")
        else:
            self.show_samples("after training")
            self.say(textwrap.fill(self.can_do, columns() or len(self.can_do) + 1))
        return latest_checkpoint(self.folder.path)

    def ask_to_stop(self) -> None:
        self._stop = True
        self.say("\nStopping after this step …")

    def save(self) -> None:
        """A checkpoint of the whole, which the first process writes and the others wait for."""
        state = {"step": self.step, "seconds": self.seconds, "metrics_bytes": self.metrics.sync(), "data": self.batches.state()}
        moments, average = self.optimizer.state(), self.average.state() if self.average else {}
        if self.average:
            average["average"] = self.group.gathered(average["average"], self.model.parameters)
        with self.group.whole(self.model) as model:
            if self.group.first:
                self._write_checkpoint(model, state, moments, average)
        self.group.wait()

    def _write_checkpoint(self, model: DeepSeekV3, state: dict, moments: dict[str, Array], average: dict[str, Array]) -> None:
        def write(folder: Path) -> None:
            save(model, folder)
            write_tensor_file(folder / "optimizer.safetensors", moments)
            if histories := self.model.parameters.histories:
                past = {f"{name}:{role}": a for name, h in histories.items() for role, a in h.past.items()}
                write_tensor_file(folder / "amaxes.safetensors", past)
            if average:
                write_tensor_file(folder / "average.safetensors", average)
                if self.train.ema_save:
                    with weights_in_place(model.parameters, average["average"]):
                        save(model, folder / "ema")
                    write_checksums(folder / "ema")
            write_state(folder / "training_state.json", state)

        self.folder.write_checkpoint(self.step, write)

    def show_samples(self, when: str, length: int = 160) -> None:
        """A few lines of text in each domain, continued from the beginning of a held-out document."""
        self.say(f"\n--- samples {when}")
        with self.group.whole(self.model) as model:
            if self.group.first:
                self._show_samples(model, length)

    def _show_samples(self, model: DeepSeekV3, length: int) -> None:
        for i, (domain, prompt) in enumerate(self.prompts.items()):
            start = [*self.tokenizer.beginning, *self.tokenizer.encode(prompt)]
            if not start:  # a text without a character of the vocabulary
                continue
            rng = np.random.default_rng([self.train.seed, self.step, i])  # its own: sampling must not move the training data
            new = generate(model, start, length, TEMPERATURE, min_p=MIN_P, seed=rng)
            self.say(f"[{domain}] {prompt}⟩{self.tokenizer.decode(new)}\n")

    def validate(self) -> None:
        if not self.text.held_out:  # validation_share = 0
            return
        found = self._validation("validation")
        each = ", ".join(f"{domain} {numbers['bits_per_byte']:.3f}" for domain, numbers in found.items())
        line: dict[str, object] = {"step": self.step, "validation": found}
        if self.average and self.average.steps:
            with self.average.in_place():
                averaged = self._validation("validation of the averaged weights")
            line["validation_of_average"] = averaged
            each += "; averaged weights: "
            each += ", ".join(f"{domain} {numbers['bits_per_byte']:.3f}" for domain, numbers in averaged.items())
        with self.group.whole(self.model) as model:
            sums = exam.exact_match(model, self.sums, self.group)
        self.metrics.write(line | ({"sums_right": sums} if sums else {}))
        self.say(fit(f"step {self.step}: validation, bits per byte: {each}"))
        if sums:
            self.say(fit(f"step {self.step}: sums right: {sums_in_words(sums)}"))
        self.can_do = able({domain: numbers["bits_per_byte"] for domain, numbers in found.items()}, sums)

    def _validation(self, what: str) -> dict[str, dict[str, float]]:
        c = self.train
        sizes = c.batch_size, c.context_length, c.eval_tokens
        with self.group.whole(self.model) as model:
            found = validation(model, self.text.held_out, self.tokenizer, *sizes, self.group)
        for domain, numbers in found.items():
            for name, value in numbers.items():
                if not math.isfinite(value):
                    raise MinidsError(f"step {self.step}: {what} on {domain!r}: {name} = {value:.4g}. {self._advice()}")
        return found

    def _report(self, bar: tqdm, done: TrainStep, took: float) -> None:
        train, losses = self.train, done.losses
        last = self.step == train.steps
        if self.step % train.log_every == 0 or last:
            violation = max_violation(losses.counts) if len(losses.counts) else np.zeros(0)
            tokens = tokens_before(self.step, train)
            rate = (tokens - tokens_before(self.step - 1, train)) / took
            line: dict[str, object] = {"step": self.step, "tokens": tokens, "loss": losses.total}
            line |= {"main_loss": losses.main, "mtp_loss": list(losses.mtp), "balance_loss": losses.balance}
            line |= {"max_vio": [round(float(v), 4) for v in violation], "grad_norm": done.norm}
            line |= {"learning_rate": done.learning_rate, "tokens_per_second": round(rate), "seconds": round(self.seconds, 3)}
            if done.largest_logit is not None:
                line["largest_logit"] = done.largest_logit
            self.metrics.write(line)
            shown = in_words(losses, float(violation.mean()) if len(violation) else None, rate)
            bar.set_postfix_str(beside_bar(shown, bar), refresh=False)
            if bar.disable and (self.step % (10 * train.log_every) == 0 or last):
                left = (train.steps - self.step) * self.seconds / self.step
                self.say(f"step {self.step}/{train.steps}: {' '.join(shown)}, {left:.0f} s left")
        bar.update()

    def _broken(self, step: str, why: str) -> MinidsError:
        good = latest_checkpoint(self.folder.path)
        kept = f"Last good checkpoint: {good}" if good else "There is no checkpoint yet"
        return MinidsError(f"{step}; {why}. {self._advice()}. {kept}")

    def _advice(self) -> str:
        """What to change. Before the first update no learning rate has done anything yet."""
        if self.step:
            return f"Try a lower learning_rate than {self.train.learning_rate:g}"
        return f"No weight has changed yet: look at initializer_range = {self.model.config.initializer_range:g} and the scales"


def _threads(described: dict, workers: int) -> int:
    """Over all processes of a run, which have ``workers`` each."""
    return int(described.get("processes", 1)) * workers


def _identity(corpus: Corpus) -> dict:
    """What tells a corpus from every other, and its domains' names."""
    hashes = {"sha256": corpus.sha256, "texts_sha256": corpus.texts_sha256}
    return {"name": corpus.name, **hashes, "domains": list(corpus.domains)}


def _same_text(data: list[str], was: dict) -> Corpus:
    """The corpus that a run began with, wherever it lies now: its domains keep the names that the metrics have. What it ``was``
    is known by its hashes, the one without names only since these may change."""
    try:
        corpus = load_corpus(data)
    except MinidsError as error:
        raise MinidsError(f"{error}; if the text has moved, say --data and where it is now") from None
    if corpus.sha256 == was["sha256"]:
        return corpus
    if corpus.texts_sha256 == was["texts"] and len(corpus.domains) == len(was["domains"]):
        return corpus.renamed(was["domains"])
    why = "the text is not what this run began with (other files or another Python): give that back, or start anew"
    raise refuse("data", data, why)
