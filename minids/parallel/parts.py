"""Which parameters are held by which ranks, and which share of them is this rank's to update.

Without expert parallelism every rank holds all parameters: one part, which all ranks share. With it the flat arrays of a rank
hold what all ranks have, and behind it its own experts, which only the ranks with the same experts share: two parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from minids.layers.parameters import Parameters
from minids.parallel.communicator import Communicator, even_bounds
from minids.training.optimizer import is_hidden_matrix


class Part(NamedTuple):
    """Neighbouring parameters in the flat arrays of this rank that the same ``ranks`` hold copies of."""

    place: slice
    ranks: Communicator
    always: bool = False  # each rank has gradients of them, even where it has no sequence of a batch: of others' tokens

    @property
    def size(self) -> int:
        return self.place.stop - self.place.start


def shard_bounds(part: Part, parameters: Parameters, whole_matrices: bool) -> list[int]:
    """(ranks + 1,) where, within the part, each rank's share begins. ``whole_matrices``: Muon's are not cut, and a share may be
    larger than another by one of them."""
    bounds = even_bounds(part.size, part.ranks.size)
    if not whole_matrices:
        return bounds
    for p in filter(is_hidden_matrix, parameters):
        first, size = p.place.start - part.place.start, p.shape[-2] * p.shape[-1]
        for i, bound in enumerate(bounds):
            if first < bound < p.place.stop - part.place.start:
                bounds[i] = first + size * round((bound - first) / size)
    return bounds


class Tail(NamedTuple):
    """What a rank passes to another so that a sum over a piece that both hold a part of is formed in one go."""

    owner: int  # of the piece, to whom it goes
    start: int
    stop: int


def tails(bounds: Sequence[int], pieces: Sequence[slice]) -> list[Tail]:
    """``bounds`` (ranks + 1,) of the ranks' shares and ``pieces``, both parting 0 … P → for each rank what it holds of a piece
    that begins before its share, and so belongs to an earlier rank; empty where there is none."""
    found = []
    for rank in range(len(bounds) - 1):
        start, stop = bounds[rank], bounds[rank + 1]
        piece = next((p for p in pieces if p.start < start < p.stop), None)
        if piece is None or start == stop:
            found.append(Tail(rank, start, start))
        else:
            found.append(Tail(owner_of(piece.start, bounds), start, min(stop, piece.stop)))
    return found


def owner_of(place: int, bounds: Sequence[int]) -> int:
    """The rank whose share holds ``place``; the last one that holds something, for a place behind the end."""
    return min(int(np.searchsorted(bounds, place, side="right")) - 1, int(np.searchsorted(bounds, bounds[-1])) - 1)
