"""Learning from rewards by GRPO (DeepSeek-V3, section 5.2.2): a run, and ``minids.grpo``.

A step draws questions, has the model answer each several times, asks the reward what the answers are worth, and makes one
optimizer step (or ``updates`` of them) by the training loop that all runs share. The balancing bias stays as it is: answers
are no sample of the text that experts have to be balanced for.

Everything random comes from one generator: the same seed, machine and thread count give the same bits, and so does a run that
was stopped and resumed.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minids import arguments
from minids.checkpoint.tensor_file import TensorFile, write_tensor_file
from minids.config.policy import PolicyConfig
from minids.errors import MinidsError, refuse
from minids.inference.acceptance import acceptance
from minids.inference.generate import Prompt, Stop, checked_ending, prompt_ids
from minids.layers.parameters import Array
from minids.model import IGNORE, DeepSeekV3, routing_fixed
from minids.ops.policy_loss import advantages
from minids.terminal import say
from minids.training.loop import TrainStep
from minids.training.policy_objective import Measured, PolicyObjective, Reference, replayed
from minids.training.post_training import PostTraining, check_same, identity, new_folder, not_ours, readable_model, reopened
from minids.training.printing import Say
from minids.training.process_group import ProcessGroup
from minids.training.reward_model import RewardModel
from minids.training.rewards import TASKS, Reward, Task, all_checked
from minids.training.rollout import Rollouts
from minids.training.run_folder import RunFolder

PATIENCE = 10
"""Steps from the first on without a group that has contrast, after which it is said that there is nothing to learn."""
ASKED_AT_ONCE = 32
"""Held-out questions answered side by side."""
GUESSED_AFTER = 16
"""Held-out questions in whose answers the MTP modules' guesses are counted."""


class Judged(NamedTuple):
    """Answers and what they are worth."""

    rollouts: Rollouts
    rewards: Array  # (A,)
    advantage: Array  # (A,)
    ruled: Array  # (A,) rewards by the task's own rule, where they are measured by it; else the same again

    @property
    def contrast(self) -> float:
        """Share of the groups whose answers do not all have the same reward: the others teach nothing."""
        by_group = self.rewards.reshape(int(self.rollouts.groups[-1]) + 1, -1)  # (Q, G)
        return float((by_group.max(axis=1) > by_group.min(axis=1)).mean())


