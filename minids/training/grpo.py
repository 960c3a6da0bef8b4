"""Learning from rewards by GRPO (DeepSeek-V3, section 5.2.2): a run, and ``minids.grpo``.

A step draws questions, has the model answer each several times, asks the reward what the answers are worth, and makes one
optimizer step (or ``updates`` of them) by the training loop that all runs share. The balancing bias stays as it is: answers
are no sample of the text that experts have to be balanced for.

Everything random comes from one generator: the same seed, machine and thread count give the same bits, and so does a run that
was stopped and resumed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minids import arguments
from minids.backend import compiling
from minids.checkpoint.latest import latest_checkpoint
from minids.checkpoint.model_folder import load, save
from minids.checkpoint.tensor_file import TensorFile, write_tensor_file
from minids.config.policy import PolicyConfig
from minids.errors import MinidsError, refuse
from minids.inference.generate import Prompt, Stop, checked_ending, prompt_ids
from minids.layers.parameters import Array
from minids.model import IGNORE, DeepSeekV3, routing_fixed
from minids.ops.policy_loss import advantages
from minids.terminal import say
from minids.training.loop import Diverged, training_steps
from minids.training.metrics import MetricsFile
from minids.training.optimizer import optimizer
from minids.training.policy_objective import Measured, PolicyObjective, Reference, replayed
from minids.training.printing import Say, Voice, interrupt, progress_bar
from minids.training.rewards import TASKS, Reward, Task, checked
from minids.training.rollout import Rollouts, sample
from minids.training.run_folder import RunFolder, read_state, write_state
from minids.training.workers import Workers

PATIENCE = 10
"""Steps from the first on without a group that has contrast, after which it is said that there is nothing to learn."""
ASKED_AT_ONCE = 32
"""Held-out questions answered side by side."""
OF_THE_BASE = ("preset", "data", "corpus", "train")
"""What a run's description keeps of its base model's, so that the model can still be measured on that text."""


class Judged(NamedTuple):
    """Answers and what they are worth."""

    rollouts: Rollouts
    rewards: Array  # (A,)
    advantage: Array  # (A,)

    @property
    def contrast(self) -> float:
        """Share of the groups whose answers do not all have the same reward: the others teach nothing."""
        by_group = self.rewards.reshape(int(self.rollouts.groups[-1]) + 1, -1)  # (Q, G)
        return float((by_group.max(axis=1) > by_group.min(axis=1)).mean())


class PolicyRun:
    """One run of GRPO on ``model``, which it changes. With a folder it has checkpoints, and can be resumed."""

    def __init__(
        self,
        model: DeepSeekV3,
        task: Task,
        config: PolicyConfig,
        say: Say,
        folder: RunFolder | None = None,
        checkpoint: Path | None = None,
    ):
        """``checkpoint``: go on from there; ``model`` is then what it holds."""
        self.model, self.task, self.config, self.folder = model, task, config, folder
        self.ending = checked_ending(model, config.max_new_tokens, task.stop)
        self.train = config.as_training()
        self.optimizer = optimizer(model.parameters, self.train)
        self.reference = Reference(model.parameters) if config.beta else None
        self.rng = np.random.default_rng(config.seed)
        self.step = 0  # steps finished
        self.seconds = 0.0
        self.barren = 0  # steps from the first on in which no group had contrast
        self.history: list[dict[str, Any]] = []  # of this session, a line of numbers for every step
        state = self._restored(checkpoint) if checkpoint else {"metrics_bytes": 0}
        self.metrics = MetricsFile(folder.metrics, state["metrics_bytes"]) if folder else None
        self.say = Voice(say, self.ask_to_stop)
        self.on_step: Callable[[dict[str, Any]], None] = lambda line: None  # told the numbers of each step
        self.queue: deque[tuple[Array, Array, dict[str, Any]]] = deque()
        self._stop = False

    def next(self) -> tuple[Array, Array, dict[str, Any]]:
        """The next update's answers, for the training loop."""
        return self.queue.popleft()

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
        c = self.config
        if compiling():
            self.say("Compiling the kernels, once per installation: the first step takes some seconds longer …")
        if self.step == 0:
            self.measure()
        finished = self.step * c.updates
        steps = training_steps(self.model, self.optimizer, self, self.train, workers, finished, balancing=False)
        saved = True
        with interrupt(self.ask_to_stop), progress_bar(c.steps, self.step) as bar:
            while self.step < c.steps and not self._stop:
                began = time.perf_counter()
                with self._losing_nothing(saved):
                    judged = self.answered()
                self._refuse_barren(judged)
                try:
                    line = self._learn(judged, steps)
                except Diverged as error:
                    advice = f"try a lower learning_rate than {c.learning_rate:g}"
                    raise MinidsError(f"{error}; {advice}{self._last_good()}") from None
                self.step += 1
                self.seconds += time.perf_counter() - began
                line = {"step": self.step} | line | {"seconds": round(self.seconds, 3)}
                self.history.append(line)
                self.on_step(line)
                last, saved = self.step == c.steps, False
                bar.set_postfix_str(in_words(line), refresh=False)
                if self.step % c.log_every == 0 or last:
                    self._write(line)
                    if bar.disable:
                        left = (c.steps - self.step) * self.seconds / self.step
                        self.say(f"step {self.step}/{c.steps}: {in_words(line)}, {left:.0f} s left")
                bar.update()
                if self.reference and c.reference_every and self.step % c.reference_every == 0:
                    self.reference.replace()
                if last or (c.eval_every and self.step % c.eval_every == 0):
                    with self._losing_nothing(saved):
                        self.measure()
                if last or self.step % c.save_every == 0:
                    saved = self.save()
        if not saved:
            self.save()
        if self.step < c.steps:
            how = f" To go on: minids grpo --out {self.folder.path} --resume" if self.folder else ""
            self.say(f"Stopped after step {self.step}.{how}")

    def answered(self) -> Judged:
        """A step's questions, drawn and answered, and what the answers are worth."""
        c, there = self.config, len(self.task.questions)
        drawn = self.rng.choice(there, c.questions, replace=there < c.questions)
        return self.judged([self.task.questions[i] for i in drawn], c.group)

    def judged(self, questions: Sequence[list[int]], group: int, temperature: float | None = None) -> Judged:
        heat = self.config.temperature if temperature is None else temperature
        rollouts = sample(self.model, questions, group, self.config.max_new_tokens, heat, self.ending, self.rng)
        asked = [self._readable(question) for question in questions]
        answers = (self._readable(answer) for answer in rollouts.answers)
        pairs = zip(rollouts.groups, answers, strict=True)
        rewards = np.array([checked(self.task.reward, asked[i], answer) for i, answer in pairs])
        return Judged(rollouts, rewards, advantages(rewards, rollouts.groups, self.config.by_std))

    def _readable(self, ids: Sequence[int] | Array) -> str | list[int]:
        """What a reward is given: text, or token ids where there is no tokenizer."""
        return [int(i) for i in ids] if self.model.tokenizer is None else self.model.tokenizer.decode(ids)

    def _learn(self, judged: Judged, steps: Iterator[Any]) -> dict[str, Any]:
        """The optimizer steps of a round; its numbers."""
        c, found, done = self.config, [], None
        flipped: list[float] = []  # of each update and layer
        bounds = np.linspace(0, c.questions, c.updates + 1).astype(int)
        for low, high in itertools.pairwise(bounds):
            part = judged.rollouts.part(slice(int(low), int(high)))
            mine = judged.advantage[(judged.rollouts.groups >= low) & (judged.rollouts.groups < high)]
            log_ref = self.reference.log_probs(self.model, part, c.temperature) if self.reference else None
            objective = PolicyObjective(part, mine, c, log_ref)
            self.queue.append((part.tokens, part.targets, {"objective": objective, "mtp": c.mtp}))
            with self._routing(part, flipped):
                done = next(steps)
            assert objective.measured
            found.append(objective.measured)
        assert done
        r = judged.rollouts
        line: dict[str, Any] = {"reward": float(judged.rewards.mean()), "contrast": judged.contrast}
        line |= {"length": float(r.lengths.mean()), "ended": float(r.ended.mean())}
        line |= {name: float(np.mean([getattr(m, name) for m in found])) for name in Measured._fields}
        line |= {"flipped": float(np.mean(flipped))} if flipped else {}
        return line | {"grad_norm": done.norm, "learning_rate": done.learning_rate}

    @contextmanager
    def _routing(self, part: Rollouts, flipped: list[float]) -> Iterator[None]:
        """Within it tokens go where they went in the rollout. Or where the router sends them now: then ``flipped`` is told
        which share of the tokens goes elsewhere, of each layer."""
        if self.config.keep_routing:
            with routing_fixed(self.model, replayed(self.model, part)):
                yield
            return
        layers = self.model.moe_layers[: len(part.chosen)]
        last = np.array([np.flatnonzero(row != IGNORE)[-1] for row in part.targets])  # (A,) position before the last token
        read = np.arange(part.tokens.shape[1]) <= last[:, None]  # (A, T)

        def told(was: Array) -> Callable:
            def listen(routing: Any, shape: tuple[int, int]) -> None:
                now = routing.chosen.reshape(was.shape)
                flipped.append(float((np.sort(now[read], axis=-1) != np.sort(was[read], axis=-1)).any(axis=-1).mean()))

            return listen

        with ExitStack() as stack:
            for layer, was in zip(layers, part.chosen, strict=True):
                stack.callback(setattr, layer, "on_routing", layer.on_routing)
                layer.on_routing = told(was)
            yield

    def _refuse_barren(self, judged: Judged) -> None:
        """Where no group has had contrast from the first step on, learning would never begin."""
        c = self.config
        if self.barren == self.step and not judged.contrast:
            self.barren += 1
            if self.barren >= min(PATIENCE, c.steps):
                groups = self.barren * c.questions
                same = f"all {groups} groups of {c.group} answers have the same reward throughout (share with contrast: 0 %"
                cure = "a model that gets some right and some wrong, a reward with more grades, or a larger group would teach"
                raise MinidsError(
                    f"task: {same}, reward {judged.rewards.mean():.2f}), so there is nothing to learn from; {cure}"
                )

    def measure(self) -> None:
        """Rewards on held-out questions: of one answer, of the best of a group, and of the greedy answer."""
        if not self.task.held_out:
            return
        found = self.measured(self.task.held_out[: self.config.eval_questions])
        self._write({"step": self.step, "held_out": found})
        asked, group = len(self.task.held_out[: self.config.eval_questions]), self.config.group
        each = f"one answer {found['one']:.3f}, best of {group} {found['best']:.3f}, greedy {found['greedy']:.3f}"
        self.say(f"step {self.step}: reward on {asked} held-out questions: {each}")

    def measured(self, questions: Sequence[list[int]]) -> dict[str, float]:
        """Mean rewards: of ``one`` answer drawn (pass@1 where rewards are 0 and 1), of the ``best`` of a group (pass@G), and of
        the ``greedy`` answer; and the mean ``length`` of drawn ones. The run's own draws are not moved by it."""
        own, self.rng = self.rng, np.random.default_rng([self.config.seed, 1])
        try:
            one, best, greedy, length = [], [], [], []
            for first in range(0, len(questions), ASKED_AT_ONCE):
                some = questions[first : first + ASKED_AT_ONCE]
                drawn = self.judged(some, self.config.group)
                by_group = drawn.rewards.reshape(len(some), -1)
                one += by_group.mean(axis=1).tolist()
                best += by_group.max(axis=1).tolist()
                length += drawn.rollouts.lengths.tolist()
                greedy += self.judged(some, 1, temperature=0.0).rewards.tolist()
        finally:
            self.rng = own
        numbers = {"one": one, "best": best, "greedy": greedy, "length": length}
        return {name: float(np.mean(values)) for name, values in numbers.items()}

    def ask_to_stop(self) -> None:
        self._stop = True
        self.say("\nStopping after this step …")

    def save(self) -> bool:
        """A checkpoint, where there is a folder for it. True: nothing is left to be saved."""
        if self.folder is None or self.metrics is None:
            return True
        numbers = {"step": self.step, "seconds": self.seconds, "barren": self.barren, "metrics_bytes": self.metrics.sync()}
        state = {**numbers, "rng": self.rng.bit_generator.state}

        def write(folder: Path) -> None:
            save(self.model, folder)
            write_tensor_file(folder / "optimizer.safetensors", self.optimizer.state())
            if self.reference:
                write_tensor_file(folder / "reference.safetensors", {"reference": self.reference.values})
            write_state(folder / "training_state.json", state)

        self.folder.write_checkpoint(self.step, write)
        return True

    def _restored(self, checkpoint: Path) -> dict[str, Any]:
        """What a checkpoint holds besides its model, which this run was made with."""
        state = read_state(checkpoint / "training_state.json")
        self.rng.bit_generator.state = state["rng"]
        self.step, self.seconds, self.barren = state["step"], state["seconds"], state["barren"]
        moments = TensorFile(checkpoint / "optimizer.safetensors")
        self.optimizer.restore({name: moments.read(name) for name in moments.names()})
        if self.reference:
            self.reference.values[...] = TensorFile(checkpoint / "reference.safetensors").read("reference")
        return state

    def _write(self, line: dict[str, Any]) -> None:
        if self.metrics:
            self.metrics.write(line)

    @contextmanager
    def _losing_nothing(self, saved: bool) -> Iterator[None]:
        """Where the reward fails, what was learned before is saved first; resumed, the run asks the same questions again."""
        before = self.rng.bit_generator.state
        try:
            yield
        except MinidsError as error:
            self.rng.bit_generator.state = before
            if saved or not self.folder:
                raise
            self.save()
            raise MinidsError(f"{error}. The {self.step} steps before are saved; --resume goes on from there") from error

    def _last_good(self) -> str:
        good = latest_checkpoint(self.folder.path) if self.folder else None
        return f". Last good checkpoint: {good}" if good else ""


