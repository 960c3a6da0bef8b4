"""The verbs by which processes exchange arrays, and the silent communicator of a single process. ``mpi.py`` has the other one.

Every exchange moves bytes and nothing else: sums are formed here, by NumPy, in the order of the ranks. What an MPI library
adds up comes in an order that depends on its algorithm, and that on the size of the message and on the number of ranks; in
floating point another order gives other bits.

Three rules keep ranks from waiting for each other for ever. All ranks call the same verbs in the same order, those too that
have nothing to send: an empty array is sent. One thread of a process calls them. No array is sent from and received into at
once.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from minids.errors import refuse
from minids.layers.parameters import Array


class Exchange(NamedTuple):
    """One call of a verb by this rank."""

    verb: str
    sent: Array  # (ranks of the world,) int64, bytes that went to each, this rank itself included
    seconds: float  # within the call: waiting for the others, and copying
    what: str = ""  # it was for, where the caller says


class Record:
    """What was exchanged while somebody listened; all parts of a world that was ``split`` share it."""

    def __init__(self) -> None:
        self.listeners: list[list[Exchange]] = []

    def note(self, exchange: Exchange) -> None:
        for listener in self.listeners:
            listener.append(exchange)


class Handle:
    """An exchange that has begun. What it sends must not be changed, and what it receives not be read, before ``wait``."""

    def __init__(self, finish: Callable[[], Array | None]):
        self._finish: Callable[[], Array | None] | None = finish
        self._result: Array | None = None

    def wait(self) -> Any:
        """Until it is done → the array that was received; None of one that sends. Again: the same array."""
        if self._finish is not None:
            self._result, self._finish = self._finish(), None
        return self._result


class Communicator(ABC):
    """Ranks 0 … size − 1 that exchange arrays. ``mpi.world()`` gives one."""

    rank: int
    size: int

    def __init__(self, members: Sequence[int], rank: int, ranks_of_world: int, record: Record):
        """``members``: the world's number of each rank."""
        self.members, self.rank, self.size = tuple(members), rank, len(members)
        self._ranks_of_world, self._record = ranks_of_world, record

    # What both kinds share.

    def sum_(self, array: Array, *more: Array, numbers: Sequence[int] | None = None) -> Array:
        """Put into ``array`` on every rank the sum over all ranks, in their order, each rank's ``array`` before its ``more``.
        Of one array per worker, four ranks with one worker, two with two and one with four thus make the same bits.
        ``numbers`` (size,): how many arrays each rank gives, where not all give the same; a rank that gives none passes
        ``array`` to have the sum put there."""
        flat = flat_view(array)
        bounds = even_bounds(flat.size, self.size)
        piece = self.reduce_scatter((array, *more), bounds, numbers)
        flat[bounds[self.rank] : bounds[self.rank + 1]] = piece
        self.all_gather_into(array, bounds)
        return array

    @contextmanager
    def recording(self) -> Iterator[list[Exchange]]:
        """``with communicator.recording() as exchanges``: every exchange of this process in the block, in its order."""
        found: list[Exchange] = []
        self._record.listeners.append(found)
        try:
            yield found
        finally:
            self._record.listeners = [each for each in self._record.listeners if each is not found]

    def _note(self, verb: str, sent: Sequence[int] | Array, began: float, what: str = "") -> None:
        """``sent`` (size,) bytes."""
        if self._record.listeners:
            over_world = np.zeros(self._ranks_of_world, np.int64)
            over_world[list(self.members)] = sent
            self._record.note(Exchange(verb, over_world, time.perf_counter() - began, what))

    # The verbs.

    @abstractmethod
    def reduce_scatter(
        self, addends: Array | Sequence[Array], bounds: Sequence[int], numbers: Sequence[int] | None = None
    ) -> Array:
        """``addends``: one array of P numbers per rank, or several alike; ``bounds`` (size + 1,) part 0 … P among the ranks →
        the sum, in the order of the ranks, of what lies between this rank's bounds: a new array. ``numbers``: see ``sum_``;
        of more arrays than a rank's number the first ones count."""

    @abstractmethod
    def all_gather(self, array: Array) -> list[Array]:
        """``array``, of one shape and type on all ranks → everyone's, in the order of the ranks."""

    @abstractmethod
    def all_gather_into(self, array: Array, bounds: Sequence[int]) -> Array:
        """``array`` of P numbers, of which each rank knows those between its ``bounds`` (size + 1,): fill in the others'."""

    @abstractmethod
    def all_to_all(self, counts: Array) -> Array:
        """``counts`` (size, …): row r goes to rank r → (size, …), row r as rank r sent it."""

    @abstractmethod
    def start_all_to_all_v(
        self, rows: Array, counts_out: Sequence[int] | Array, counts_in: Sequence[int] | Array, what: str = ""
    ) -> Handle:
        """Begin ``all_to_all_v``; other work may be done before ``wait`` gives the rows. ``what``: for the record."""

    def all_to_all_v(self, rows: Array, counts_out: Sequence[int] | Array, counts_in: Sequence[int] | Array) -> Array:
        """``rows`` (n, …): the first counts_out[0] go to rank 0, the next to rank 1, … → those from rank 0, from rank 1, …,
        counts_in[r] from rank r."""
        return self.start_all_to_all_v(rows, counts_out, counts_in).wait()

    def send(self, array: Array, to: int, tag: int = 0) -> None:
        """To one rank, which must ``receive`` it; it may wait for that."""
        self.isend(array, to, tag).wait()

    def receive(self, shape: tuple[int, ...], dtype: DTypeLike, source: int, tag: int = 0) -> Array:
        """What rank ``source`` has sent, of this shape and type."""
        return self.irecv(shape, dtype, source, tag).wait()

    @abstractmethod
    def isend(self, array: Array, to: int, tag: int = 0) -> Handle:
        """Begin to send."""

    @abstractmethod
    def irecv(self, shape: tuple[int, ...], dtype: DTypeLike, source: int, tag: int = 0) -> Handle:
        """Begin to receive; ``wait`` gives the array."""

    @abstractmethod
    def broadcast(self, array: Array, source: int = 0) -> Array:
        """Put rank ``source``'s ``array`` into everyone's, which is of the same shape and type."""

    @abstractmethod
    def barrier(self) -> None:
        """Wait until all ranks are here."""

    @abstractmethod
    def split(self, colour: int) -> Communicator:
        """The ranks that say the same ``colour`` as this one, in their order, as a communicator."""

    @abstractmethod
    def abort(self, code: int = 1) -> None:
        """End all processes of the world, with this exit code."""


