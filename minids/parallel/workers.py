"""Data parallelism: each rank has some sequences of every batch, and gradients are summed over the ranks.

All ranks draw the same batch and take their own sequences of it. Worker i of all workers has the same sequences whichever rank
it belongs to, and the sums are formed in the order of the workers (``Communicator.sum_``): four ranks with one thread, two with
two and one with four make the same bits.

The gradients of a batch are summed when they are needed: by the optimizer, which with ZeRO-1 asks for its own share of them
alone, or before the next micro-batch, whose gradients the first worker adds to them, as a single process does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minids.errors import refuse
from minids.layers.parameters import Array
from minids.model import DeepSeekV3, Losses
from minids.parallel.communicator import Communicator, gathered_bytes
from minids.parallel.parts import Part
from minids.training.workers import Workers, weighted


class RankWorkers(Workers):
    """The threads of one rank among several."""

    def __init__(self, model: DeepSeekV3, count: int, ranks: Communicator, parts: Sequence[Part]):
        super().__init__(model, count)
        self.ranks, self.parts = ranks, parts
        self._numbers: list[int] | None = None  # of gradients of each rank that are to be summed; None: they are

    def greatest(self, of_each: Array) -> Array:
        return np.max(self.ranks.all_gather(super().greatest(of_each)), axis=0)

    def zero_grads(self) -> None:
        super().zero_grads()
        self._numbers = None

    def end_amaxes(self) -> None:
        for name, history in self.models[0].parameters.histories.items():
            seen = [model.parameters.histories[name].seen for model in self.models]
            everyone = gathered_bytes(self.ranks, json.dumps(seen).encode())
            history.end_step([each for found in everyone for each in json.loads(found)])

    def forward_backward(
        self,
        tokens: Array,
        targets: Array,
        weight: float,
        mtp_loss_weight: float,
        how: Mapping[str, Any] | None = None,
        mtp: bool = True,
    ) -> Losses:
        """As of a single process; ``tokens`` and ``targets`` (B, T) are the whole batch, the same on all ranks."""
        if how is not None:
            raise refuse("how", sorted(how), "looks at the batch as a whole, which several processes part; train on one")
        self.sum_gradients()
        everyone = self.ranks.size * self.count
        active = min(everyone, len(tokens))  # workers that get sequences
        first = min(self.ranks.rank * self.count, active)
        mine = slice(first, min(first + self.count, active))
        parts, goals = (np.array_split(array, active) for array in (tokens, targets))
        shares = [len(part) / len(tokens) for part in parts]
        models = self.models[: mine.stop - mine.start]

        for part in self.parts:
            for model in models[part.ranks.rank == 0 :] or self.models[:1] * bool(part.ranks.rank):
                model.parameters.grads[part.place] = 0  # but the first worker of all adds to what there is

        def work(model: DeepSeekV3, part: Array, goal: Array, share: float) -> Losses:
            return model.forward_backward(part, goal, weight * share, mtp_loss_weight, mtp)

        losses = self.share_out(work, models, parts[mine], goals[mine], shares[mine])
        if not models:
            self._idle(mtp)
        self._numbers = [max(0, min(self.count, active - rank * self.count)) for rank in range(self.ranks.size)]
        return weighted(self._gathered(losses, mtp), shares)

    def sum_gradients(self) -> None:
        """Those of the last batch, over all ranks, into everyone's."""
        if self._numbers is not None:
            for part in self.parts:
                own, *others = self._given(part)
                part.ranks.sum_(own, *others, numbers=self._of(part))
            self._numbers = None

    def scatter_gradients(self, bounds: Sequence[Sequence[int]]) -> None:
        """The same, but only what lies between this rank's bounds, of those of each part, is then right."""
        if self._numbers is None:  # they are summed already
            return
        for part, its in zip(self.parts, bounds, strict=True):
            piece = part.ranks.reduce_scatter(self._given(part), its, self._of(part))
            own = slice(part.place.start + its[part.ranks.rank], part.place.start + its[part.ranks.rank + 1])
            self.models[0].parameters.grads[own] = piece
        self._numbers = None

    def _given(self, part: Part) -> list[Array]:
        return [model.parameters.grads[part.place] for model in self.models]

    def _of(self, part: Part) -> list[int]:
        """How many gradients each of the part's ranks gives."""
        assert self._numbers is not None
        return [1 if part.always else self._numbers[rank] for rank in part.ranks.members]

    def _idle(self, mtp: bool) -> None:
        """Without a sequence of the batch: this rank's experts still serve the others' tokens, in all layers' order."""
        layers = [layer for layer in self.models[0].moe_layers_at_work(mtp) if layer.exchange]
        for backward in reversed([layer.exchange.idle(layer) for layer in layers if layer.exchange]):
            backward()

    def _gathered(self, losses: list[Losses], mtp: bool) -> list[Losses]:
        """This rank's workers' losses → all workers', in order. Counts travel as float64, which holds them exactly."""
        model = self.models[0]
        layers, depths = len(model.moe_layers_at_work(mtp)), len(model.mtp) * mtp
        experts = model.config.n_routed_experts
        rows = np.zeros((self.count, 4 + depths + layers * experts))
        for row, each in zip(rows, losses, strict=False):
            row[:] = (1, each.total, each.main, each.balance, *each.mtp, *each.counts.reshape(-1))
        found = []
        for there, total, main, balance, *rest in np.concatenate(self.ranks.all_gather(rows)):
            if there:
                counts = np.array(rest[depths:], np.int64).reshape(layers, experts)
                found.append(Losses(float(total), float(main), tuple(map(float, rest[:depths])), float(balance), counts))
        return found
