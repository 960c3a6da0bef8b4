"""Where what a rank holds lies in the arrays of the whole model.

A checkpoint is written, and read, by any number of ranks: everything in it is laid out as a single process has it. Without
expert parallelism every rank has that layout too. With it a rank's arrays hold what all ranks have, then its own experts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minids.config import ModelConfig
from minids.layers.parameters import Array, Parameter, Parameters
from minids.model import DeepSeekV3
from minids.parallel.communicator import Communicator


def is_expert(p: Parameter) -> bool:
    """Whether a parameter is a stack of routed experts, (E, out, in)."""
    return ".experts." in p.name


class Placement:
    """Of the ``parameters`` of this rank. Among ``ranks`` rank r holds the experts bounds[r] … bounds[r + 1] − 1 of a layer."""

    def __init__(self, config: ModelConfig, parameters: Parameters, ranks: Communicator, bounds: Sequence[int]):
        self.ranks, self.bounds, self.parameters = ranks, bounds, parameters
        self.whole = DeepSeekV3.declared(config)
        self.total = self.whole.lay_out()

    def gathered(self, own: Array) -> Array:
        """``own``, laid out as this rank's parameters → as the whole model's, from what all ranks have."""
        if self.ranks.size == 1:
            return own
        whole, stacks = np.empty(self.total, own.dtype), [p for p in self.parameters if is_expert(p)]
        for p in self.parameters:
            if not is_expert(p):
                whole[self.whole[p.name].place] = own[p.place]
        # Each rank's experts one behind another: stack after stack, then the next rank's.
        each = [sum(self.whole[p.name].size // self.bounds[-1] for p in stacks) * n for n in np.diff(self.bounds)]
        ends = np.cumsum([0, *each]).tolist()
        travelled, rank = np.empty(ends[-1], own.dtype), self.ranks.rank
        if stacks:
            travelled[ends[rank] : ends[rank + 1]] = np.concatenate([own[p.place] for p in stacks])
        self.ranks.all_gather_into(travelled, ends)
        for sender in range(self.ranks.size):
            at = ends[sender]
            for p in stacks:
                place = self._of_stack(p.name, sender)
                whole[place] = travelled[at : at + place.stop - place.start]
                at += place.stop - place.start
        return whole

    def own(self, whole: Array) -> Array:
        """The other way; no rank is asked."""
        if self.ranks.size == 1:
            return whole
        own = np.empty(self.parameters.values.size, whole.dtype)
        for p in self.parameters:
            place = self._of_stack(p.name, self.ranks.rank) if is_expert(p) else self.whole[p.name].place
            own[p.place] = whole[place]
        return own

    def _of_stack(self, name: str, rank: int) -> slice:
        """Where in the whole model's arrays the experts of a ``rank`` lie, of the stack of this name."""
        place = self.whole[name].place
        each = (place.stop - place.start) // self.bounds[-1]
        return slice(place.start + self.bounds[rank] * each, place.start + self.bounds[rank + 1] * each)


def keep_own_experts(model: DeepSeekV3, placement: Placement) -> None:
    """Let go of all experts but this rank's: weights, gradients, and what an optimizer will keep of them."""
    parameters, (first, stop) = model.parameters, placement.bounds[placement.ranks.rank :][:2]
    before = {p.name: p.value[first:stop] if is_expert(p) else p.value for p in parameters}
    for p in filter(is_expert, parameters):
        p.shape = (stop - first, *p.shape[1:])
    parameters.allocate(model.dtype, last=is_expert)
    for p in parameters:
        p.value[...] = before[p.name]
