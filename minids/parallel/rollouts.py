"""Rollouts of GRPO, shared among ranks: each answers some of the questions, and all get all answers.

Every rank has the same generator. A token's draws are taken from it for all answers that are still being written, in their
order, and each rank uses those of its own: the answers are those of a single process. So ranks that are done draw on with the
others.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from minids.inference.generate import Ending
from minids.layers.parameters import Array
from minids.model import IGNORE, DeepSeekV3
from minids.parallel.communicator import Communicator, even_bounds, gathered_bytes
from minids.training.rollout import Rollouts, sample


class SharedGenerator:
    """``random(n)`` gives n numbers of those that all ranks take together from ``rng``, in the order of the ranks."""

    def __init__(self, ranks: Communicator, rng: np.random.Generator):
        self.ranks, self.rng = ranks, rng

    def random(self, count: int) -> Array:
        return self._taken(count)[0]

    def done(self) -> None:
        """Go on drawing nothing until no rank draws any more."""
        while self._taken(0)[1]:
            pass

    def _taken(self, count: int) -> tuple[Array, int]:
        ends = np.cumsum([int(each[0]) for each in self.ranks.all_gather(np.array([count]))])
        numbers = self.rng.random(int(ends[-1]))
        return numbers[ends[self.ranks.rank] - count : ends[self.ranks.rank]], len(numbers)


def shared(
    ranks: Communicator,
    model: DeepSeekV3,
    questions: Sequence[Sequence[int]],
    group: int,
    max_new_tokens: int,
    temperature: float,
    ending: Ending,
    rng: np.random.Generator,
    **more: Any,
) -> Rollouts:
    """``training.rollout.sample``, by all ranks, which call this alike."""
    bounds = even_bounds(len(questions), ranks.size)
    first, stop = bounds[ranks.rank], bounds[ranks.rank + 1]
    drawing, own = SharedGenerator(ranks, rng), None
    if first < stop:
        own = sample(model, questions[first:stop], group, max_new_tokens, temperature, ending, drawing, **more)
    drawing.done()
    found = [_unpacked(each) for each in gathered_bytes(ranks, _packed(own)) if each]
    longest = max(part.tokens.shape[1] for part in found)
    parts = [_of_length(part, longest, model.config.num_experts_per_tok) for part in found]
    starts = [start for start, end in pairwise(bounds) if start < end]
    groups = np.concatenate([part.groups + start for part, start in zip(parts, starts, strict=True)])
    whole = {name: _joined([getattr(part, name) for part in parts]) for name in Rollouts._fields}
    return Rollouts(**whole | {"groups": groups})


def _joined(values: list) -> Any:
    """One behind another: arrays, lists of them, or nothing."""
    if values[0] is None:
        return None
    if isinstance(values[0], list):
        return [np.concatenate(arrays) for arrays in zip(*values, strict=True)]
    return np.concatenate(values)


def _of_length(part: Rollouts, longest: int, top_k: int) -> Rollouts:
    """Filled up as ``sample`` fills up the shorter answers."""
    more = ((0, 0), (0, longest - part.tokens.shape[1]))
    tokens, targets = np.pad(part.tokens, more), np.pad(part.targets, more, constant_values=IGNORE)
    filling = np.tile(np.arange(top_k), (len(tokens), more[1][1], 1))
    return part._replace(tokens=tokens, targets=targets, chosen=[np.concatenate((c, filling), axis=1) for c in part.chosen])


def _packed(part: Rollouts | None) -> bytes:
    if part is None:
        return b""
    stream, fields = io.BytesIO(), part._asdict()
    layers = {f"layer {i}": layer for i, layer in enumerate(fields.pop("chosen"))}
    np.savez(stream, **{name: value for name, value in (fields | layers).items() if value is not None})
    return stream.getvalue()


def _unpacked(found: bytes) -> Rollouts:
    with np.load(io.BytesIO(found)) as file:
        held = {name: file[name] for name in file.files}
    layers = [held.pop(name) for name in sorted((n for n in held if n.startswith("layer ")), key=lambda n: int(n[6:]))]
    return Rollouts(**{name: held.get(name) for name in Rollouts._fields} | {"chosen": layers})