def in_words(line: dict[str, Any]) -> str:
    flipped = f", routing flipped {100 * line['flipped']:.1f} %" if "flipped" in line else ""
    kl = f", KL {line['divergence']:.4f}" if line["divergence"] else ""
    length, entropy = f"length {line['length']:.1f}", f"entropy {line['entropy']:.3f}"
    return f"reward {line['reward']:.3f}, contrast {100 * line['contrast']:.0f} %, {length}{kl}, {entropy}{flipped}"


def start(
    out: str | Path, checkpoint: str | Path, task: str, config: PolicyConfig, say: Say = say, overwrite: bool = False
) -> PolicyRun:
    """A new run in the folder ``out``, from the model in ``checkpoint``, on one of ``TASKS``."""
    RunFolder.refuse_taken(out, overwrite)
    model, asked = _loaded(checkpoint, task)
    _check_lengths(model, asked, config.max_new_tokens)
    base = _description_of(checkpoint)
    folder = RunFolder.create(out, overwrite)
    described = {name: base[name] for name in OF_THE_BASE if name in base}
    own = {"kind": "grpo", "init_from": str(checkpoint), "policy": dataclasses.asdict(config), "task": _identity(asked)}
    folder.write_description(described | own | {"model": dataclasses.asdict(model.config)})
    return PolicyRun(model, asked, config, say, folder)