class PolicyRun(PostTraining):
    """One run of GRPO on ``model``, which it changes. With a folder it has checkpoints, and can be resumed."""

    kind = "grpo"

    def __init__(
        self,
        model: DeepSeekV3,
        task: Task,
        config: PolicyConfig,
        say: Say,
        folder: RunFolder | None = None,
        checkpoint: Path | None = None,
        group: ProcessGroup | None = None,
    ):
        """``checkpoint``: go on from there; ``model`` is then what it holds. The processes of ``group`` share the answering,
        and all make the same update; the first one has the folder."""
        super().__init__(model, config, config.as_training(), config.steps, say, folder, group)
        self.task = task
        self.ending = checked_ending(model, config.max_new_tokens, task.stop)
        self.reference = Reference(model.parameters) if config.beta else None
        self.rng = np.random.default_rng(config.seed)
        self.stood_before: float | None = None  # share of the MTP modules' guesses that stood before the first step
        self.barren = 0  # steps from the first on in which no group had contrast
        self.queue: deque[tuple[Array, Array, dict[str, Any]]] = deque()
        self.begin(checkpoint)

    def next(self) -> tuple[Array, Array, dict[str, Any]]:
        """The next update's answers."""
        return self.queue.popleft()

    def learn(self, made: Iterator[TrainStep]) -> dict[str, Any]:
        with self._losing_nothing():
            judged = self.answered()
        self._refuse_barren(judged)
        return self._learn(judged, made)

    def in_words(self, line: dict[str, Any]) -> str:
        return in_words(line)

    def after_step(self) -> None:
        if self.reference and self.config.reference_every and self.step % self.config.reference_every == 0:
            self.reference.replace()

    def answered(self) -> Judged:
        """A step's questions, drawn and answered, and what the answers are worth."""
        c, there = self.config, len(self.task.questions)
        drawn = self.rng.choice(there, c.questions, replace=there < c.questions)
        return self.judged([self.task.questions[i] for i in drawn], c.group)

    def judged(
        self, questions: Sequence[list[int]], group: int, temperature: float | None = None, rule: bool = False
    ) -> Judged:
        """Answers to questions, and what they are worth, with ``rule`` by the task's own too."""
        heat = self.config.temperature if temperature is None else temperature
        most, top_p = self.config.max_new_tokens, self.config.top_p
        rollouts = self.group.sampled(self.model, questions, group, most, heat, self.ending, self.rng, top_p=top_p)
        rollouts = rollouts if self.config.keep_mask else rollouts._replace(kept=None)
        asked = [self._readable(question) for question in questions]
        answers = (self._readable(answer) for answer in rollouts.answers)
        pairs = [(asked[i], answer) for i, answer in zip(rollouts.groups, answers, strict=True)]
        rewards = all_checked(self.task.reward, pairs)
        ruled = all_checked(self.task.rule, pairs) if self.task.rule and rule else rewards
        return Judged(rollouts, rewards, advantages(rewards, rollouts.groups, self.config.by_std), ruled)

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
        questions, group = self.task.held_out[: self.config.eval_questions], self.config.group
        if not questions:
            return
        with self._losing_nothing():
            found = self.measured(questions)
        stood = self._stood(questions[:GUESSED_AFTER])
        found |= {"guesses_stood": stood} if stood is not None else {}
        self.write({"step": self.step, "held_out": found})
        each = f"one answer {found['one']:.3f}, best of {group} {found['best']:.3f}, greedy {found['greedy']:.3f}"
        each += f"; one answer by the task's own rule {found['one_by_rule']:.3f}" if self.task.rule else ""
        self.say(f"step {self.step}: reward on {len(questions)} held-out questions: {each}")
        if self.step == 0:
            self.stood_before = stood
        elif self.step == self.steps and stood is not None and self.stood_before is not None:
            shares = f"{100 * self.stood_before:.0f} % before, {100 * stood:.0f} % after"
            self.say(f"guesses of the MTP modules that stand, in greedy answers to held-out questions: {shares}")

    def _stood(self, questions: Sequence[list[int]]) -> float | None:
        """Share of the MTP modules' guesses that stand in greedy answers; None without modules or guesses."""
        if not self.model.mtp:
            return None
        share = acceptance(self.model, questions, self.config.max_new_tokens, stop=self.task.stop)
        return None if np.isnan(share) else share

    def measured(self, questions: Sequence[list[int]]) -> dict[str, float]:
        """Mean rewards: of ``one`` answer drawn (pass@1 where rewards are 0 and 1), of the ``best`` of a group (pass@G), and of
        the ``greedy`` answer; of ``one_by_rule``, where a reward model has the place of the task's own rule; and the mean
        ``length`` of drawn answers. The run's own draws are not moved by it."""
        own, self.rng = self.rng, np.random.default_rng([self.config.seed, 1])
        try:
            one, best, greedy, length, ruled = [], [], [], [], []
            for first in range(0, len(questions), ASKED_AT_ONCE):
                some = questions[first : first + ASKED_AT_ONCE]
                drawn = self.judged(some, self.config.group, rule=True)
                by_group = drawn.rewards.reshape(len(some), -1)
                one += by_group.mean(axis=1).tolist()
                best += by_group.max(axis=1).tolist()
                length += drawn.rollouts.lengths.tolist()
                ruled += drawn.ruled.tolist()
                greedy += self.judged(some, 1, temperature=0.0).rewards.tolist()
        finally:
            self.rng = own
        numbers = {"one": one, "best": best, "greedy": greedy, "length": length}
        numbers |= {"one_by_rule": ruled} if self.task.rule else {}
        return {name: float(np.mean(values)) for name, values in numbers.items()}

    def state(self) -> dict[str, Any]:
        return {"barren": self.barren, "rng": self.rng.bit_generator.state, "stood_before": self.stood_before}

    def restore(self, state: dict[str, Any], checkpoint: Path) -> None:
        self.rng.bit_generator.state = state["rng"]
        self.barren, self.stood_before = state["barren"], state.get("stood_before")
        if self.reference:
            self.reference.values[...] = TensorFile(checkpoint / "reference.safetensors").read("reference")

    def write_more(self, folder: Path) -> None:
        if self.reference:
            write_tensor_file(folder / "reference.safetensors", {"reference": self.reference.values})

    @contextmanager
    def _losing_nothing(self) -> Iterator[None]:
        """Where the reward fails, what was learned before is saved first; resumed, the run asks the same questions again."""
        before = self.rng.bit_generator.state
        try:
            yield
        except MinidsError as error:
            self.rng.bit_generator.state = before
            if self.saved or not self.folder:
                raise
            self.save()
            raise MinidsError(f"{error}. The {self.step} steps before are saved; --resume goes on from there") from error


