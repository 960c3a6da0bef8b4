"""AdamW with gradient clipping, as DeepSeek-V3 uses it; and Muon, as its relatives Moonlight and Kimi-K2 do.

AdamW (section 4.2: β = 0.9, 0.95, decay 0.1, clip norm 1.0), over the flat arrays:

    m ← β₁ m + (1 − β₁) g                 m̂ = m / (1 − β₁ᵗ)
    v ← β₂ v + (1 − β₂) g²                v̂ = v / (1 − β₂ᵗ)
    θ ← θ − η ( m̂ / (√v̂ + ε) + w θ )      w only for matrices

Loshchilov & Hutter 2019, algorithm 2. Before that, the gradient of *all* parameters is scaled to norm 1 where it is longer.
Norm gains and biases are not decayed: pulling a gain towards 0 would shrink the signal, not simplify the map.

Muon (``ops/muon.py``) takes the matrices between hidden spaces, routers and every single expert among them, and leaves
embedding, head and vectors to AdamW, with one learning rate for both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from minids.backend import op
from minids.blas import one_blas_thread
from minids.config import TrainConfig
from minids.layers.parameters import Array, Parameter, Parameters
from minids.ops import bfloat16
from minids.training.workers import Workers, pieces

PARTIAL_SUMS = 16
"""Of the gradient's norm. Their number is fixed so that the norm has the same bits whatever the number of threads."""


class Stretch(NamedTuple):
    """Neighbouring parameters that AdamW treats alike."""

    place: slice  # in the flat arrays of all parameters
    first: slice  # in ``AdamW.m``
    second: slice  # in ``AdamW.v``
    decayed: bool

    def part(self, index: int, count: int) -> Stretch:
        piece = pieces(self.place.stop - self.place.start, count)[index]
        place, first, second = (slice(s.start + piece.start, s.start + piece.stop) for s in self[:3])
        return Stretch(place, first, second, self.decayed)


class AdamW:
    """Moments of the parameters that it ``takes``, and one step at a time. ``within``: the parts of the flat arrays that are
    updated here, if not all; a process that shares the work with others keeps the moments of its own part alone."""

    def __init__(
        self,
        parameters: Parameters,
        config: TrainConfig,
        within: Sequence[slice] | None = None,
        takes: Callable[[Parameter], bool] = lambda p: True,
    ):
        self.parameters, self.config = parameters, config
        self.within = [slice(0, parameters.values.size)] if within is None else list(within)
        self.steps_taken = 0
        self.stretches = _stretches([p for p in parameters if takes(p)], self.within)
        kept = np.uint16 if config.moments == "bf16" else parameters.values.dtype
        self.m = np.zeros(sum(part.stop - part.start for part in self.within), kept)  # (P,) first moment
        self.v = np.zeros(self.stretches[-1].second.stop if self.stretches else 0, kept)  # second moment of what AdamW takes

    @one_blas_thread()
    def step(self, learning_rate: float, workers: Workers | None = None) -> float:
        """Clip, then update every parameter from its gradient → the gradient's norm before clipping. Where that is no number
        nothing is updated: the weights stay the last good ones. How many ``workers`` share the work changes no bit."""
        norm, clip = self._norm(workers), self.config.clip_norm
        if math.isfinite(norm):
            self.steps_taken += 1
            self._update(learning_rate, min(1.0, clip / norm) if clip and norm > 0 else 1.0, workers)
        return norm

    def _norm(self, workers: Workers | None) -> float:
        """Of the gradient: the root of partial sums that are the same, and added in the same order, whoever forms them."""
        grads = self.parameters.grads
        parts = pieces(grads.size, PARTIAL_SUMS)
        return math.sqrt(sum(_share_out(workers, lambda part: op.adamw.squared_norm(grads[part]), lambda _: parts)))

    def _update(self, learning_rate: float, scale: float, workers: Workers | None) -> None:
        c, p = self.config, self.parameters

        def update(share: list[Stretch]) -> None:
            for place, first, second, decayed in share:
                arrays = p.values[place], p.grads[place], self.m[first], self.v[second]
                decay = c.weight_decay if decayed else 0.0
                op.adamw.update(*arrays, learning_rate, c.beta1, c.beta2, c.adam_eps, decay, self.steps_taken, scale)

        _share_out(workers, update, lambda count: [[s.part(i, count) for s in self.stretches] for i in range(count)])

    def state(self) -> dict[str, Array]:
        """What a resumed run needs, besides the values themselves."""
        m, v = (bfloat16.decode(a) if a.dtype == np.uint16 else a for a in (self.m, self.v))  # as numbers, whatever holds them
        return {"m": m, "v": v, "steps_taken": np.array(self.steps_taken, dtype=np.int64)}

    def restore(self, state: dict[str, Array]) -> None:
        for kept, name in ((self.m, "m"), (self.v, "v")):
            kept[...] = bfloat16.encode(state[name]) if kept.dtype == np.uint16 else state[name]
        self.steps_taken = int(state["steps_taken"])


