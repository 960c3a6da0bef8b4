"""Ranks that are threads of one process: what needs no MPI is tested without it, in the default suite.

``ranks_in_threads(3, work)``: what ``work(communicator)`` returns for each rank. One that raises ends all.
"""

import queue
import threading
from collections.abc import Callable

import numpy as np

from minids.parallel.communicator import Communicator, Handle, Record, added, as_addends, flat_view

SECONDS = 120  # after which ranks that wait for each other for ever are ended


class Meeting:
    """What the threads of one communicator share."""

    def __init__(self, size: int):
        self.barrier, self.slots = threading.Barrier(size, timeout=SECONDS), [None] * size
        self.mail: dict[tuple, queue.Queue] = {}
        self.lock = threading.Lock()

    def box(self, *key) -> queue.Queue:
        with self.lock:
            return self.mail.setdefault(key, queue.Queue())


class ThreadRanks(Communicator):
    def __init__(self, meeting: Meeting, members, rank: int, world: int, record: Record):
        super().__init__(members, rank, world, record)
        self.meeting = meeting

    def _swap(self, value) -> list:
        self.meeting.slots[self.rank] = value
        self.meeting.barrier.wait()
        found = list(self.meeting.slots)
        self.meeting.barrier.wait()
        return found

    def reduce_scatter(self, addends, bounds, numbers=None):
        given = as_addends(addends)
        own = [a.copy() for a in given[: None if numbers is None else numbers[self.rank]]]
        first, stop = bounds[self.rank], bounds[self.rank + 1]
        pieces = [a[first:stop] for each in self._swap(own) for a in each]
        return added(pieces) if pieces else np.zeros(stop - first, given[0].dtype)

    def all_gather(self, array):
        return self._swap(np.array(array))

    def all_gather_into(self, array, bounds):
        flat = flat_view(array)
        for rank, piece in enumerate(self._swap(flat[bounds[self.rank] : bounds[self.rank + 1]].copy())):
            flat[bounds[rank] : bounds[rank + 1]] = piece
        return array

    def all_to_all(self, counts):
        return np.array([each[self.rank] for each in self._swap(np.array(counts))])

    def start_all_to_all_v(self, rows, counts_out, counts_in, what=""):
        parts = np.split(rows.copy(), np.cumsum(counts_out)[:-1])
        came = [each[self.rank] for each in self._swap(parts)]
        assert [len(part) for part in came] == list(counts_in), "counts are not those that were agreed on"
        result = np.concatenate(came)
        return Handle(lambda: result)

    def isend(self, array, to, tag=0):
        self.meeting.box(self.rank, to, tag).put(array.copy())
        return Handle(lambda: None)

    def irecv(self, shape, dtype, source, tag=0):
        return Handle(lambda: self.meeting.box(source, self.rank, tag).get(timeout=SECONDS).reshape(shape))

    def broadcast(self, array, source=0):
        array[...] = self._swap(array.copy())[source]
        return array

    def barrier(self):
        self.meeting.barrier.wait()

    def abort(self, code=1):
        self.meeting.barrier.abort()

    def split(self, colour):
        colours = self._swap(colour)
        mine = [rank for rank in range(self.size) if colours[rank] == colour]
        made = self._swap(Meeting(len(mine)))  # the first of each colour has the one that counts
        members = [self.members[rank] for rank in mine]
        return ThreadRanks(made[mine[0]], members, mine.index(self.rank), self._ranks_of_world, self._record)


def ranks_in_threads(size: int, work: Callable) -> list:
    meeting, found, wrong = Meeting(size), [None] * size, []

    def run(rank: int) -> None:
        try:
            found[rank] = work(ThreadRanks(meeting, range(size), rank, size, Record()))
        except BaseException as error:
            wrong.append(error)
            meeting.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise next((error for error in wrong if not isinstance(error, threading.BrokenBarrierError)), wrong[0])
    return found