def resume(out: str | Path, asked: dict[str, Any], say: Say = say) -> PolicyRun:
    """The run in the folder ``out``, from its newest checkpoint. ``asked``: settings given anew, which must be its own."""
    folder = RunFolder.open(out)
    try:
        described = folder.description()
        if described.get("kind") != "grpo":
            raise refuse("out", str(out), "holds no run of minids grpo; minids train --resume goes on with one of minids train")
        try:
            config, was, source = PolicyConfig(**described["policy"]), described["task"], described["init_from"]
            known = {**described["policy"], "checkpoint": source, "task": was["name"]}
        except (KeyError, TypeError) as error:
            raise MinidsError(f"{folder.path / 'run.json'}: is not what this version writes ({error})") from None
        for name, value in asked.items():
            if known[name] != value:
                raise refuse(name, value, f"the run there has {known[name]!r}; resume it as it is, or start another")
        checkpoint = folder.newest(say)
        model, task = _loaded(checkpoint or source, was["name"])
        if _identity(task) != was:
            raise refuse("task", task.name, f"its questions are not those of the run ({was['name']}); give those back")
        return PolicyRun(model, task, config, say, folder, checkpoint)
    except BaseException:
        folder.unlock()
        raise


def grpo(
    model: DeepSeekV3,
    prompts: Sequence[Prompt],
    reward: Reward,
    steps: int = 300,
    group: int = 8,
    learning_rate: float = 1e-4,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    seed: int = 0,
    stop: Stop = (),
    held_out: Sequence[Prompt] = (),
    say: Say = say,
    **settings: Any,
) -> list[dict[str, Any]]:
    """Have ``model`` learn, in place, to give answers that ``reward`` likes; a line of numbers for each step.

        history = minids.grpo(model, ["2 + 2 = ", "3 + 5 = "], lambda question, answer: float(answer == "8"), steps=100)

    ``prompts``: texts or token ids. ``reward(prompt, answer)`` → a number; both are texts where the model has a tokenizer, and
    lists of token ids where it has none. An answer ends after ``max_new_tokens``, or as ``stop`` says (token ids and texts; if
    nothing is given, as the model was meant to: ``model.generation.stop``, or the token that ends a document).
    ``held_out``: prompts to measure rewards on before and after. ``settings`` are other fields of ``PolicyConfig``.
    The balancing bias stays as it is. The same seed gives the same bits.
    """
    arguments.instance("model", model, DeepSeekV3, "a model: minids.load(folder), or minids.DeepSeekV3(config)")
    if not callable(reward):
        raise refuse("reward", reward, "must be a function that is given a prompt and an answer, and returns a number")
    if not callable(say):
        raise refuse("say", say, "must be a function that is given a line, such as print")
    own = {"steps": steps, "group": group, "learning_rate": learning_rate, "max_new_tokens": max_new_tokens}
    config = PolicyConfig().replace(**own, temperature=temperature, seed=seed, **settings)
    questions, others = (_questions(model, name, given) for name, given in (("prompts", prompts), ("held_out", held_out)))
    if not questions:
        raise refuse("prompts", prompts, "must hold at least one prompt")
    task = Task("prompts", questions, others, reward, stop or _usual_stop(model))
    _check_lengths(model, task, max_new_tokens)
    run = PolicyRun(model, task, config, say)
    run.run()
    return run.history


