"""The training loop: batches in, gradients, one optimizer step, one step of the balancing bias; and what is told and kept.

Everything random comes from one generator, so that two runs of the same seed, machine and thread count give the same bits,
and a resumed run the same as one that was never interrupted.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from minids.backend import compiling
from minids.checkpoint.checksums import Damaged
from minids.checkpoint.latest import latest_checkpoint
from minids.checkpoint.model_folder import load, save
from minids.checkpoint.tensor_file import TensorFile, write_tensor_file
from minids.checkpoint.tokenizer import Tokenizer, byte_tokenizer, character_tokenizer, train_bpe
from minids.config import ModelConfig, TrainConfig, Yarn
from minids.errors import MinidsError, refuse
from minids.inference.generate import generate
from minids.model import DeepSeekV3, Losses
from minids.model_checks import check_length
from minids.training.batches import Batches, TokenStream
from minids.training.corpus import Corpus, Document, load_corpus
from minids.training.diagnosis import exploded, where_it_began
from minids.training.evaluate import validation
from minids.training.metrics import MetricsFile, max_violation
from minids.training.optimizer import optimizer
from minids.training.routing_trace import Recorder, path_of
from minids.training.run_folder import RunFolder
from minids.training.schedule import Settings, settings
from minids.training.surroundings import differences, other_threads, surroundings
from minids.training.workers import Workers, useful_workers, weighted

Say = Callable[[str], None]


class Trainer:
    """One run, from its first step or from its last checkpoint. Make it with ``start`` or ``resume``, then ``run()``."""

    def __init__(
        self,
        corpus: Corpus,
        tokenizer: Tokenizer,
        model: DeepSeekV3,
        train: TrainConfig,
        rng: np.random.Generator,
        say: Say = print,
    ):
        self.tokenizer, self.model, self.train, self._say = tokenizer, model, train, say
        model.tokenizer = tokenizer
        training, held_out = corpus.split(train.validation_share)
        self.stream = TokenStream.encode(training.documents, tokenizer)
        self.held_out = {
            domain: TokenStream.encode(sorted(held_out.of(domain), key=_by_content), tokenizer) for domain in held_out.domains
        }
        for domain, stream in self.held_out.items():
            if len(stream.tokens) < 2:
                why = f"its held-out text has {len(stream.tokens)} tokens, and two are the least; give more text of it"
                raise refuse("data", domain, why)
        self.prompts = {domain: held_out_prompt(held_out, domain) for domain in held_out.domains}
        self.optimizer = optimizer(model.parameters, train)
        self.workers = Workers(model, train.workers)
        self.batches = Batches(self.stream, train.batch_size, train.context_length, rng)
        self.step = 0  # steps finished
        self.seconds = 0.0  # spent training, over all sessions
        self.folder: RunFolder | None = None  # set by `start` and `resume`
        self.metrics: MetricsFile | None = None
        self._stop = False

    @classmethod
    def start(
        cls,
        out: str | Path,
        model_config: ModelConfig,
        train: TrainConfig,
        data: list[str],
        preset: str,
        say: Say = print,
    ) -> Trainer:
        """A new run in the folder ``out``."""
        if train.context_length > model_config.max_position_embeddings:
            raise refuse(
                "context_length",
                train.context_length,
                f"must not be above max_position_embeddings = {model_config.max_position_embeddings}",
            )
        check_length(train.context_length, model_config.num_nextn_predict_layers)
        RunFolder.refuse_taken(out)
        corpus = load_corpus(data)
        if corpus.skipped:
            say(corpus.passed_over())
        trainer = cls._fresh(corpus, model_config, train, say)
        trainer.folder = folder = RunFolder.create(out)
        folder.write_description(
            {
                "preset": preset,
                "data": list(data),
                "corpus": {"name": corpus.name, "sha256": corpus.sha256},
                "model": dataclasses.asdict(trainer.model.config),
                "train": dataclasses.asdict(trainer.train),
                "surroundings": surroundings(),
            }
        )
        trainer.metrics = MetricsFile(folder.metrics)
        return trainer

    @classmethod
    def _fresh(cls, corpus: Corpus, model_config: ModelConfig, train: TrainConfig, say: Say) -> Trainer:
        """Before the first step: tokenizer, weights and order of the data, all from the settings alone."""
        training = corpus.split(train.validation_share)[0]
        tokenizer = byte_tokenizer()
        if train.tokenizer == "bpe":
            tokenizer = train_bpe((d.text for d in training.documents), train.bpe_vocab_size)
        elif train.tokenizer == "chars":
            tokenizer = character_tokenizer(d.text for d in training.documents)
        model_config = model_config.replace(
            vocab_size=tokenizer.vocab_size, bos_token_id=tokenizer.bos_id, eos_token_id=tokenizer.eos_id
        )
        rng = np.random.default_rng(train.seed)
        model = DeepSeekV3(model_config, rng)
        train = train.replace(workers=useful_workers(model, train.batch_size, train.workers))
        return cls(corpus, tokenizer, model, train, rng, say)

    @classmethod
    def resume(cls, out: str | Path, asked: dict | None = None, say: Say = print) -> Trainer:
        """The run in the folder ``out``, from its newest checkpoint.

        ``asked`` are settings given anew, by their names in run.json ("data", or fields of the configurations): they must be
        what the run began with; only ``workers`` may differ, and what that means is said, as it is of another backend.
        """
        folder = RunFolder.open(out)
        described = folder.description()
        try:
            return cls._resumed(folder, described, dict(asked or {}), say)
        except BaseException:
            folder.unlock()
            raise

    @classmethod
    def _resumed(cls, folder: RunFolder, described: dict, asked: dict, say: Say) -> Trainer:
        try:
            train, model_config = TrainConfig(**described["train"]), _model_config(described["model"])
            known = {**described["model"], **described["train"], "data": described["data"], "preset": described["preset"]}
            data = [str(entry) for entry in described["data"]]
            sha256, then = described["corpus"]["sha256"], dict(described.get("surroundings", {}))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, MinidsError):
                raise
            raise MinidsError(f"{folder.path / 'run.json'}: is not what this version writes ({error})") from None
        workers = asked.pop("workers", 0)
        for name, value in asked.items():
            if name not in known or known[name] != value:
                raise refuse(
                    name, value, f"the run in {folder.path} has {known.get(name)!r}; resume it as it is, or start another"
                )
        for line in differences(then):
            say(line)
        corpus = load_corpus(data)
        if corpus.sha256 != sha256:
            raise refuse(
                "data",
                described["data"],
                "the text is not what this run began with (other files, or another Python for the built-in corpus); "
                "give it back its text, or start another run",
            )
        checkpoint = folder.newest(say)
        if checkpoint is None:  # stopped before the first: from the same settings the same run begins again
            trainer = cls._fresh(corpus, model_config, train.replace(workers=workers or train.workers), say)
            cls._say_threads(train.workers, trainer.train.workers, say)
            trainer.folder, trainer.metrics = folder, MetricsFile(folder.metrics)
            return trainer
        try:
            model = load(checkpoint)
        except Damaged as error:
            if (before := folder.before(checkpoint)) is None:
                raise
            raise MinidsError(f"{error}. To go on from {before.name}, remove {checkpoint}") from None
        if workers:
            then = train.workers
            train = train.replace(workers=useful_workers(model, train.batch_size, workers))
            cls._say_threads(then, train.workers, say)
        state = RunFolder.read_state(checkpoint)
        rng = np.random.default_rng(train.seed)
        trainer = cls(corpus, model.tokenizer, model, train, rng, say)
        trainer.folder = folder
        trainer.batches.restore(state["data"])
        moments = TensorFile(checkpoint / "optimizer.safetensors")
        trainer.optimizer.restore({name: moments.read(name) for name in moments.names()})
        trainer.step, trainer.seconds = state["step"], state["seconds"]
        trainer.metrics = MetricsFile(folder.metrics, state["metrics_bytes"])
        return trainer

    @staticmethod
    def _say_threads(then: int, now: int, say: Say) -> None:
        if now != then:
            say(other_threads(then, now))

    def say(self, line: str) -> None:
        """Tell the user; where nobody listens any more (``| head``), end the run as Ctrl-C does, and say so on stderr."""
        try:
            self._say(line)
        except BrokenPipeError:
            self._say = _on_stderr
            self._ask_to_stop()

    def run(self) -> Path | None:
        """Train to the end, or to Ctrl-C; the newest checkpoint's folder, or None if it was stopped before the first."""
        try:
            with np.errstate(all="ignore"):  # what is not finite is found by _check_sane and _validate, and said in words
                return self._run()
        finally:
            self.metrics.close()
            self.folder.unlock()

    def _run(self) -> Path | None:
        train = self.train
        if compiling():
            self.say("Compiling the kernels, once per installation: the first step takes some seconds longer …")
        if self.step == 0:
            self._validate()
            self.show_samples("before training")
        saved = True  # nothing has been done that is not on the disk
        with _Interrupt(self._ask_to_stop), self._progress() as bar, self.workers:
            while self.step < train.steps and not self._stop:
                began = time.perf_counter()
                now = settings(self.step, self.model.config, train)
                losses, norm = self.train_step(now)
                took = time.perf_counter() - began
                self.seconds += took
                self.step += 1
                self._report(bar, losses, norm, now, took)
                last, saved = self.step == train.steps, False
                if last or self.step % train.eval_every == 0:
                    self._validate()
                if train.sample_every and self.step % train.sample_every == 0 and not last:
                    self.show_samples(f"after {self.step} steps")
                if last or self.step % train.save_every == 0 or self._stop:
                    self.save()
                    saved = True
        if self._stop and self.step < train.steps:
            if not saved:
                self.save()
            self.say(f"Stopped after step {self.step}. To go on: minids train --out {self.folder.path} --resume")
            return latest_checkpoint(self.folder.path)
        self.show_samples("after training")
        return latest_checkpoint(self.folder.path)

    def train_step(self, now: Settings) -> tuple[Losses, float]:
        """One optimizer step over ``gradient_accumulation_steps`` micro-batches → mean losses, gradient norm."""
        parts = self.train.gradient_accumulation_steps
        self.workers.zero_grads()
        all_losses, seen, domains = [], [], []
        traced = bool(self.train.trace_every) and self.step % self.train.trace_every == 0
        with Recorder(self.workers.models) if traced else nullcontext() as recorder:
            for _ in range(parts):
                tokens, targets = self.batches.next()
                seen.append((tokens, targets))
                all_losses.append(self.workers.forward_backward(tokens, targets, 1 / parts, now.mtp_loss_weight))
                if traced:
                    domains.append(self.batches.domain())
        if traced:
            tokens, domain = np.concatenate([tokens for tokens, _ in seen]), np.concatenate(domains)
            recorder.trace(tokens, self.step, self.stream.domains, domain).save(path_of(self.folder.path, self.step))
        norm = self.optimizer.step(now.learning_rate, self.workers)
        losses = weighted(all_losses, [1 / parts] * parts)
        self._check_sane(losses, norm, seen)
        # Once per optimizer step, from the loads of the whole global batch, and after the step: see ops/bias_update.py.
        self.model.update_biases(losses.counts, now.bias_update_speed)
        return losses, norm

    def save(self) -> Path:
        """Write a checkpoint."""
        metrics_bytes = self.metrics.sync()  # before the checkpoint that counts on them

        def write(folder: Path) -> None:
            save(self.model, folder)
            write_tensor_file(folder / "optimizer.safetensors", self.optimizer.state())
            RunFolder.write_state(
                folder,
                {
                    "step": self.step,
                    "seconds": self.seconds,
                    "metrics_bytes": metrics_bytes,
                    "data": self.batches.state(),
                },
            )

        return self.folder.write_checkpoint(self.step, write)

    def show_samples(self, when: str, length: int = 160) -> None:
        """A few lines of text in each domain, continued from the beginning of a held-out document."""
        self.say(f"\n--- samples {when}")
        for i, (domain, prompt) in enumerate(self.prompts.items()):
            start = [*self.tokenizer.beginning, *self.tokenizer.encode(prompt)]
            if not start:  # a text without a character of the vocabulary
                continue
            rng = np.random.default_rng([self.train.seed, self.step, i])  # its own: sampling must not move the training data
            new = generate(self.model, start, length, temperature=0.7, top_p=0.95, seed=rng)
            text = printable(self.tokenizer.decode(new))
            self.say(f"[{domain}] {prompt}⟩{text}\n")

    def _validate(self) -> None:
        c = self.train
        found = validation(self.model, self.held_out, self.tokenizer, c.batch_size, c.context_length, c.eval_tokens)
        for domain, numbers in found.items():
            if not all(map(math.isfinite, numbers.values())):
                loss = ", ".join(f"{name} = {value:.4g}" for name, value in numbers.items())
                raise MinidsError(f"step {self.step}: validation on {domain!r}: {loss}. {self._advice()}")
        self.metrics.write({"step": self.step, "validation": found})
        each = ", ".join(f"{domain} {numbers['bits_per_byte']:.3f}" for domain, numbers in found.items())
        self.say(f"step {self.step}: validation, bits per byte: {each}")

    def _report(self, bar, losses: Losses, norm: float, now: Settings, took: float) -> None:
        violation = max_violation(losses.counts) if len(losses.counts) else np.zeros(0)
        rate = self.train.tokens_per_step / took
        if self.step % self.train.log_every == 0 or self.step == self.train.steps:
            line = {
                "step": self.step,
                "tokens": self.step * self.train.tokens_per_step,
                "loss": losses.total,
                "main_loss": losses.main,
                "mtp_loss": list(losses.mtp),
                "balance_loss": losses.balance,
                "max_vio": [round(float(v), 4) for v in violation],
                "grad_norm": norm,
                "learning_rate": now.learning_rate,
                "tokens_per_second": round(rate),
                "seconds": round(self.seconds, 3),
            }
            self.metrics.write(line)
            shown = f"loss {losses.main:.3f}"
            if losses.mtp:
                shown += " mtp " + " ".join(f"{loss:.3f}" for loss in losses.mtp)
            if len(violation):
                shown += f" MaxVio {violation.mean():.2f}"
            shown += f" {rate:,.0f} tokens/s"
            bar.set_postfix_str(shown, refresh=False)
            if bar.disable and (self.step % (10 * self.train.log_every) == 0 or self.step == self.train.steps):
                left = (self.train.steps - self.step) * self.seconds / self.step
                self.say(f"step {self.step}/{self.train.steps}: {shown}, {left:.0f} s left")
        bar.update()

    def _progress(self):
        """A bar on a terminal or in a notebook; plain lines (see ``_report``) where the output is a file."""
        quiet = not (sys.stderr.isatty() or "ipykernel" in sys.modules)
        return tqdm(total=self.train.steps, initial=self.step, disable=quiet, unit="step", dynamic_ncols=True)

    def _check_sane(self, losses: Losses, norm: float, batches: list) -> None:
        """Stop where the numbers are none any more, before they reach a weight."""
        finite = math.isfinite(losses.total) and math.isfinite(norm)
        if finite and not exploded(losses.main, self.model.config.vocab_size):
            return
        good = latest_checkpoint(self.folder.path)
        where = f"it began here: {where_it_began(self.model, batches)}" if not finite else "the loss exploded"
        raise MinidsError(
            f"step {self.step + 1}: loss = {losses.total:.4g}, gradient norm = {norm:.4g}; {where}. {self._advice()}. "
            + (f"Last good checkpoint: {good}" if good else "There is no checkpoint yet")
        )

    def _advice(self) -> str:
        """What to change where numbers are none any more. Before the first update no rate has done anything yet."""
        if self.step:
            return f"Try a lower learning_rate than {self.train.learning_rate:g}"
        spread = self.model.config.initializer_range
        return f"No weight has changed yet, so look at initializer_range = {spread:g} and the scales"

    def _ask_to_stop(self) -> None:
        self._stop = True
        self.say("\nStopping after this step …")