class Alone(Communicator):
    """The single rank of a program that runs as one process: every verb gives back what it was given."""

    def __init__(self, record: Record | None = None):
        super().__init__([0], 0, 1, record or Record())
        self._sent: dict[int, list[Array]] = {}  # tag → what this rank sent itself and has not received

    def reduce_scatter(
        self, addends: Array | Sequence[Array], bounds: Sequence[int], numbers: Sequence[int] | None = None
    ) -> Array:
        began, flat = time.perf_counter(), as_addends(addends)[: numbers[0] if numbers else None]
        total = added(flat) if flat else np.zeros_like(as_addends(addends)[0])
        self._note("reduce_scatter", [total.nbytes * len(flat)], began)
        return total

    def all_gather(self, array: Array) -> list[Array]:
        self._note("all_gather", [array.nbytes], time.perf_counter())
        return [array.copy()]

    def all_gather_into(self, array: Array, bounds: Sequence[int]) -> Array:
        self._note("all_gather_into", [array.nbytes], time.perf_counter())
        return array

    def all_to_all(self, counts: Array) -> Array:
        self._note("all_to_all", [counts.nbytes], time.perf_counter())
        return counts.copy()

    def start_all_to_all_v(
        self, rows: Array, counts_out: Sequence[int] | Array, counts_in: Sequence[int] | Array, what: str = ""
    ) -> Handle:
        check_counts(rows, counts_out, counts_in, 1)
        self._note("all_to_all_v", [rows.nbytes], time.perf_counter(), what)
        copied = rows.copy()
        return Handle(lambda: copied)

    def isend(self, array: Array, to: int, tag: int = 0) -> Handle:
        self._sent.setdefault(tag, []).append(array.copy())
        self._note("send", [array.nbytes], time.perf_counter())
        return Handle(lambda: None)

    def irecv(self, shape: tuple[int, ...], dtype: DTypeLike, source: int, tag: int = 0) -> Handle:
        return Handle(lambda: self._sent[tag].pop(0).reshape(shape))

    def broadcast(self, array: Array, source: int = 0) -> Array:
        return array

    def barrier(self) -> None:
        pass

    def split(self, colour: int) -> Communicator:
        return Alone(self._record)

    def abort(self, code: int = 1) -> None:
        pass


