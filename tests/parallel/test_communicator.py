"""The verbs: what each rank has after them, in which order sums are formed, and what is recorded."""

import sys

import numpy as np
import pytest
from several_ranks import on_ranks

from minids.errors import MinidsError
from minids.parallel import mpi
from minids.parallel.communicator import Alone, even_bounds
from minids.parallel.mpi import world

RANKS = pytest.mark.parametrize("ranks", [1, 2, 3, 4])


def hexed(array) -> str:
    """All bits."""
    return np.ascontiguousarray(array).tobytes().hex()


def workers(count: int, size: int = 7) -> list[np.ndarray]:
    """Arrays whose sum depends on the order, one per worker."""
    rng = np.random.default_rng(0)
    return [(rng.standard_normal(size) * 10.0 ** rng.integers(-4, 5, size)).astype(np.float32) for _ in range(count)]


def summed(total: int) -> str:
    """The sum of ``total`` workers' arrays, which are parted among the ranks."""
    c = world()
    mine = workers(total)[total * c.rank // c.size : total * (c.rank + 1) // c.size]
    numbers = np.diff(even_bounds(total, c.size)).tolist()
    own = mine or [np.zeros_like(workers(1)[0])]
    return hexed(c.sum_(own[0], *own[1:], numbers=numbers))


def in_order(total: int) -> str:
    first, *others = workers(total)
    for other in others:
        first += other
    return hexed(first)


@pytest.mark.parallel
@RANKS
@pytest.mark.parametrize("total", [4, 3])
def test_a_sum_has_the_same_bits_however_the_workers_are_parted_among_ranks(ranks, total):
    assert on_ranks(ranks, summed, total) == [in_order(total)] * ranks


def test_the_order_shows_in_the_bits():
    forward, backward = workers(4), workers(4)[::-1]
    assert hexed(sum(forward[1:], forward[0])) != hexed(sum(backward[1:], backward[0]))


def verbs() -> dict:
    """Every verb once, its result checked where it is."""
    c = world()
    r, n = c.rank, c.size
    assert c.all_gather(np.array([r, 7])) == pytest.approx(np.array([[s, 7] for s in range(n)]))
    bounds = [0, *(2 * s for s in range(1, n)), 2 * n + 3]  # uneven: the last rank has five
    known = np.full(2 * n + 3, -1.0)
    known[bounds[r] : bounds[r + 1]] = r
    c.all_gather_into(known, bounds)
    assert known.tolist() == [float(min(i // 2, n - 1)) for i in range(2 * n + 3)]
    piece = c.reduce_scatter(np.arange(2 * n + 3.0) * (r + 1), bounds)
    assert piece.tolist() == [i * n * (n + 1) / 2 for i in range(bounds[r], bounds[r + 1])]

    # Rank r sends (r + s) mod 3 rows to rank s: some send nothing to some.
    out = [(r + s) % 3 for s in range(n)]
    came = c.all_to_all(np.array(out))
    assert came.tolist() == [(s + r) % 3 for s in range(n)]
    rows = np.array([[r, s] for s in range(n) for _ in range(out[s])], np.float32).reshape(-1, 2)
    handle = c.start_all_to_all_v(rows, out, came)
    assert handle.wait().tolist() == [[s, r] for s in range(n) for _ in range((s + r) % 3)]
    assert handle.wait() is handle.wait()
    nobody = c.all_to_all_v(np.empty((0, 3)), [0] * n, [0] * n)
    assert nobody.shape == (0, 3)

    following, before = (r + 1) % n, (r - 1) % n
    later = c.irecv((2, 3), np.float64, before, tag=5)
    first = c.isend(np.full(1, r), following, tag=4)
    c.send(np.full((2, 3), float(r)), following, tag=5)
    assert later.wait().tolist() == np.full((2, 3), float(before)).tolist()
    assert c.receive((1,), int, before, tag=4).tolist() == [before]
    first.wait()

    shared = c.broadcast(np.full(3, r), source=n - 1)
    assert shared.tolist() == [n - 1] * 3
    half = c.split(r % 2)
    assert half.members == tuple(range(r % 2, n, 2))
    assert half.sum_(np.array([r])) == sum(half.members)
    c.barrier()
    return {"rank": r, "size": n}


@pytest.mark.parallel
@RANKS
def test_every_verb_gives_each_rank_what_it_says(ranks):
    assert on_ranks(ranks, verbs) == [{"rank": r, "size": ranks} for r in range(ranks)]


def test_a_single_process_has_the_same_verbs():
    assert verbs() == {"rank": 0, "size": 1}


def example_of_tutel() -> list:
    """Its example of an all-to-all-v: two ranks whose counts are [1, 4] and [2, 1]."""
    c = world()
    counts = [[1, 4], [2, 1]][c.rank]
    rows = np.arange(sum(counts))[:, None] + 10 * (c.rank + 1)
    return c.all_to_all_v(rows, counts, c.all_to_all(np.array(counts))).ravel().tolist()


@pytest.mark.parallel
def test_the_example_of_another_library():
    assert on_ranks(2, example_of_tutel) == [[10, 20, 21], [11, 12, 13, 14, 22]]


def recorded() -> list:
    c = world()
    c.barrier()  # before anybody listens
    with c.recording() as exchanges:
        c.all_gather(np.zeros(3, np.float32))
        c.all_to_all_v(np.zeros((3, 2), np.float16), [1, 2], [1, 1] if c.rank == 0 else [2, 2])
        c.split(0 if c.rank == 1 else 1).sum_(np.zeros(4))
    return [[e.verb, e.sent.tolist()] for e in exchanges if e.seconds >= 0]


@pytest.mark.parallel
def test_a_record_has_the_bytes_to_every_rank():
    first, second = on_ranks(2, recorded)
    start = [["all_gather", [12, 12]], ["all_to_all_v", [4, 8]], ["all_gather", [8, 8]]]  # the last one: who is of my colour
    assert first == [*start, ["reduce_scatter", [32, 0]], ["all_gather_into", [32, 0]]]
    assert second == [*start, ["reduce_scatter", [0, 32]], ["all_gather_into", [0, 32]]]


def test_what_cannot_be_exchanged_is_refused_in_words():
    c = Alone()
    with pytest.raises(MinidsError, match="counts_out"):
        c.all_to_all_v(np.zeros((3, 2)), [2], [2])
    with pytest.raises(MinidsError, match="in order"):
        c.sum_(np.zeros((3, 2)).T)
    with pytest.raises(MinidsError, match="same size"):
        c.sum_(np.zeros(3), np.zeros(4))


def test_what_several_processes_need_is_told(monkeypatch):
    monkeypatch.setattr(mpi, "_world", [])
    monkeypatch.setenv("PMI_SIZE", "4")
    monkeypatch.setitem(sys.modules, "mpi4py", None)  # as where it is not installed
    with pytest.raises(MinidsError, match=r"minids\[parallel\]"):
        mpi.world()
