"""Expert parallelism: each rank holds some experts of every layer, and tokens travel to them (V3 sections 3.2 and 3.2.2).

    across nodes     one copy of a token to every node that holds one of its experts, to the rank at the same place in it
    inside a node    from there one copy to every rank that holds one of its experts
    here             its experts of this rank, each times its gate, are added up
    back             the same two hops: each node adds up what its ranks give, the token's own rank what its nodes give

A node is ``ranks_per_node`` neighbouring ranks, so that the slow link between nodes carries a token once for each node and not
for each expert. With one rank per node there is one hop. The chosen experts and their gates travel beside the tokens, as they
say what is to be done with them. While tokens travel, the shared experts work.

Backward: dy goes the way of the tokens and d_tokens that of the sums, with

    d_row = g dy        dg = dy · FFN(row)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from minids.errors import refuse
from minids.layers.moe import MoE, SavedExperts
from minids.layers.parameters import Array
from minids.parallel.communicator import Communicator
from minids.parallel.hop import Hop, Route


class Saved(NamedTuple):
    across: Route
    inside: Route
    token: Array  # (R,) of each row here: the token among those that came
    choice: Array  # (R,) and which of its K experts
    order: Array  # (R,) rows sorted by expert
    gates: Array  # (R,)
    outputs: Array  # (R, d) of the experts
    came: int  # tokens that came


class ExpertExchange:
    """Of the ranks that hold all experts between them: rank r has the experts bounds[r] … bounds[r + 1] − 1."""

    def __init__(self, ranks: Communicator, bounds: Sequence[int], ranks_per_node: int = 1, low_precision: bool = False):
        if ranks.size % ranks_per_node:
            raise refuse("ranks_per_node", ranks_per_node, f"must divide expert_parallel = {ranks.size}")
        self.ranks, self.bounds, self.per_node = ranks, list(bounds), ranks_per_node
        node, place = divmod(ranks.rank, ranks_per_node)
        self.node = node
        self.across = Hop(ranks.split(place), "across", low_precision)  # its rank j is on node j
        self.inside = Hop(ranks.split(node), "inside", low_precision)

    def forward(
        self, layer: MoE, tokens: Array, chosen: Array, gates: Array, meanwhile: Callable[[], None]
    ) -> tuple[Array, SavedExperts, Saved]:
        """See ``minids.layers.moe.Exchange``."""
        holder = self._holder(chosen)  # (N, K) the rank of each chosen expert
        across = self.across.route(_any(holder // self.per_node, self.across.ranks.size))
        travelling = self.across.out(tokens, across)
        meanwhile()
        chosen, gates = (self.across.out(a, across, "choices", exact=True)() for a in (chosen.astype(np.int32), gates))
        tokens = travelling()
        here = self._holder(chosen) - self.node * self.per_node  # the place in this node, or another node's
        inside = self.inside.route(_any(here, self.per_node))
        travelling = self.inside.out(tokens, inside)
        chosen, gates = (self.inside.out(a, inside, "choices", exact=True)() for a in (chosen, gates))
        tokens = travelling()  # (n, d) that have an expert here

        token, choice = np.nonzero(self._holder(chosen) == self.ranks.rank)  # (R,) in the order of the tokens
        expert = chosen[token, choice] - self.bounds[self.ranks.rank]
        order = np.argsort(expert, kind="stable")
        held = self.bounds[self.ranks.rank + 1] - self.bounds[self.ranks.rank]
        starts = np.concatenate(([0], np.cumsum(np.bincount(expert, minlength=held)))).astype(np.int64)
        from_experts, experts = layer.experts(tokens[token[order]], starts)
        outputs = np.empty_like(from_experts)
        outputs[order] = from_experts
        saved = Saved(across, inside, token, choice, order, gates[token, choice], outputs, len(tokens))
        y = _sum_by_token(saved.gates[:, None] * outputs, saved)
        return self.across.back(self.inside.back(y, inside), across), experts, saved

    def backward(
        self, layer: MoE, dy: Array, experts: SavedExperts, saved: Saved, meanwhile: Callable[[], None]
    ) -> tuple[Array, Array]:
        travelling = self.across.out(dy, saved.across)
        meanwhile()
        dy = self.inside.out(travelling(), saved.inside)()[saved.token]  # (R, d)
        d_gates = np.zeros((saved.came, layer.config.num_experts_per_tok), dy.dtype)
        d_gates[saved.token, saved.choice] = np.einsum("rd,rd->r", dy, saved.outputs)
        d_rows = layer.experts_backward((saved.gates[:, None] * dy)[saved.order], experts)
        by_row = np.empty_like(d_rows)
        by_row[saved.order] = d_rows
        dx = self.across.back(self.inside.back(_sum_by_token(by_row, saved), saved.inside), saved.across)
        d_gates = self.inside.back(d_gates, saved.inside, "gates", exact=True)
        return dx, self.across.back(d_gates, saved.across, "gates", exact=True)

    def _holder(self, chosen: Array) -> Array:
        """Expert → the rank that holds it."""
        return np.searchsorted(self.bounds, chosen, side="right") - 1

    def idle(self, layer: MoE) -> Callable[[], None]:
        """Take part in a forward pass without a token; what is returned does so in its backward pass."""
        c, kind = layer.config, layer.w_gate.value.dtype
        none = np.empty((0, c.hidden_size), kind), np.empty((0, c.num_experts_per_tok), np.int64)
        _, experts, saved = self.forward(layer, *none, np.empty((0, c.num_experts_per_tok), kind), _nothing)
        return lambda: (self.backward(layer, none[0], experts, saved, _nothing), None)[1]


def _nothing() -> None:
    pass


def _any(place: Array, places: int) -> Array:
    """place (n, K) → (n, places) bool: whether a row has it; those outside 0 … places − 1 are nobody's."""
    return np.stack([np.any(place == p, axis=1) for p in range(places)], axis=1)


def _sum_by_token(rows: Array, saved: Saved) -> Array:
    """rows (R, d) in the order of their tokens, of which each has at least one → (tokens, d)."""
    if not len(rows):
        return np.zeros((saved.came, rows.shape[1]), rows.dtype)
    return np.add.reduceat(rows, np.searchsorted(saved.token, np.arange(saved.came)), axis=0)