def _questions(model: DeepSeekV3, name: str, prompts: Sequence[Prompt]) -> list[list[int]]:
    if isinstance(prompts, str | bytes) or not isinstance(prompts, Sequence | np.ndarray):
        raise refuse(name, prompts, "must be a list, each of text or of token ids")
    return [prompt_ids(model, prompt) for prompt in prompts]


def _usual_stop(model: DeepSeekV3) -> Stop:
    if model.generation is not None and model.generation.stop:
        return list(model.generation.stop)
    end = model.config.eos_token_id
    return [] if end is None else [end]


def _loaded(checkpoint: str | Path, task: str) -> tuple[DeepSeekV3, Task]:
    model = load(checkpoint)
    if model.tokenizer is None:
        raise refuse("checkpoint", str(checkpoint), "has no tokenizer.json, so there is no text to read or write")
    return model, TASKS[task](model.tokenizer)


def _check_lengths(model: DeepSeekV3, task: Task, answer: int) -> None:
    """Questions with their answers have to fit into the context: what is forgotten cannot be learned from."""
    most = model.config.max_position_embeddings
    for question in (*task.questions, *task.held_out):
        if len(question) + answer > most:
            taken = f"{len(question)} tokens and an answer of {answer}"
            raise refuse("prompts", f"a prompt of {taken}", f"the context is {most}; shorten it, or lower max_new_tokens")


def _identity(task: Task) -> dict[str, str]:
    """What tells a task from another: its name, and a hash of its questions."""
    digest = hashlib.sha256(repr((task.questions, task.held_out)).encode()).hexdigest()
    return {"name": task.name, "sha256": digest}


def _description_of(checkpoint: str | Path) -> dict[str, Any]:
    """run.json of the run that a checkpoint belongs to; empty where there is none."""
    path = Path(os.fspath(checkpoint))
    run = next((folder for folder in (path, path.absolute().parent) if (folder / "run.json").is_file()), None)
    return RunFolder(run).description() if run else {}
