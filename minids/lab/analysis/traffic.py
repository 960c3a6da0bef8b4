"""What a choice of experts costs on the wires: experts on nodes, tokens sent to them and their outputs sent back.

DeepSeek-V3 sections 2.1.2 and 3.2.2. Experts are dealt to nodes in blocks, one group of the router per node. A token is sent
over InfiniBand **once** to each node that holds one of its experts, in FP8 with a float32 scale for every 128 elements; inside
the node NVLink hands it on to each expert. On the way back the node adds up what its experts give, and one vector in BF16
crosses InfiniBand. So InfiniBand pays for nodes and NVLink for experts:

    dispatch   nodes · (d + 4 ⌈d/128⌉) bytes            combine   nodes · 2 d bytes

NVLink moves 160 / 50 = 3.2 times as much in the same time. A node may thus serve up to 3.2 experts of a token before NVLink is
the slower of the two, and with M nodes a token could have 3.2 · M experts for the price of the M transfers.
"""

import math
from typing import NamedTuple

import numpy as np

from minids.lab.analysis.network import INFINIBAND, NVLINK
from minids.lab.analysis.routing import nodes_touched
from minids.lab.analysis.routing_trace import trace
from minids.lab.analysis.same_weights import same_weights
from minids.layers.parameters import Array
from minids.model import DeepSeekV3
from minids.ops.router import choose

TILE = 128  # elements that share a scale in dispatched activations (V3 section 3.3.2)


class Traffic(NamedTuple):
    """All-to-all of one MoE layer, mean per token."""

    nodes: float  # that a token is sent to over InfiniBand; its own, where it lies already, left out if homes are given
    experts_per_node: float  # that a touched node serves a token with
    dispatch_bytes: float  # over InfiniBand, FP8
    combine_bytes: float  # over InfiniBand, BF16
    infiniband_seconds: float  # of both, per token and GPU pair of links
    nvlink_seconds: float  # to hand the token to its experts inside the nodes and to collect their outputs

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
    mean, handed_on = float(crossing.mean()), chosen.shape[-1]  # every expert is on a GPU of its own
    each, seconds = float((handed_on / touched).mean()), mean * (out + back) / INFINIBAND
    return Traffic(mean, each, mean * out, mean * back, seconds, handed_on * (out + back) / NVLINK)


class LimitedTraffic(NamedTuple):
    """Routing under a limit of M nodes."""

    limit: int
    traffic: Traffic  # mean over layers
    loss: float | None  # nats per token of a model that is limited to M; None without a model


def against_limit(scores: Array, top_k: int, nodes: int, hidden_size: int) -> list[LimitedTraffic]:
    """Biased scores (N, E) → traffic for every M from 1 to ``nodes`` that leaves room for K experts."""
    experts = scores.shape[-1]
    chosen = {m: choose(scores, top_k, nodes, m) for m in _limits(experts, nodes, top_k)}
    return [LimitedTraffic(m, meter(c, experts, nodes, hidden_size), None) for m, c in chosen.items()]


def _limits(experts: int, nodes: int, top_k: int) -> list[int]:
    """Every M that leaves room for K experts."""
    return [m for m in range(1, nodes + 1) if m * (experts // nodes) >= top_k]


def limited_to(model: DeepSeekV3, nodes: int) -> DeepSeekV3:
    """The same weights and biases under another limit M = ``topk_group``. Raises ``MinidsError`` where K experts do not fit."""
    return same_weights(model, model.config.replace(topk_group=nodes))


def of_model(model: DeepSeekV3, tokens: Array, targets: Array) -> list[LimitedTraffic]:
    """A trained model on tokens and targets (B, T), under every M that leaves room for K experts: what it saves and costs."""
    c, found = model.config, []
    for m in _limits(c.n_routed_experts, c.n_group, c.num_experts_per_tok):
        limited = limited_to(model, m)
        layers = trace(limited, tokens).layers
        each = [meter(layer.chosen, c.n_routed_experts, c.n_group, c.hidden_size) for layer in layers]
        mean = Traffic(*(float(np.mean(values)) for values in zip(*each, strict=True)))
        found.append(LimitedTraffic(m, mean, limited.losses(tokens, targets, mtp=False).main))
    return found
