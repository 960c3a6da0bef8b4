"""Where experts are placed to serve a model: spare places for busy experts, and the shared expert as a ninth routed one.

DeepSeek-V3 section 3.4. To prefill, 32 GPUs hold eight experts each and one more, a copy of a busy one: 32 redundant experts.
To decode, 320 GPUs hold one expert each: 256 the routed ones, and 64 the redundant and the shared ones. The shared expert is
then treated as a routed one that every token chooses, so that a token has nine.

    load_e / copies_e      what a copy of expert e is asked for: its copies share its tokens
    place                  each spare place goes to the expert whose copies have most to do (EPLB's rule)
    pack                   the heaviest copy first, to the GPU with least to do that has room and no copy of the same expert

With even routing the arithmetic is exact: a routed expert gets K/E of the tokens, the shared one all of them, E/K times as
many. So it needs E/K copies: 32 of V3's, and 64 GPUs are those and the 32 redundant experts of prefill.
"""

import heapq
from typing import NamedTuple

import numpy as np

from minids.errors import refuse
from minids.layers.parameters import Array


class Placement(NamedTuple):
    """Experts on GPUs. Expert E, where the shared one is counted, is the shared one."""

    copies: Array  # (E or E + 1,) of each expert
    gpus: tuple[tuple[int, ...], ...]  # the experts on each
    loads: Array  # (GPUs,) tokens that each has to do with

    @property
    def imbalance(self) -> float:
        """The most loaded GPU over the mean: all others wait for it."""
        return float(self.loads.max() / self.loads.mean())


def with_shared(loads: Array, chosen: int) -> Array:
    """loads (E,) of the routed experts, ``chosen`` by each token → (E + 1,): the shared expert sees every token."""
    loads = np.asarray(loads, dtype=np.float64)
    return np.append(loads, loads.sum() / chosen)


def copies(loads: Array, places: int) -> Array:
    """loads (E,) → copies of each expert, (E,), that fill ``places``."""
    if places < len(loads):
        raise refuse("places", places, f"{len(loads)} experts need one each")
    found = np.ones(len(loads), dtype=np.int64)
    queue = [(-load, e) for e, load in enumerate(loads)]
    heapq.heapify(queue)
    for _ in range(places - len(loads)):
        e = queue[0][1]
        found[e] += 1
        heapq.heapreplace(queue, (-loads[e] / found[e], e))
    return found


def placed(loads: Array, gpus: int, each: int) -> Placement:
    """loads (E,) → experts on ``gpus`` GPUs that have room for ``each``."""
    if gpus < 1 or each < 1:
        raise refuse("gpus", gpus, f"must be at least 1, with room for at least one expert (each = {each})")
    loads = np.asarray(loads, dtype=np.float64)
    count = copies(loads, gpus * each)
    share = loads / count
    held: list[list[int]] = [[] for _ in range(gpus)]
    work = np.zeros(gpus)
    for e in sorted(np.repeat(np.arange(len(loads)), count), key=lambda e: (-share[e], e)):
        room = [g for g in range(gpus) if len(held[g]) < each]
        apart = [g for g in room if e not in held[g]] or room  # two copies on one GPU share nothing
        best = min(apart, key=lambda g: work[g])
        held[best].append(int(e))
        work[best] += share[e]
    return Placement(count, tuple(map(tuple, held)), work)


def plain(loads: Array, gpus: int) -> Placement:
    """The routed experts dealt out in blocks, without a copy, as in training."""
    loads = np.asarray(loads, dtype=np.float64)
    if gpus < 1 or len(loads) % gpus:
        raise refuse("gpus", gpus, f"must divide {len(loads)} experts evenly")
    blocks = np.arange(len(loads)).reshape(gpus, -1)
    return Placement(np.ones(len(loads), np.int64), tuple(map(tuple, blocks.tolist())), loads[blocks].sum(axis=1))


def v3_decoding(loads: Array | None = None) -> Placement:
    """V3's 320 GPUs with one expert each; ``loads`` (256,), or even ones."""
    return placed(with_shared(np.ones(256) if loads is None else loads, 8), 320, 1)
