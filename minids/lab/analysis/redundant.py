"""Redundant experts from a training run's own record: planned by EPLB from what experts had to do, judged on later steps.

A run with ``trace_every`` keeps which experts every token chose (``routing_trace``). The first half of those steps gives the
load that is planned from, as a server plans from the minutes before; the rows of the second half are then dealt to the copies,
one by one, and counted on each GPU. With a single recorded step it is planned and judged on the same one.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from minids.errors import refuse
from minids.lab.analysis.routing_trace import RoutingTrace, traces
from minids.layers.parameters import Array
from minids.parallel import eplb
from minids.words import table


class Layer(NamedTuple):
    """One layer. Loads are rows of tokens; an imbalance is that of the busiest GPU over the mean."""

    name: str
    load: Array  # (E,) that it was planned from
    held: Array  # (places,) the expert of each place, a GPU's places side by side
    copies: Array  # (E,)
    planned: float  # imbalance, if copies shared the planned load evenly
    before: Array | None  # (GPUs,) rows of the judged steps, experts dealt out in blocks; None where blocks cannot be even
    after: Array  # (GPUs,) rows of the judged steps, with copies


class Redundant(NamedTuple):
    steps: tuple[int, ...]  # optimizer steps planned from
    judged: tuple[int, ...]
    gpus: int
    nodes: int
    policy: str
    layers: tuple[Layer, ...]


def recorded(run: str | Path) -> list[RoutingTrace]:
    """The traces of a run, in the order of steps; refused where it kept none."""
    if not Path(run).is_dir():
        raise refuse("run", str(run), "is no folder")
    paths = traces(run)
    if not paths:
        raise refuse("run", str(run), "has no record of what experts had to do; train with --trace-every 10, say")
    found = [RoutingTrace.load(path) for path in paths]
    if not found[0].layers:
        raise refuse("run", str(run), "is of a model without experts")
    return found


def planned(
    found: list[RoutingTrace], gpus: int, nodes: int = 1, redundant: int | None = None, policy: str | None = None
) -> Redundant:
    """``redundant``: places beyond one for each expert; None has one on each GPU."""
    seen, later = found[: (len(found) + 1) // 2], found[(len(found) + 1) // 2 :]
    later = later or seen
    experts, groups = found[0].experts, found[0].groups
    places = _places(experts, gpus, redundant)
    load = np.sum([trace.counts() for trace in seen], axis=0)  # (layers, E)
    plan = eplb.place(load, places, gpus, nodes, groups, policy)
    layers = []
    for i, layer in enumerate(found[0].layers):
        chosen = [trace.layers[i].chosen.reshape(-1, trace.layers[i].chosen.shape[-1]) for trace in later]
        before = None if experts % gpus else _rows(chosen, eplb.dealt_out(experts, gpus), gpus, experts)
        after = _rows(chosen, plan.experts[i], gpus, experts)
        layers.append(Layer(layer.name, load[i], plan.experts[i], plan.copies[i], float(plan.imbalance[i]), before, after))
    steps, judged = (tuple(trace.step for trace in part) for part in (seen, later))
    return Redundant(steps, judged, gpus, nodes, plan.policy, tuple(layers))


def _places(experts: int, gpus: int, redundant: int | None) -> int:
    if gpus < 1:
        raise refuse("gpus", gpus, "must be at least 1")
    if redundant is None:
        return (experts // gpus + 1) * gpus
    least = -experts % gpus
    if redundant < 0 or (experts + redundant) % gpus:
        some = ", ".join(str(least + i * gpus) for i in range(3))
        raise refuse("redundant", redundant, f"{experts} experts on {gpus} GPUs with as many places each: take {some} …")
    return experts + redundant


def _rows(chosen: list[Array], held: Array, gpus: int, experts: int) -> Array:
    return np.sum([eplb.rows_per_gpu(each, held, gpus, experts) for each in chosen], axis=0)


def formatted(found: Redundant, whole_map: bool = False) -> str:
    """A row per layer; ``whole_map``: and which experts each GPU holds."""
    places, experts = len(found.layers[0].held), len(found.layers[0].load)
    rows = []
    for layer in found.layers:
        many = ", ".join(
            f"{e} × {layer.copies[e]}" for e in np.argsort(-layer.copies, kind="stable")[:4] if layer.copies[e] > 1
        )
        before = "—" if layer.before is None else f"{eplb.imbalance(layer.before):.3f}"
        rows.append((layer.name, before, f"{layer.planned:.3f}", f"{eplb.imbalance(layer.after):.3f}", many))
    nodes = f" of {found.nodes} nodes" if found.nodes > 1 else ""
    lines = [
        f"{experts} experts and {places - experts} redundant ones on {found.gpus} GPUs{nodes}, {found.policy} policy",
        f"planned from {_of(found.steps)}, judged on {_of(found.judged)}",
        "",
        "Rows of the busiest GPU over the mean",
        table(rows, ("layer", "dealt out", "planned", "with copies", "copies of"), align="lrrrl"),
    ]
    if whole_map:
        for layer in found.layers:
            held = layer.held.reshape(found.gpus, -1)
            before = ["—"] * found.gpus if layer.before is None else layer.before.tolist()
            cells = [
                (gpu, " ".join(map(str, mine)), had, has)
                for gpu, (mine, had, has) in enumerate(zip(held.tolist(), before, layer.after.tolist(), strict=True))
            ]
            lines += ["", layer.name, table(cells, ("GPU", "experts", "rows dealt out", "with copies"), align="rlrr")]
    return "\n".join(lines)


def _of(steps: tuple[int, ...]) -> str:
    return f"step {steps[0]}" if len(steps) == 1 else f"{len(steps)} recorded steps, {steps[0]} to {steps[-1]}"
