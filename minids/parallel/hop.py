"""One hop of an all-to-all: copies of rows go to the ranks that want them, and what is made of the copies comes back as a sum.

    out     received from rank s:  the rows of s that this rank is wanted for
    back    y_n = Σ_{ranks r that row n went to}  what r made of it

Each is the backward pass of the other: the gradients of what came back go out, and those of what went out come back.
Counts go by ``all_to_all`` and rows by ``all_to_all_v``. A rank that no row goes to takes part with none: it must not leave the
others waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from minids.layers.parameters import Array
from minids.ops import bfloat16, quantise
from minids.parallel.communicator import Communicator, Handle

TILE = (1, 128)  # numbers of a row that share a scale in FP8


class Route(NamedTuple):
    """Which copies of this rank's n rows go where."""

    rows: int  # n
    order: Array  # (copies,) int: the row that is copied; those for rank 0 first
    out: Array  # (ranks,) copies that go to each
    came: Array  # (ranks,) that come from each


class Hop:
    """Over the ranks of a communicator; with a single one nothing moves. ``what``: the name its exchanges are recorded by."""

    def __init__(self, ranks: Communicator, what: str, low_precision: bool = False):
        self.ranks, self.what, self.low_precision = ranks, what, low_precision

    def route(self, wanted: Array) -> Route:
        """wanted (n, ranks) bool: the ranks that each row goes to."""
        order = np.nonzero(wanted.T)[1]
        out = np.count_nonzero(wanted, axis=0).astype(np.int64)
        return Route(len(wanted), order, out, self.ranks.all_to_all(out) if self.ranks.size > 1 else out)

    def out(self, rows: Array, route: Route, what: str = "", exact: bool = False) -> Callable[[], Array]:
        """Begin to send copies of rows (n, …); the function that is returned waits for those that come. ``exact``: in the type
        of the rows, whatever the precision of this hop."""
        copies = rows[route.order]
        if self.ranks.size == 1:
            return lambda: copies
        if exact or not self.low_precision:
            return self._start(copies, route.out, route.came, what or "dispatch").wait
        q = quantise.forward(copies, TILE, power_of_two=True) if len(copies) else quantise.Quantised(*_nothing(copies), TILE)
        codes, scales = (self._start(a, route.out, route.came, what or "dispatch") for a in (q.codes, q.scales))
        return lambda: quantise.dequantise(q._replace(codes=codes.wait(), scales=scales.wait()), rows.dtype)

    def back(self, rows: Array, route: Route, what: str = "", exact: bool = False) -> Array:
        """rows: one for each that came → (n, …) the sum of what was made of each row's copies, in the order of the ranks."""
        if self.ranks.size == 1:
            copies = rows
        elif exact or not self.low_precision:
            copies = self._start(rows, route.came, route.out, what or "combine").wait()
        else:
            bits = self._start(bfloat16.encode(rows), route.came, route.out, what or "combine").wait()
            copies = bfloat16.decode(bits).astype(rows.dtype, copy=False)
        y = np.zeros((route.rows, *rows.shape[1:]), rows.dtype)
        ends = np.cumsum(route.out)
        for stop, count in zip(ends, route.out, strict=True):  # a rank has one copy of a row at most
            y[route.order[stop - count : stop]] += copies[stop - count : stop]
        return y

    def _start(self, rows: Array, out: Array, came: Array, what: str) -> Handle:
        return self.ranks.start_all_to_all_v(rows, out, came, f"{self.what} {what}")


def _nothing(rows: Array) -> tuple[Array, Array]:
    """Codes and scales of no rows."""
    return np.empty(rows.shape, np.uint8), np.empty((0, -(-rows.shape[1] // TILE[1])), np.float32)