Portion = dict[tuple[int, ...], list[slice]]  # matrices: (out, in) → where in the flat arrays those of this shape are


class Muon(AdamW):
    """Muon for the matrices between hidden spaces, AdamW for the rest. ``m`` holds Muon's momentum and AdamW's first moment."""

    def __init__(self, parameters: Parameters, config: TrainConfig, within: Sequence[slice] | None = None):
        super().__init__(parameters, config, within, takes=lambda p: not is_hidden_matrix(p))

    def _update(self, learning_rate: float, scale: float, workers: Workers | None) -> None:
        super()._update(learning_rate, scale, workers)
        c, p = self.config, self.parameters

        def update(portion: Portion) -> None:
            for out_in, places in portion.items():
                values, grads = ([a[x].reshape(-1, *out_in) for x in places] for a in (p.values, p.grads))
                momenta = [self.m[first].reshape(-1, *out_in) for x in places for _, first in inside(x, self.within)]
                op.muon.update(values, grads, momenta, learning_rate, c.muon_momentum, c.weight_decay, scale, c.muon_rounds)

        _share_out(workers, update, lambda count: portions(self._matrices(), count))

    def _matrices(self) -> Iterator[Parameter]:
        """Those that lie within; of stacked ones those that do."""
        for p in filter(is_hidden_matrix, self.parameters):
            for place, _ in inside(p.place, self.within):
                found = Parameter(p.name, (-1, *p.shape[-2:]), p.init)
                found.place = place
                yield found


def optimizer(parameters: Parameters, config: TrainConfig, within: Sequence[slice] | None = None) -> AdamW:
    return {"adamw": AdamW, "muon": Muon}[config.optimizer](parameters, config, within)


def is_hidden_matrix(p: Parameter) -> bool:
    """Whether Muon takes a parameter: all matrices but embeddings and heads, as in Moonlight."""
    return len(p.shape) >= 2 and not p.name.endswith(("embed_tokens.weight", "lm_head.weight", "shared_head.head.weight"))


def portions(matrices: Iterable[Parameter], count: int) -> list[Portion]:
    """All ``matrices`` in ``count`` portions of about equal work. No matrix needs another one, so the experts of a layer, each
    of them a matrix, are parted; what cannot be parted goes, the largest first, to whoever has least so far."""
    found: list[Portion] = [{} for _ in range(count)]
    loads = [0] * count  # of each portion

    def work(p: Parameter) -> int:
        small, large = sorted(p.shape[-2:])
        return small * small * (2 * large + small)  # of a round: X Xᵀ, its square, and that times X

    for p in sorted(matrices, key=work, reverse=True):
        size = math.prod(p.shape[-2:])
        each, left = divmod((p.place.stop - p.place.start) // size, count)
        least = sorted(range(count), key=lambda i: loads[i])[:left]
        at = p.place.start
        for taker, taken in [(i, each) for i in range(count) if each] + [(i, 1) for i in least]:
            loads[taker] += taken * work(p)
            found[taker].setdefault(p.shape[-2:], []).append(slice(at, at + taken * size))
            at += taken * size
    return found


def _share_out(workers: Workers | None, work: Callable, shares: Callable[[int], list]) -> list:
    """``work`` on each of ``shares(count)``, by ``count`` threads where there are some."""
    return workers.share_out(work, shares(workers.count)) if workers else [work(share) for share in shares(1)]


def inside(place: slice, within: Sequence[slice]) -> Iterator[tuple[slice, slice]]:
    """What of ``place`` lies in the parts ``within`` → each piece, and where it is when these lie one behind another."""
    before = 0
    for part in within:
        start, stop = max(place.start, part.start), min(place.stop, part.stop)
        if start < stop:
            yield slice(start, stop), slice(before + start - part.start, before + stop - part.start)
        before += part.stop - part.start


def _stretches(parameters: list[Parameter], within: Sequence[slice]) -> list[Stretch]:
    """AdamW's parameters as few slices: it is one pass over contiguous memory where it can be."""
    found: list[Stretch] = []
    at = 0
    for p in sorted(parameters, key=lambda p: p.place.start):
        for place, first in inside(p.place, within):
            second = slice(at, at + place.stop - place.start)
            new = Stretch(place, first, second, len(p.shape) >= 2)
            last = found[-1] if found else None
            if last and last.place.stop == place.start and last.first.stop == first.start and last.decayed == new.decayed:
                place, first, both = (slice(a.start, b.stop) for a, b in zip(last[:3], new[:3], strict=True))
                found[-1] = Stretch(place, first, both, new.decayed)
            else:
                found.append(new)
            at = second.stop
    return found
