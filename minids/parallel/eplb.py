"""Redundant experts, so that no GPU waits for a busier one: DeepSeek-V3 section 3.4, by the rules of the EPLB repository.

To serve, every expert has one place in a GPU's memory, and the places left over take copies of busy experts. Which, and where,
is planned from the load that was seen, every ten minutes in V3's deployment. Three steps, all greedy:

    pack        groups of experts to nodes           the heaviest first, to the node with least to do that has room
    copies      places of a node to its experts      one each; then each to the expert with the largest load / copies
    pack        copies to GPUs of their node         as groups to nodes

This is the **hierarchical** policy: a group stays in one node, so a token that chooses experts of M groups visits at most M
nodes. It needs nodes among which the groups can be divided evenly. The **global** policy takes all GPUs as one node and the
experts as one group: more even, but a token may visit any node.

A token's row goes to one of the copies of its expert, to each in turn (``spread``). Nothing but the place changes: outputs are
those of the layer without copies.
"""

import heapq
from typing import NamedTuple

import numpy as np

from minids import arguments
from minids.backend import op
from minids.errors import refuse
from minids.layers.moe import MoE
from minids.layers.parameters import Array

POLICIES = ("hierarchical", "global")


class Placement(NamedTuple):
    """Experts on GPUs, of L layers. Places of a GPU are neighbours, and so are GPUs of a node."""

    experts: Array  # (L, places) int: the expert that each place holds
    share: Array  # (L, places) the load that each place has if copies share evenly
    copies: Array  # (L, E) int, of each expert
    gpus: int
    nodes: int
    policy: str

    @property
    def loads(self) -> Array:
        """(L, GPUs): what each GPU has to do."""
        return self.share.reshape(len(self.share), self.gpus, -1).sum(axis=-1)

    @property
    def imbalance(self) -> Array:
        """(L,) the most loaded GPU over the mean: all others wait for it."""
        return imbalance(self.loads)


class Served(NamedTuple):
    """What a placed layer made of a batch."""

    y: Array  # (B, T, d), as the layer makes it
    rows: Array  # (GPUs,) int: tokens' rows that each GPU computed


def imbalance(loads: Array) -> Array:
    """loads (…, GPUs) → largest over mean, (…); 1 where nobody has anything to do."""
    mean = loads.mean(axis=-1)
    return np.divide(loads.max(axis=-1), mean, out=np.ones_like(mean), where=mean > 0)


def checked(loads: Array) -> Array:
    """loads (L, E), as float64; refused where they are none."""
    found = np.asarray(loads)
    if found.ndim != 2 or not found.size or found.dtype.kind not in "iuf":
        raise refuse("loads", f"of shape {found.shape}", "must be numbers of shape (layers, experts)")
    found = found.astype(np.float64)
    wrong = found[~(np.isfinite(found) & (found >= 0))]
    if wrong.size:
        raise refuse("loads", float(wrong[0]), "a load is a finite number of at least 0")
    return found


def packed(weights: Array, packs: int) -> Array:
    """weights (n,) → the pack of each item, (n,) int: ``packs`` packs of n / packs items each. The heaviest item first, to the
    lightest pack that has room; of equals the first."""
    weights, room = np.asarray(weights, np.float64), len(weights) // packs
    if packs * room != len(weights):
        raise refuse("packs", packs, f"must divide {len(weights)} items evenly")
    if room == 1:  # nothing to even out: items stay in their order
        return np.arange(packs)
    found = np.empty(len(weights), np.int64)
    work, held = np.zeros(packs), np.zeros(packs, np.int64)
    for item in np.argsort(-weights, kind="stable"):
        pack = int(np.argmin(np.where(held < room, work, np.inf)))
        found[item] = pack
        work[pack] += weights[item]
        held[pack] += 1
    return found


def given_places(loads: Array, places: int) -> Array:
    """loads (E,) → the expert of each place, (places,): one each, then those whose copies have most to do."""
    if places < len(loads):
        raise refuse("places", places, f"{len(loads)} experts need one each")
    count = np.ones(len(loads), dtype=np.int64)
    queue = [(-load, e) for e, load in enumerate(loads)]
    heapq.heapify(queue)
    spare = []
    for _ in range(places - len(loads)):
        e = queue[0][1]
        spare.append(e)
        count[e] += 1
        heapq.heapreplace(queue, (-loads[e] / count[e], e))
    return np.array([*range(len(loads)), *spare], dtype=np.int64)


def policy_for(groups: int, nodes: int) -> str:
    """Hierarchical where the groups can be divided among the nodes, else global."""
    return "global" if groups % nodes else "hierarchical"


