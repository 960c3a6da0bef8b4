"""The communicator over MPI, and how a program finds out that it is one of several processes.

mpi4py is imported only where an ``mpiexec`` has started the program: ``pip install "minids[parallel]"`` brings it, and an MPI.
``python -m mpi4py -m minids …`` works as well.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from minids.errors import MinidsError, refuse
from minids.layers.parameters import Array
from minids.parallel.communicator import (
    Alone,
    Communicator,
    Handle,
    Record,
    added,
    as_addends,
    check_bounds,
    check_counts,
    flat_view,
)

INSTALL = 'pip install "minids[parallel]"'
SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
"""Variables in which the starters of MPICH and Intel's MPI, of Open MPI, and Slurm's ``srun`` say how many processes there
are."""


class Ranks(Communicator):
    """Processes that an ``mpiexec`` has started together. Buffers travel as bytes, whatever their type."""

    def __init__(
        self, communicator: Any, ranks_of_world: int | None = None, members: Sequence[int] = (), record: Record | None = None
    ):
        """``communicator``: mpi4py's. Without the rest it is the world."""
        self._mpi, size = communicator, communicator.Get_size()
        super().__init__(members or range(size), communicator.Get_rank(), ranks_of_world or size, record or Record())

    def reduce_scatter(
        self, addends: Array | Sequence[Array], bounds: Sequence[int], numbers: Sequence[int] | None = None
    ) -> Array:
        began, given = time.perf_counter(), as_addends(addends)
        numbers = [len(given)] * self.size if numbers is None else list(numbers)
        own, like = given[: numbers[self.rank]], given[0]
        starts = np.asarray(bounds, np.int64)
        lengths = np.diff(starts)
        check_bounds(starts, like.size, self.size)
        # One after the other for every rank: what lies between its bounds, of each of this rank's arrays.
        out = own[0] if len(own) == 1 else side_by_side(own, starts, like.dtype)
        length = int(lengths[self.rank])
        rows = np.empty((sum(numbers), length), like.dtype)  # in the order of the ranks, which is that of the sum
        sent, got = lengths * len(own) * like.itemsize, np.array(numbers, np.int64) * rows.itemsize * length
        self._mpi.Alltoallv(message(out, sent), message(rows, got))
        total = added(list(rows)) if len(rows) else np.zeros(length, like.dtype)
        self._note("reduce_scatter", sent, began)
        return total

    def all_gather(self, array: Array) -> list[Array]:
        began, own = time.perf_counter(), np.ascontiguousarray(array)
        everyone = np.empty((self.size, *own.shape), own.dtype)
        self._mpi.Allgather(as_bytes(own), as_bytes(everyone))
        self._note("all_gather", [own.nbytes] * self.size, began)
        return list(everyone)

    def all_gather_into(self, array: Array, bounds: Sequence[int]) -> Array:
        began, flat = time.perf_counter(), flat_view(array)
        starts = np.asarray(bounds, np.int64)
        check_bounds(starts, flat.size, self.size)
        own = flat[starts[self.rank] : starts[self.rank + 1]].copy()  # not sent from where others' are received
        self._mpi.Allgatherv(as_bytes(own), message(flat, np.diff(starts) * flat.itemsize))
        self._note("all_gather_into", [own.nbytes] * self.size, began)
        return array

    def all_to_all(self, counts: Array) -> Array:
        began, own = time.perf_counter(), np.ascontiguousarray(counts)
        if len(own) != self.size:
            raise refuse("counts", f"{len(own)} rows", f"must have one for each of {self.size} ranks")
        got = np.empty_like(own)
        self._mpi.Alltoall(as_bytes(own), as_bytes(got))
        self._note("all_to_all", [own[0].nbytes] * self.size, began)
        return got

    def start_all_to_all_v(
        self, rows: Array, counts_out: Sequence[int] | Array, counts_in: Sequence[int] | Array, what: str = ""
    ) -> Handle:
        began, own = time.perf_counter(), np.ascontiguousarray(rows)
        check_counts(own, counts_out, counts_in, self.size)
        got = np.empty((int(np.sum(counts_in)), *own.shape[1:]), own.dtype)
        each = int(np.prod(own.shape[1:])) * own.itemsize  # bytes of a row
        sent, came = (np.asarray(counts, np.int64) * each for counts in (counts_out, counts_in))
        request = self._mpi.Ialltoallv(message(own, sent), message(got, came))
        spent = time.perf_counter() - began

        def finish() -> Array:
            resumed = time.perf_counter()
            request.Wait()
            self._note("all_to_all_v", sent, resumed - spent, what)
            return got

        return holding(finish, own)

    def isend(self, array: Array, to: int, tag: int = 0) -> Handle:
        began, own = time.perf_counter(), np.ascontiguousarray(array)
        request = self._mpi.Isend(as_bytes(own), to, tag)
        spent, sent = time.perf_counter() - began, [own.nbytes * (r == to) for r in range(self.size)]

        def finish() -> None:
            resumed = time.perf_counter()
            request.Wait()
            self._note("send", sent, resumed - spent)

        return holding(finish, own)

    def irecv(self, shape: tuple[int, ...], dtype: DTypeLike, source: int, tag: int = 0) -> Handle:
        began, got = time.perf_counter(), np.empty(shape, dtype)
        request = self._mpi.Irecv(as_bytes(got), source, tag)
        spent = time.perf_counter() - began

        def finish() -> Array:
            resumed = time.perf_counter()
            request.Wait()
            self._note("receive", [0] * self.size, resumed - spent)
            return got

        return Handle(finish)

    def broadcast(self, array: Array, source: int = 0) -> Array:
        began, flat = time.perf_counter(), flat_view(array)
        self._mpi.Bcast(as_bytes(flat), source)
        mine = self.rank == source
        self._note("broadcast", [flat.nbytes * (mine and r != source) for r in range(self.size)], began)
        return array

    def barrier(self) -> None:
        began = time.perf_counter()
        self._mpi.Barrier()
        self._note("barrier", [0] * self.size, began)

    def split(self, colour: int) -> Communicator:
        part = self._mpi.Split(colour, self.rank)
        colours = self.all_gather(np.array(colour, np.int64))
        members = [self.members[r] for r in range(self.size) if colours[r] == colour]
        return Ranks(part, self._ranks_of_world, members, self._record)

    def abort(self, code: int = 1) -> None:
        # The library would add a line of its own to what has been said already; it writes it past Python.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        self._mpi.Abort(code)


