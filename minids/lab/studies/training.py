"""How the studies train: the loop of ``minids train`` without a folder, samples or checkpoints.

Runs of different arms with the same seed see the same batches in the same order: the text has a generator of its own, apart
from that of the initial weights, whose number differs from arm to arm.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

import numpy as np
from threadpoolctl import threadpool_limits

from minids.config import ModelConfig, TrainConfig
from minids.errors import refuse
from minids.lab.analysis.routing import PermutationTest, specialisation_test
from minids.lab.analysis.routing_trace import Recorder
from minids.layers.parameters import Array, Parameters
from minids.model import DeepSeekV3, Losses
from minids.training.batches import Batches, validation_windows
from minids.training.corpus import load_corpus
from minids.training.evaluate import score
from minids.training.loop import Optimizer, Supply, training_steps
from minids.training.optimizer import AdamW
from minids.training.short_context import supply
from minids.training.text import Text, tokenizer_for
from minids.training.workers import Workers, useful_workers

MakeOptimizer = Callable[[Parameters, TrainConfig], Optimizer]
Steps = Iterator[tuple[int, Losses, DeepSeekV3]]  # the step, counted from 1, its losses, the model after it


@cache
def text(
    data: tuple[str, ...] = ("builtin",), validation_share: float = 0.1, tokens: Literal["bytes", "chars"] = "bytes"
) -> Text:
    """The corpus that ``data`` names, by bytes or by the characters of its training part, read once per process."""
    training, held_out = load_corpus(list(data)).split(validation_share)
    return Text.encode(training, held_out, tokenizer_for(training, tokens))


@dataclass
class Curves:
    """Up to ``points`` values of each name along a run of ``steps`` steps, each the mean since the point before."""

    steps: int
    points: int = 40
    values: dict[str, list[float]] = field(default_factory=lambda: {"step": []})
    _waiting: list[dict[str, float]] = field(default_factory=list)

    def add(self, step: int, **numbers: float) -> None:
        """The numbers of step ``step``, counted from 1."""
        self._waiting.append(numbers)
        if step == self.steps or step * self.points // self.steps > (step - 1) * self.points // self.steps:
            self.values["step"].append(step)
            for name in numbers:
                self.values.setdefault(name, []).append(float(np.mean([line[name] for line in self._waiting])))
            self._waiting.clear()


def train(
    config: ModelConfig, run: TrainConfig, text: Text, seed: int, on_step: Callable[[int, Losses, DeepSeekV3], None],
    optimizer: MakeOptimizer = AdamW, threads: int = 1,
) -> DeepSeekV3:  # fmt: skip
    """Train a new model from scratch; ``on_step(step, losses, model)`` is called after each step, counted from 1.

    The vocabulary is the tokenizer's. The same arguments give the same bits. Raises ``Diverged``.
    """
    for step, losses, model in training(config, run, text, seed, optimizer, threads):
        on_step(step, losses, model)
    return model


def training(
    config: ModelConfig, run: TrainConfig, text: Text, seed: int, optimizer: MakeOptimizer = AdamW, threads: int = 1
) -> Steps:
    """``train`` step by step, as they are asked for."""
    tokenizer = text.tokenizer
    config = config.replace(vocab_size=tokenizer.vocab_size, bos_token_id=tokenizer.bos_id, eos_token_id=tokenizer.eos_id)
    model = DeepSeekV3(config, np.random.default_rng([seed, 0]))
    batches = Batches(text.training, run.batch_size, run.context_length, np.random.default_rng([seed, 1]))
    yield from training_further(model, run, supply(batches, run), optimizer, threads)


def training_further(
    model: DeepSeekV3, run: TrainConfig, batches: Supply, optimizer: MakeOptimizer = AdamW, threads: int = 1
) -> Steps:
    """The steps of ``run`` on a model as it stands, on any batches, with a schedule and an optimizer of their own."""
    model.recompute = run.recompute
    with Workers(model, useful_workers(model, run.batch_size, threads)) as workers:
        for done in training_steps(model, optimizer(model.parameters, run), batches, run, workers):
            yield done.step, done.losses, model


@dataclass(frozen=True)
class Validation:
    """The same number of tokens of each domain."""

    loss: dict[str, float]  # domain → nats per token
    routed: dict[str, Array]  # domain → tokens of each sequence by expert, (S, MoE layers, E), MTP modules left out

    @property
    def mean_loss(self) -> float:
        """Nats per token, every domain counting the same."""
        return float(np.mean(list(self.loss.values())))

    @property
    def domain_counts(self) -> Array:
        """(D, MoE layers, E) tokens that each expert got from each domain."""
        return np.array([counts.sum(axis=0) for counts in self.routed.values()])

    @property
    def counts(self) -> Array:
        """(MoE layers, E) over all domains."""
        return self.domain_counts.sum(axis=0)

    def specialisation_test(self) -> PermutationTest:
        """Whether the domains use different experts."""
        labels = np.repeat(np.arange(len(self.routed)), [len(counts) for counts in self.routed.values()])
        return specialisation_test(np.concatenate(list(self.routed.values())), labels)


def validate(model: DeepSeekV3, text: Text, run: TrainConfig) -> Validation:
    """Loss and expert load on held-out text, ``run.eval_tokens`` per domain at most. The model and its biases stay."""
    loss, routed = {}, {}
    for domain, batches in validation_batches(text, run).items():
        with threadpool_limits(1, user_api="blas"), Recorder([model]) as recorder:
            loss[domain] = score(model, batches, text.tokenizer)["loss"]
        routed[domain] = recorder.trace(np.concatenate([tokens for tokens, _ in batches])).counts_by_sequence()
    return Validation(loss, routed)


def validation_batches(text: Text, run: TrainConfig) -> dict[str, list[tuple[Array, Array]]]:
    """Domain → batches of (tokens, targets), each (≤ B, T), as much of every domain, in whole windows."""
    shortest = min(len(stream) - 1 for stream in text.held_out.values())
    most = min(run.eval_tokens, shortest) // run.context_length * run.context_length  # padding would load experts too
    if not most:
        raise refuse("context_length", run.context_length, f"a domain has only {shortest} tokens for validation")
    return {
        domain: list(validation_windows(stream.tokens, run.batch_size, run.context_length, most))
        for domain, stream in text.held_out.items()
    }
