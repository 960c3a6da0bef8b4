"""What a choice of experts costs on the wires: experts on nodes, tokens sent to them and their outputs sent back.

DeepSeek-V3 sections 2.1.2 and 3.2.2. Experts are dealt to nodes in blocks, one group of the router per node. A token is sent
over InfiniBand **once** to each node that holds one of its experts, in FP8 with a float32 scale for every 128 elements; inside
the node NVLink hands it on to each expert. On the way back the node adds up what its experts give, and one vector in BF16
crosses InfiniBand. So InfiniBand pays for nodes and NVLink for experts:

    dispatch   nodes · (d + 4 ⌈d/128⌉) bytes            combine   nodes · 2 d bytes

NVLink moves 160 / 50 = 3.2 times as much in the same time. A node may thus serve up to 3.2 experts of a token before NVLink is
the slower of the two, and with M nodes a token could have 3.2 · M experts for the price of the M transfers.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from minids.lab.analysis.network import INFINIBAND, NVLINK
from minids.lab.analysis.routing import nodes_touched
from minids.lab.analysis.routing_trace import trace
from minids.layers.parameters import Array
from minids.model import DeepSeekV3
from minids.ops.router import choose

TILE = 128
"""Elements that share a scale in dispatched activations (V3 section 3.3.2)."""


class Traffic(NamedTuple):
    """All-to-all of one MoE layer, mean per token."""

    nodes: float
    """Nodes a token is sent to over InfiniBand; its own, where the token lies already, left out if homes are given."""
    experts_per_node: float
    """Experts that a touched node serves a token with."""
    dispatch_bytes: float
    """Over InfiniBand, FP8."""
    combine_bytes: float
    """Over InfiniBand, BF16."""
    infiniband_seconds: float
    """Time of both on InfiniBand, per token and GPU pair of links."""
    nvlink_seconds: float
    """Time to hand the token to its experts inside the nodes and to collect their outputs."""

    @property
    def bytes(self) -> float:
        return self.dispatch_bytes + self.combine_bytes


def meter(chosen: Array, experts: int, nodes: int, hidden_size: int, home: Array | None = None) -> Traffic:
    """chosen (…, K): what a layer chose → its traffic. ``home`` (…) int: the node where each token lies; None counts every
    touched node, as the paper does when it says "at most M"."""
    chosen = np.asarray(chosen)
    touched = nodes_touched(chosen, experts, nodes)
    crossing = touched
    if home is not None:
        crossing = touched - np.any(chosen // (experts // nodes) == np.asarray(home)[..., None], axis=-1)
    out, back = hidden_size + 4 * math.ceil(hidden_size / TILE), 2 * hidden_size
    mean = float(crossing.mean())
    handed_on = chosen.shape[-1]  # every expert is on a GPU of its own
    return Traffic(
        mean,
        float((handed_on / touched).mean()),
        mean * out,
        mean * back,
        mean * (out + back) / INFINIBAND,
        handed_on * (out + back) / NVLINK,
    )


class LimitedTraffic(NamedTuple):
    """Routing under a limit of M nodes."""

    limit: int
    traffic: Traffic  # mean over layers
    loss: float | None  # nats per token of a model that is limited to M; None without a model


def against_limit(scores: Array, top_k: int, nodes: int, hidden_size: int) -> list[LimitedTraffic]:
    """Biased scores (N, E) → traffic for every M from 1 to ``nodes`` that leaves room for K experts."""
    experts = scores.shape[-1]
    limits = [m for m in range(1, nodes + 1) if m * (experts // nodes) >= top_k]
    return [LimitedTraffic(m, meter(choose(scores, top_k, nodes, m), experts, nodes, hidden_size), None) for m in limits]


def limited_to(model: DeepSeekV3, nodes: int) -> DeepSeekV3:
    """The same weights and biases under another limit M = ``topk_group``. Raises ``MinidsError`` where K experts do not fit."""
    other = model.sharing_weights()
    other.config = model.config.replace(topk_group=nodes)
    for layer in other.moe_layers:
        layer.config = other.config
    return other


def of_model(model: DeepSeekV3, tokens: Array, targets: Array) -> list[LimitedTraffic]:
    """A trained model on tokens and targets (B, T), under every M that leaves room for K experts: what it saves and costs."""
    c = model.config
    found = []
    for m in range(1, c.n_group + 1):
        if m * (c.n_routed_experts // c.n_group) < c.num_experts_per_tok:
            continue
        limited = limited_to(model, m)
        layers = trace(limited, tokens).layers
        each = [meter(layer.chosen, c.n_routed_experts, c.n_group, c.hidden_size) for layer in layers]
        mean = Traffic(*(float(np.mean(values)) for values in zip(*each, strict=True)))
        found.append(LimitedTraffic(m, mean, limited.losses(tokens, targets, mtp=False).main))
    return found