def _on_stderr(line: str) -> None:
    """Said where somebody may still listen; if not (``2>&1 | head``), not at all."""
    with suppress(OSError):
        print(line, file=sys.stderr)


def _model_config(fields: dict) -> ModelConfig:
    """The configuration that run.json describes."""
    yarn = fields.get("rope_scaling")
    return ModelConfig(**{**fields, "rope_scaling": Yarn(**yarn) if yarn else None})


class _Interrupt:
    """Ctrl-C asks for a stop instead of breaking into a step; pressed again, it breaks."""

    def __init__(self, ask: Callable[[], None]):
        self.ask = ask

    def __enter__(self):
        self.active = threading.current_thread() is threading.main_thread()  # elsewhere signals cannot be handled
        if self.active:
            self.before = signal.signal(signal.SIGINT, self._once)

    def __exit__(self, *_):
        if self.active:
            signal.signal(signal.SIGINT, self.before)

    def _once(self, *_):
        signal.signal(signal.SIGINT, self.before)
        self.ask()


def _by_content(document: Document) -> bytes:
    """An order without a system: a validation pass that reads only some of the text should not read the first files alone."""
    return hashlib.sha256(document.text).digest()


def printable(text: str) -> str:
    """Text that cannot upset a terminal: an untrained model writes control characters too."""
    return "".join(c if c.isprintable() or c == "\n" else "·" for c in text)


def held_out_prompt(corpus: Corpus, domain: str, length: int = 48) -> str:
    """The first words of the first paragraph after the middle of the domain's first held-out document.

    What a document begins with, a title or a licence, says less of its kind than what stands in it.
    """
    text = corpus.of(domain)[0].text.decode("utf-8", errors="replace")
    paragraph = re.search(r"\n\s*\n(?=[ \t]*\S)", text[len(text) // 2 :])
    text = text[len(text) // 2 + paragraph.end() :] if paragraph else text.lstrip()
    cut = text[:length]
    return cut if len(text) <= length else cut[: max(cut.rfind(" "), cut.rfind("\n")) + 1].rstrip() or cut
