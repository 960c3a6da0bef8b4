"""How a reward model is trained (DeepSeek-V3, section 5.2.1): on prompts with two answers, of which one was preferred.

a file of JSON lines      {"prompt": "What is 2 + 2?\\n", "chosen": "2 + 2 = 4.\\n", "rejected": "2 + 2 = 5.\\n"}
a step                    both answers of some pairs read side by side, and the loss of ``ops/preference_loss``

Pairs of the same prompt are held out together, so that what is measured is no prompt that was learned. The balancing bias stays
as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minids.backend import op
from minids.blas import one_blas_thread
from minids.config.reward import RewardConfig
from minids.errors import MinidsError, refuse
from minids.inference.generate import Prompt
from minids.layers.parameters import Array
from minids.model import IGNORE, DeepSeekV3
from minids.terminal import say
from minids.training.loop import TrainStep
from minids.training.post_training import PostTraining, check_same, identity, new_folder, not_ours, readable_model, reopened
from minids.training.printing import Say
from minids.training.reward_model import RewardModel, padded
from minids.training.run_folder import RunFolder
from minids.training.samples import read_json_lines

FIELDS = ("prompt", "chosen", "rejected")


class Pair(NamedTuple):
    chosen: Array  # (n,) prompt and answer
    rejected: Array  # (m,)


class Pairs(NamedTuple):
    learned: list[Pair]
    held_out: list[Pair]


class PairObjective:
    """The loss of some pairs, of the rewards at the last tokens of their answers and nowhere else."""

    def __init__(self, last: Array):
        """last (2P,): where the chosen answers end among B·T positions, then where the rejected ones do."""
        self.last = last
        self.accuracy = self.margin = float("nan")

    def forward(self, rewards: Array) -> tuple[float, tuple[int, op.preference_loss.Saved]]:
        """rewards (B·T, 1)."""
        chosen, rejected = np.split(rewards[self.last, 0], 2)  # (P,) each
        self.accuracy, self.margin = accuracy(chosen, rejected), float(np.mean(chosen - rejected))
        loss, saved = op.preference_loss.forward(chosen, rejected)
        return loss, (len(rewards), saved)

    def backward(self, d_loss: float, saved: tuple[int, op.preference_loss.Saved]) -> Array:
        positions, of_pairs = saved
        d_rewards = np.zeros((positions, 1), of_pairs.dtype)
        d_rewards[self.last, 0] = np.concatenate(op.preference_loss.backward(d_loss, of_pairs))
        return d_rewards


def accuracy(chosen: Array, rejected: Array) -> float:
    """Share of the pairs whose chosen answer has the higher reward; where both have the same it is half right."""
    return float(np.mean((chosen > rejected) + 0.5 * (chosen == rejected)))


class RewardRun(PostTraining):
    """One run of training ``reward``, which it changes. With a folder it has checkpoints, and can be resumed."""

    kind = "reward-model"

    def __init__(
        self,
        reward: RewardModel,
        pairs: Pairs,
        config: RewardConfig,
        say: Say,
        folder: RunFolder | None = None,
        checkpoint: Path | None = None,
    ):
        """``checkpoint``: go on from there; ``reward`` is then what it holds."""
        self.reward, self.pairs = reward, pairs
        rng, size = np.random.default_rng(config.seed), config.batch_size
        orders = (rng.permutation(len(pairs.learned)) for _ in range(config.epochs))
        self.plan = [order[i : i + size] for order in orders for i in range(0, len(order), size)]
        super().__init__(reward.model, config, config.as_training(len(self.plan)), len(self.plan), say, folder)
        self.reward.history = self.history
        self.objective: PairObjective | None = None
        self.begin(checkpoint)

    def run(self) -> None:
        learned, held_out = map(len, self.pairs)
        self.say(f"{learned:,} pairs, {self.config.epochs} times over, in {self.steps:,} steps; {held_out:,} pairs held out")
        super().run()

    def next(self) -> tuple[Array, Array, dict[str, Any]]:
        some = [self.pairs.learned[i] for i in self.plan[self.step]]
        texts = [pair.chosen for pair in some] + [pair.rejected for pair in some]
        ((tokens, last),) = padded(texts, len(texts))  # (2P, T), (2P,)
        self.objective = PairObjective(last)
        return tokens, np.full_like(tokens, IGNORE), {"objective": self.objective, "mtp": False}

    def learn(self, made: Iterator[TrainStep]) -> dict[str, Any]:
        done = next(made)
        assert self.objective
        numbers = {"loss": done.losses.main, "accuracy": self.objective.accuracy, "margin": self.objective.margin}
        return numbers | {"grad_norm": done.norm, "learning_rate": done.learning_rate}

    def in_words(self, line: dict[str, Any]) -> str:
        return f"loss {line['loss']:.3f}, accuracy {100 * line['accuracy']:.0f} %"

    def measure(self) -> None:
        """Loss and accuracy on the held-out pairs."""
        if self.pairs.held_out:
            found = measured(self.reward, self.pairs.held_out)
            self.write({"step": self.step, "held_out": found})
            self.say(f"step {self.step}: on {len(self.pairs.held_out):,} held-out pairs: {self.in_words(found)}")

    def write_model(self, folder: Path) -> None:
        self.reward.save(folder)


@one_blas_thread()
def measured(reward: RewardModel, pairs: Sequence[Pair]) -> dict[str, float]:
    """Mean loss, accuracy and margin of pairs."""
    chosen, rejected = (reward.of_tokens(texts) for texts in zip(*pairs, strict=True))
    loss = op.preference_loss.forward(chosen, rejected)[0]
    return {"loss": loss, "accuracy": accuracy(chosen, rejected), "margin": float(np.mean(chosen - rejected))}


def reward_model(
    model: DeepSeekV3, pairs: Iterable[tuple[Prompt, Prompt, Prompt]], say: Say = say, **settings: Any
) -> RewardModel:
    """A reward model, trained on (prompt, chosen, rejected) triples of texts or token ids; ``model`` itself, which it begins as
    a copy of, stays as it is. Give it to ``minids.grpo`` as the reward.

        reward = minids.reward_model(model, [("2 + 2 = ", "4", "5"), ("3 + 5 = ", "8", "9")], epochs=20)
        reward("2 + 2 = ", "4")    # a number; only differences between the answers to a prompt mean something

    ``settings`` are fields of ``RewardConfig``. ``history`` of the result has a line of numbers for each step. The same seed
    gives the same bits.
    """
    if not callable(say):
        raise refuse("say", say, "must be a function that is given a line, such as print")
    if isinstance(pairs, str | bytes) or not isinstance(pairs, Iterable):
        raise refuse("pairs", pairs, "must be a list, each a prompt, the chosen answer and the rejected one")
    config, reward = RewardConfig().replace(**settings), RewardModel.copy_of(model)
    run = RewardRun(reward, divided(reward, list(pairs), config), config, say)
    run.run()
    return reward


def start(
    out: str | Path, checkpoint: str | Path, data: str | Path, config: RewardConfig, say: Say = say, overwrite: bool = False
) -> RewardRun:
    """A new run in the folder ``out``, from the model in ``checkpoint``, on a file of JSON lines."""
    RunFolder.refuse_taken(out, overwrite)
    lines = read_json_lines(data, FIELDS)
    reward = RewardModel.copy_of(readable_model(checkpoint))
    pairs = divided(reward, list(lines.values()), config, list(lines))
    own = {"reward": dataclasses.asdict(config), "pairs": {"path": str(data), "sha256": identity(list(lines.values()))}}
    folder = new_folder(RewardRun.kind, out, checkpoint, reward.model, own, overwrite)
    return RewardRun(reward, pairs, config, say, folder)


def resume(out: str | Path, asked: dict[str, Any], say: Say = say) -> RewardRun:
    """The run in the folder ``out``, from its newest checkpoint. ``asked``: settings given anew, which must be its own; but
    ``data`` says where the pairs are now."""
    with reopened(RewardRun.kind, out) as (folder, described):
        try:
            config, was, source = RewardConfig(**described["reward"]), described["pairs"], described["init_from"]
            data, known, sha256 = asked.get("data", was["path"]), {**described["reward"], "checkpoint": source}, was["sha256"]
        except (KeyError, TypeError) as error:
            not_ours(folder, error)
        check_same({name: value for name, value in asked.items() if name != "data"}, known)
        lines = read_json_lines(data, FIELDS)
        if identity(list(lines.values())) != sha256:
            raise refuse("data", str(data), "holds other pairs than the run began with; give those back, or start another")
        checkpoint = folder.newest(say)
        reward = RewardModel.load(checkpoint) if checkpoint else RewardModel.copy_of(readable_model(source))
        return RewardRun(reward, divided(reward, list(lines.values()), config, list(lines)), config, say, folder, checkpoint)


def divided(reward: RewardModel, triples: list[Sequence[Prompt]], config: RewardConfig, names: Sequence[str] = ()) -> Pairs:
    """(prompt, chosen, rejected) triples as token ids, some prompts held out. ``names``: how each is called where it is
    refused, if not pairs[0], pairs[1] …"""
    found, prompts = [], []
    for number, triple in enumerate(triples):
        where = names[number] if names else f"pairs[{number}]"
        if not isinstance(triple, tuple | list) or len(triple) != 3:
            raise refuse(where, triple, "must be a prompt, the chosen answer and the rejected one")
        prompt, *answers = triple
        pair = Pair(*(reward.encoded(prompt, answer, where) for answer in answers))
        if np.array_equal(*pair):
            raise MinidsError(f"{where}: chosen and rejected are the same answer, so there is nothing to learn")
        found.append(pair)
        prompts.append(prompt if isinstance(prompt, str) else tuple(np.ravel(prompt).tolist()))
    if not found:
        raise refuse("pairs", [], "must hold at least one pair of answers")
    different = list(dict.fromkeys(prompts))
    order = np.random.default_rng([config.seed, 1]).permutation(len(different))
    kept_back = {different[i] for i in order[: round(config.validation_share * len(different))]}
    if len(kept_back) == len(different):
        because = f"leaves none of {len(different)} prompts to learn from; give more pairs, or lower it"
        raise refuse("validation_share", config.validation_share, because)
    sides: tuple[list[Pair], list[Pair]] = ([], [])
    for pair, asked in zip(found, prompts, strict=True):
        sides[asked in kept_back].append(pair)
    return Pairs(*sides)
