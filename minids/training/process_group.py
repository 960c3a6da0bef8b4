"""The processes that train a model together, as a run sees them. Here: one process, which does everything itself.

``minids/parallel`` has the group of several. A run asks its group for the threads that form gradients, for the optimizer and
for the model as a whole, has it spread work that can be spread, and lets its first process alone speak and write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from minids.config import ModelConfig, TrainConfig
from minids.layers.parameters import Array, Parameters
from minids.model import DeepSeekV3
from minids.training.optimizer import AdamW, optimizer
from minids.training.rollout import Rollouts, sample
from minids.training.workers import Workers, useful_workers

Item = TypeVar("Item")
Numbers = TypeVar("Numbers", bound=Sequence[float])


class ProcessGroup:
    """One process."""

    first = True  # this process speaks, and writes the run's folder
    size, rank = 1, 0

    def check(self, model: ModelConfig, train: TrainConfig) -> None:
        """Refuse what these processes cannot train."""

    def described(self) -> dict[str, Any]:
        """For a run's description."""
        return {}

    def in_words(self) -> str:
        return "One process"

    def threads(self, model: DeepSeekV3, train: TrainConfig, wanted: int) -> int:
        """Of each process, if ``wanted`` (0: what is best) are asked for."""
        return useful_workers(model, train.batch_size, wanted)

    def parted(self, model: DeepSeekV3) -> DeepSeekV3:
        """A whole model → what this process holds of it."""
        return model

    @contextmanager
    def whole(self, model: DeepSeekV3, gradients: bool = False) -> Iterator[DeepSeekV3]:
        """What the processes hold, as one model, for reading; entered by all of them. Its gradients only if asked for."""
        yield model

    def gathered(self, own: Array, parameters: Parameters) -> Array:
        """``own``, laid out as the ``parameters`` that this process holds → as those of the whole model."""
        return own

    def own(self, whole: Array, parameters: Parameters) -> Array:
        """The other way."""
        return whole

    def workers(self, model: DeepSeekV3, count: int) -> Workers:
        return Workers(model, count)

    def optimizer(self, parameters: Parameters, train: TrainConfig) -> AdamW:
        return optimizer(parameters, train)

    def spread(self, work: Callable[[Item], Numbers], items: Sequence[Item]) -> list[Numbers]:
        """``work`` on all of ``items``, which every process has; every process gets all results, in order. Those of one call
        are as many numbers each."""
        return [work(item) for item in items]

    def sampled(self, model: DeepSeekV3, questions: Sequence[Sequence[int]], *how: Any, **more: Any) -> Rollouts:
        """Answers to questions, by ``training.rollout.sample``; the same on all processes."""
        return sample(model, questions, *how, **more)

    def any(self, flag: bool) -> bool:
        """Whether a process says so."""
        return flag

    def joined_batches(self, batches: Sequence[Sequence[Sequence[Array]]]) -> tuple[Array, ...]:
        """Of each batch, of each thread that had sequences of it, some arrays with one row per sequence, (B', …) → these arrays
        with the rows of all batches, threads and processes, in order; none, if no process has any."""
        return tuple(np.concatenate(arrays) for arrays in zip(*(call for batch in batches for call in batch), strict=True))

    def wait(self) -> None:
        """For all processes to come here."""