def place(loads: Array, places: int, gpus: int, nodes: int = 1, groups: int = 1, policy: str | None = None) -> Placement:
    """loads (L, E), counted or estimated → experts on ``places`` places of ``gpus`` GPUs of ``nodes`` nodes. ``groups``: those
    of the router. ``policy``: "hierarchical" or "global"; None takes what ``policy_for`` says."""
    loads = checked(loads)
    experts = loads.shape[1]
    for field, value in (("places", places), ("gpus", gpus), ("nodes", nodes), ("groups", groups)):
        arguments.whole(field, value, least=1)
    chosen = arguments.one_of("policy", policy_for(groups, nodes) if policy is None else policy, POLICIES)
    if gpus % nodes:
        raise refuse("gpus", gpus, f"must be the same number on each of {nodes} nodes")
    if places % gpus:
        raise refuse("places", places, f"must be the same number on each of {gpus} GPUs")
    if places < experts:
        raise refuse("places", places, f"{experts} experts need one each")
    if experts % groups:
        raise refuse("groups", groups, f"must divide {experts} experts evenly")
    if chosen == "hierarchical" and groups % nodes:
        raise refuse("policy", chosen, f"{groups} groups cannot be divided among {nodes} nodes; take global")
    planned = [_place(row, places, gpus, *((nodes, groups) if chosen == "hierarchical" else (1, 1))) for row in loads]
    held = np.array(planned)  # (L, places)
    copies = np.array([np.bincount(row, minlength=experts) for row in held])
    return Placement(held, np.take_along_axis(loads / copies, held, axis=1), copies, gpus, nodes, chosen)


def _place(loads: Array, places: int, gpus: int, nodes: int, groups: int) -> Array:
    """One layer: loads (E,) → the expert of each place, (places,)."""
    size = len(loads) // groups
    of_group = loads.reshape(groups, size).sum(axis=1)
    node_of_group = packed(of_group, nodes)
    found = []
    for node in range(nodes):
        mine = _in_order(of_group, node_of_group, node)
        experts = (mine[:, None] * size + np.arange(size)).reshape(-1)  # of this node
        copies = given_places(loads[experts], places // nodes)  # an index of ``experts`` each
        count = np.bincount(copies)
        share = (loads[experts] / count)[copies]
        gpu_of_copy = packed(share, gpus // nodes)
        for gpu in range(gpus // nodes):
            found.append(experts[copies[_in_order(share, gpu_of_copy, gpu)]])
    return np.concatenate(found)


def _in_order(weights: Array, pack_of: Array, pack: int) -> Array:
    """The items of a pack, as they came into it: the heaviest first."""
    order = np.argsort(-weights, kind="stable")
    return order[pack_of[order] == pack]


def dealt_out(experts: int, gpus: int) -> Array:
    """The expert of each place, (E,), in blocks of neighbours, without copies, as they lie in training."""
    if gpus < 1 or experts % gpus:
        raise refuse("gpus", gpus, f"must divide {experts} experts evenly")
    return np.arange(experts)


def spread(chosen: Array, held: Array, experts: int) -> Array:
    """chosen (N, K) experts, held (places,) → the place of each row, (N, K): the n-th row of an expert, in the order of tokens,
    goes to its copy n mod copies."""
    copies = np.bincount(held, minlength=experts)  # (E,)
    missing = np.setdiff1d(chosen, held)
    if missing.size:
        raise refuse("held", held.tolist(), f"has no place for expert {missing[0]}, which a token chose")
    first = np.concatenate([[0], np.cumsum(copies)[:-1]])  # where an expert's copies begin in ``by_expert``
    by_expert = np.argsort(held, kind="stable")  # (places,)
    plan = op.dispatch.plan(chosen, experts)
    expert = chosen.reshape(-1)
    turn = (plan.place - plan.starts[expert]) % copies[expert]  # its number among the rows of its expert, in turn
    return by_expert[first[expert] + turn].reshape(chosen.shape)


def rows_per_gpu(chosen: Array, held: Array, gpus: int, experts: int) -> Array:
    """chosen (N, K), held (places,) → (GPUs,) int: the rows that each GPU gets, as ``spread`` sends them."""
    places = np.bincount(spread(chosen, held, experts).reshape(-1), minlength=len(held))
    return places.reshape(gpus, -1).sum(axis=1)


def served(layer: MoE, x: Array, held: Array, gpus: int) -> Served:
    """x (B, T, d) through a layer whose experts lie in ``held`` (places,) on ``gpus`` GPUs; each computes its own rows.

    Routing, gates and the order of every sum are those of ``layer.forward``. Only how many rows are multiplied at once differs:
    where a product's bits do not depend on that, y has the bits of the layer without copies."""
    tokens = x.reshape(-1, x.shape[-1])  # (N, d)
    routing, *_ = layer.route(tokens)
    places = spread(routing.chosen, held, layer.config.n_routed_experts)
    plan = op.dispatch.plan(places, len(held))
    rows, _ = op.dispatch.forward(tokens, plan)  # (N·K, d), sorted by place, and so by GPU
    each = len(held) // gpus
    for gpu in range(gpus):
        mine = slice(gpu * each, (gpu + 1) * each)
        starts = plan.starts[mine.start : mine.stop + 1]
        span = slice(int(starts[0]), int(starts[-1]))
        rows[span] = layer.experts(rows[span], starts - starts[0], held[mine])[0]
    y, _ = op.combine.forward(rows, routing.gates, plan)
    if layer.shared:
        y += layer.shared.forward(tokens)[0]
    return Served(y.reshape(x.shape), np.diff(plan.starts[::each]))
