"""ZeRO-1: the optimizer's moments, and the work of the update, are parted among the ranks.

    reduce-scatter      each rank gets the sum of the gradients of its own share of the weights
    update              of that share, by AdamW or Muon, whose moments of it this rank alone keeps: 1/R of them
    all-gather          everyone's share of the new weights to everyone

Rajbhandari et al. 2020, stage 1; DeepSeek-V3 section 3.2. The gradient's norm is that of all shares. To have the bits of a
single process its partial sums are formed over the same pieces: where a piece lies on several ranks, those behind the first
send it what they hold of it.

Without ZeRO-1 (``sharded=False``) every rank has all gradients and all moments of what it holds, and makes the same update.
"""

from __future__ import annotations

import math

import numpy as np

from minids.backend import op
from minids.config import TrainConfig
from minids.layers.parameters import Array, Parameters
from minids.ops import bfloat16
from minids.parallel.parts import Part, owner_of, shard_bounds, tails
from minids.parallel.placement import Placement
from minids.parallel.workers import RankWorkers
from minids.training.optimizer import PARTIAL_SUMS, AdamW, Muon, inside, is_hidden_matrix
from minids.training.workers import Workers, pieces


class Zero(AdamW):
    """What ``ZeroAdamW`` and ``ZeroMuon`` add to AdamW and Muon."""

    def __init__(
        self, parameters: Parameters, config: TrainConfig, parts: list[Part], placement: Placement, sharded: bool = True
    ):
        self.parts, self.placement, self.sharded = parts, placement, sharded
        whole_matrices = config.optimizer == "muon"
        self.bounds = [shard_bounds(part, parameters, whole_matrices) for part in parts]
        within = [self._share(part, its) for part, its in zip(parts, self.bounds, strict=True)] if sharded else None
        super().__init__(parameters, config, within)

    @staticmethod
    def _share(part: Part, bounds: list[int]) -> slice:
        rank, start = part.ranks.rank, part.place.start
        return slice(start + bounds[rank], start + bounds[rank + 1])

    def step(self, learning_rate: float, workers: Workers | None = None) -> float:
        assert isinstance(workers, RankWorkers)
        if self.sharded:
            workers.scatter_gradients(self.bounds)
        else:
            workers.sum_gradients()
        norm = super().step(learning_rate, workers)
        if self.sharded and math.isfinite(norm):
            self._gather_into(self.parameters.values)
        return norm

    def gather_gradients(self) -> None:
        """Where ``step`` has left each rank with those of its own share: everyone's to everyone."""
        if self.sharded:
            self._gather_into(self.parameters.grads)

    def _gather_into(self, flat: Array) -> None:
        for part, bounds in zip(self.parts, self.bounds, strict=True):
            part.ranks.all_gather_into(flat[part.place], bounds)

    def _norm(self, workers: Workers | None) -> float:
        assert workers is not None
        total = 0.0
        for i, (part, bounds) in enumerate(zip(self.parts, self.bounds, strict=True)):
            squares = self._squares(part, bounds, workers)
            if i:  # the second part: every rank's own experts
                squares = float(sum(each[0] for each in self.placement.ranks.all_gather(np.array([squares]))))
            total = squares if not i else total + squares
        return math.sqrt(total)

    def _squares(self, part: Part, bounds: list[int], workers: Workers) -> float:
        """Σ g² of a part: partial sums over ``PARTIAL_SUMS`` pieces, each formed by one rank, added in order by all."""
        grads, ranks, its = self.parameters.grads[part.place], part.ranks, pieces(part.size, PARTIAL_SUMS)
        if not self.sharded:
            return sum(workers.share_out(lambda piece: op.adamw.squared_norm(grads[piece]), its))
        passed = tails(bounds, its)
        own, rank = passed[ranks.rank], ranks.rank
        out, came = np.zeros(ranks.size, np.int64), np.zeros(ranks.size, np.int64)
        out[own.owner] = own.stop - own.start
        for sender, tail in enumerate(passed):
            came[sender] = (tail.stop - tail.start) * (tail.owner == rank)
        behind = ranks.all_to_all_v(grads[own.start : own.stop], out, came)

        def square(piece: slice) -> float:
            held = grads[piece.start : min(piece.stop, bounds[rank + 1])]
            return op.adamw.squared_norm(held if piece.stop <= bounds[rank + 1] else np.concatenate([held, behind]))

        owners = [owner_of(piece.start, bounds) for piece in its]
        mine = [i for i, owner in enumerate(owners) if owner == rank]
        sums = np.zeros(PARTIAL_SUMS)
        sums[mine] = workers.share_out(square, [its[i] for i in mine])
        everyone = ranks.all_gather(sums)
        return sum(float(everyone[owner][i]) for i, owner in enumerate(owners))

    def state(self) -> dict[str, Array]:
        """That of a single process, on every rank."""
        m, v = np.zeros(self.parameters.values.size, self.m.dtype), np.zeros(self.parameters.values.size, self.v.dtype)
        for where, first in self._kept():
            m[where] = self.m[first]
        for stretch in self.stretches:
            v[stretch.place] = self.v[stretch.second]
        if self.sharded:
            self._gather_into(m)
            self._gather_into(v)
        m, v = self.placement.gathered(m), self.placement.gathered(v)
        v = np.concatenate([v[p] for p in self._of_adamw()])
        m, v = (bfloat16.decode(a) if a.dtype == np.uint16 else a for a in (m, v))
        return {"m": m, "v": v, "steps_taken": np.array(self.steps_taken, dtype=np.int64)}

    def restore(self, state: dict[str, Array]) -> None:
        whole = np.zeros(self.placement.total, state["v"].dtype)
        at = 0
        for p in self._of_adamw():
            whole[p] = state["v"][at : at + p.stop - p.start]
            at += p.stop - p.start
        m, v = self.placement.own(state["m"]), self.placement.own(whole)
        own = {"m": np.concatenate([m[p] for p, _ in self._kept()]), "v": np.empty(self.v.shape, v.dtype)}
        for stretch in self.stretches:
            own["v"][stretch.second] = v[stretch.place]
        super().restore(own | {"steps_taken": state["steps_taken"]})

    def _kept(self) -> list[tuple[slice, slice]]:
        """Where the first moments are in the flat arrays, and in ``m``."""
        return list(inside(slice(0, self.parameters.values.size), self.within))

    def _of_adamw(self) -> list[slice]:
        """Where, in the whole model's arrays, the parameters are that have a second moment."""
        muon = isinstance(self, Muon)
        return sorted((p.place for p in self.placement.whole if not (muon and is_hidden_matrix(p))), key=lambda s: s.start)


class ZeroAdamW(Zero):
    """AdamW, parted."""


class ZeroMuon(Zero, Muon):
    """Muon, parted between matrices."""