def started_together() -> int:
    """How many processes a starter says that there are; 1 without one."""
    return max((int(os.environ[name]) for name in SIZES if os.environ.get(name, "").isdecimal()), default=1)


_world: list[Communicator] = []


def world() -> Communicator:
    """All processes that were started together; a silent one where this one was started alone."""
    if not _world:
        _world.append(_of_mpi() if started_together() > 1 or "mpi4py.MPI" in sys.modules else Alone())
    return _world[0]


def _of_mpi() -> Communicator:
    try:
        import mpi4py

        mpi4py.rc.thread_level = "funneled"  # one thread calls MPI, whatever the others do
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: mpi4py without an MPI library
        why = str(error).partition("\n")[0]
        raise MinidsError(f"several processes need mpi4py and an MPI ({why}): {INSTALL}") from None
    found, expected = MPI.COMM_WORLD.Get_size(), started_together()
    if found == 1 < expected:
        raise MinidsError(
            f"{expected} processes were started that do not find each other: mpiexec is of another MPI than mpi4py's. "
            f"Take the mpiexec beside this Python ({os.path.dirname(sys.executable)})"
        )
    return Ranks(MPI.COMM_WORLD) if found > 1 else Alone()


def as_bytes(array: Array) -> Array:
    return array.reshape(-1).view(np.uint8)


def message(array: Array, counts: Array) -> list:
    """A buffer for mpi4py whose first ``counts[0]`` bytes are rank 0's, and so on."""
    from mpi4py import MPI

    starts = np.concatenate(([0], np.cumsum(counts)[:-1]))
    return [as_bytes(array), counts.tolist(), starts.tolist(), MPI.BYTE]


def holding(finish: Callable[[], Array | None], *arrays: Array) -> Handle:
    """A handle that keeps ``arrays`` in memory until it is done."""
    return Handle(lambda: (finish(), arrays)[0])


def side_by_side(arrays: list[Array], starts: Array, dtype: np.dtype) -> Array:
    if not arrays:
        return np.empty(0, dtype)
    return np.concatenate([a[first:stop] for first, stop in pairwise(starts) for a in arrays])
