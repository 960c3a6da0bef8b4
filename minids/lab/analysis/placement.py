"""The shared expert as a ninth routed one, and how even experts on GPUs are: DeepSeek-V3 section 3.4.

To prefill, 32 GPUs hold eight experts each and one more, a copy of a busy one: 32 redundant experts. To decode, 320 GPUs hold
one expert each: 256 the routed ones, and 64 the redundant and the shared ones. The shared expert is then treated as a routed
one that every token chooses, so that a token has nine. Copies and their places are EPLB's (``minids.parallel.eplb``), with all
GPUs in one node.

With even routing the arithmetic is exact: a routed expert gets K/E of the tokens, the shared one all of them, E/K times as
many. So it needs E/K copies: 32 of V3's, and 64 GPUs are those and the 32 redundant experts of prefill.
"""

from typing import NamedTuple

import numpy as np

from minids.errors import refuse
from minids.layers.parameters import Array
from minids.parallel import eplb


class Placement(NamedTuple):
    """One layer's experts on GPUs. Expert E, where the shared one is counted, is the shared one."""

    copies: Array  # (E or E + 1,) of each expert
    gpus: tuple[tuple[int, ...], ...]  # the experts on each
    loads: Array  # (GPUs,) tokens that each has to do with

    @property
    def imbalance(self) -> float:
        """The most loaded GPU over the mean: all others wait for it."""
        return float(eplb.imbalance(self.loads))


def with_shared(loads: Array, chosen: int) -> Array:
    """loads (E,) of the routed experts, ``chosen`` by each token → (E + 1,): the shared expert sees every token."""
    loads = np.asarray(loads, dtype=np.float64)
    return np.append(loads, loads.sum() / chosen)


def placed(loads: Array, gpus: int, each: int) -> Placement:
    """loads (E,) → experts on ``gpus`` GPUs that have room for ``each``."""
    if gpus < 1 or each < 1:
        raise refuse("gpus", gpus, f"must be at least 1, with room for at least one expert (each = {each})")
    found = eplb.place(np.asarray(loads)[None], gpus * each, gpus)
    held = found.experts.reshape(gpus, each)
    return Placement(found.copies[0], tuple(map(tuple, held.tolist())), found.loads[0])


def plain(loads: Array, gpus: int) -> Placement:
    """The routed experts dealt out in blocks, without a copy, as in training."""
    loads = np.asarray(loads, dtype=np.float64)
    blocks = eplb.dealt_out(len(loads), gpus).reshape(gpus, -1)
    return Placement(np.ones(len(loads), np.int64), tuple(map(tuple, blocks.tolist())), loads[blocks].sum(axis=1))


def v3_decoding(loads: Array | None = None) -> Placement:
    """V3's 320 GPUs with one expert each; ``loads`` (256,), or even ones."""
    return placed(with_shared(np.ones(256) if loads is None else loads, 8), 320, 1)