def in_words(line: dict[str, Any]) -> str:
    flipped = f", routing flipped {100 * line['flipped']:.1f} %" if "flipped" in line else ""
    kl = f", KL {line['divergence']:.4f}" if line["divergence"] else ""
    dropped = f", dropped {100 * line['dropped']:.0f} %" if line["dropped"] else ""
    length, entropy = f"length {line['length']:.1f}", f"entropy {line['entropy']:.3f}"
    return f"reward {line['reward']:.3f}, contrast {100 * line['contrast']:.0f} %, {length}{kl}, {entropy}{flipped}{dropped}"


def start(
    out: str | Path,
    checkpoint: str | Path,
    task: str,
    config: PolicyConfig,
    say: Say = say,
    overwrite: bool = False,
    reward_model: str | Path = "",
    group: ProcessGroup | None = None,
) -> PolicyRun:
    """A new run in the folder ``out``, from the model in ``checkpoint``, on one of ``TASKS``. ``reward_model``: a folder with
    one that says what answers are worth, in the place of the task's own rule. Each process of a ``group`` calls this alike."""
    group = group or ProcessGroup()
    if group.first:
        RunFolder.refuse_taken(out, overwrite)
    model = readable_model(checkpoint)
    asked = _asked(model, task, reward_model)
    _check_lengths(model, asked, config.max_new_tokens)
    judge = {"reward_model": str(reward_model)} if reward_model else {}
    if not group.first:
        return PolicyRun(model, asked, config, say, group=group)
    own = {"policy": dataclasses.asdict(config), "task": _identity(asked) | judge}
    folder = new_folder(PolicyRun.kind, out, checkpoint, model, own, overwrite)
    return PolicyRun(model, asked, config, say, folder, group=group)


def resume(out: str | Path, asked: dict[str, Any], say: Say = say, group: ProcessGroup | None = None) -> PolicyRun:
    """The run in the folder ``out``, from its newest checkpoint. ``asked``: settings given anew, which must be its own."""
    group = group or ProcessGroup()
    with reopened(PolicyRun.kind, out, lock=group.first) as (folder, described):
        try:
            config, was, source = PolicyConfig(**described["policy"]), described["task"], described["init_from"]
            rewarding = was.get("reward_model", "")
            known = {**described["policy"], "checkpoint": source, "task": was["name"], "reward_model": rewarding}
        except (KeyError, TypeError) as error:
            not_ours(folder, error)
        check_same(asked, known)
        if not group.first:  # which may have to put the pointer right
            group.wait()
        checkpoint = folder.newest(say)
        if group.first:
            group.wait()
        model = readable_model(checkpoint or source)
        task = _asked(model, was["name"], rewarding)
        now = _identity(task)
        if now["sha256"] != was["sha256"]:
            raise refuse("task", task.name, f"its questions are not those of the run ({was['name']}); give those back")
        if now.get("weights_sha256") != was.get("weights_sha256"):
            raise refuse("reward_model", rewarding, "has other weights than the run began with; give those back")
        return PolicyRun(model, task, config, say, folder if group.first else None, checkpoint, group)


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


def _check_lengths(model: DeepSeekV3, task: Task, answer: int) -> None:
    """Questions with their answers have to fit into the context: what is forgotten cannot be learned from."""
    most = model.config.max_position_embeddings
    judge = task.reward.model.config.max_position_embeddings - 2 if isinstance(task.reward, RewardModel) else most
    for question in (*task.questions, *task.held_out):
        taken = f"a prompt of {len(question)} tokens and an answer of {answer}"
        if len(question) + answer > most:
            raise refuse("prompts", taken, f"the context is {most}; shorten it, or lower max_new_tokens")
        if len(question) + answer > judge:
            raise refuse("reward_model", taken, f"does not fit into its context of {judge + 2}; lower max_new_tokens")


def _asked(model: DeepSeekV3, name: str, reward_model: str | Path) -> Task:
    """The task of this name, with the reward model in that folder in the place of its rule, if one is named."""
    task = TASKS[name](model.tokenizer)
    if not reward_model:
        return task
    try:
        reward = RewardModel.load(reward_model)
    except MinidsError as error:
        raise MinidsError(f"reward_model: {error}") from None
    if reward.model.tokenizer is None:
        raise refuse("reward_model", str(reward_model), "has no tokenizer.json, so there is no text to read for it")
    return task._replace(reward=reward, rule=task.reward)


def _identity(task: Task) -> dict[str, str]:
    """What tells a task from another: its name, and hashes of its questions and of the reward model's weights."""
    known = {"name": task.name, "sha256": identity((task.questions, task.held_out))}
    return known | ({"weights_sha256": task.reward.sha256} if isinstance(task.reward, RewardModel) else {})