def even_bounds(size: int, parts: int) -> list[int]:
    """0 … ``size`` in neighbouring parts as even as can be: part i is bounds[i]:bounds[i + 1]."""
    return [size * i // parts for i in range(parts + 1)]


def flat_view(array: Array) -> Array:
    """``array`` as one row of numbers in the same memory; refuses one that does not lie in order."""
    if not array.flags.c_contiguous:
        raise refuse(
            "array", f"of shape {array.shape}, with gaps", "must lie in memory in order; pass np.ascontiguousarray(array)"
        )
    return array.reshape(-1)


def added(arrays: Sequence[Array]) -> Array:
    """The sum, from the first to the last: a new array."""
    total = arrays[0].copy()
    for array in arrays[1:]:
        total += array
    return total


def as_addends(addends: Array | Sequence[Array]) -> list[Array]:
    found = [flat_view(a) for a in ([addends] if isinstance(addends, np.ndarray) else addends)]
    if len({(a.size, a.dtype) for a in found}) != 1:
        raise refuse("addends", [f"{a.size} {a.dtype}" for a in found], "must be one or more arrays of the same size and type")
    return found


def check_bounds(bounds: Array, numbers: int, ranks: int) -> None:
    if len(bounds) != ranks + 1 or bounds[0] != 0 or bounds[-1] != numbers or np.any(np.diff(bounds) < 0):
        raise refuse("bounds", bounds.tolist(), f"must rise from 0 to {numbers:,}, in {ranks + 1} numbers for {ranks} ranks")


def check_counts(rows: Array, counts_out: Sequence[int] | Array, counts_in: Sequence[int] | Array, ranks: int) -> None:
    for name, counts in (("counts_out", counts_out), ("counts_in", counts_in)):
        if len(counts) != ranks or np.any(np.asarray(counts) < 0):
            raise refuse(name, list(counts), f"must have a number of rows, at least 0, for each of {ranks} ranks")
    if np.sum(counts_out) != len(rows):
        raise refuse("counts_out", list(counts_out), f"must add up to the {len(rows)} rows that are sent")


def gathered_bytes(ranks: Communicator, own: bytes) -> list[bytes]:
    """What every rank has, of any length."""
    return [part.tobytes() for part in joined_rows(ranks, np.frombuffer(own, np.uint8))]


def joined_rows(ranks: Communicator, rows: Array) -> list[Array]:
    """``rows`` (n, …), n as it may be on each rank, 0 too → everyone's, in the order of the ranks."""
    counts = [int(each[0]) for each in ranks.all_gather(np.array([len(rows)], np.int64))]
    ends = np.cumsum([0, *counts])
    found = np.empty((int(ends[-1]), *rows.shape[1:]), rows.dtype)
    found[ends[ranks.rank] : ends[ranks.rank + 1]] = rows
    ranks.all_gather_into(found, (ends * math.prod(rows.shape[1:])).tolist())
    return [found[first:stop] for first, stop in pairwise(ends)]
