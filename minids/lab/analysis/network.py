"""What the wires allow: experts reached per node, and how fast decoding can ever be.

Training: DeepSeek-V3 report, section 3.2.2. Decoding: ISCA 2025 paper ("Insights into DeepSeek-V3"), section 2.3.2, whose
simple model has one expert per device and counts only the bytes of the all-to-all: no latency, and computation hidden
behind it.
"""

from typing import NamedTuple

NVLINK, INFINIBAND = 160e9, 50e9
"""Bytes per second of one H800 as V3's report counts them; the ISCA paper counts 200 and 50 nominal, 160 and 40 effective."""

NVL72 = 900e9  # bytes per second of one GPU inside a GB200 NVL72 (ISCA 2025 paper, section 2.3.2)


def experts_per_node() -> float:
    """Experts of one node a token can be handed to over NVLink while it arrives once over InfiniBand: 160 / 50 = 3.2."""
    return NVLINK / INFINIBAND


def experts_at_no_extra_cost(nodes: int = 4) -> float:
    """``nodes`` times that: 4 · 3.2 = 12.8, printed as "up to 13" in V3's report, section 3.2.2. V3 itself uses 8."""
    return nodes * experts_per_node()


class DecodeLimit(NamedTuple):
    """The all-to-all's floor under the time of one output token."""

    exchange: float  # seconds of one dispatch and one combine
    layer: float  # of both micro-batches
    tpot: float  # time per output token: all layers

    @property
    def tokens_per_second(self) -> float:
        return 1 / self.tpot


def decode_limit(bandwidth: float, hidden_size: int = 7000) -> DecodeLimit:
    """Time per output token if only the network counted.

    exchange = (1 + 2) bytes · 32 tokens · 9 destinations (8 routed, 1 shared) · "7K" hidden / bandwidth; a layer takes two of
    them, one per micro-batch; a token takes 61 layers: 14.76 ms on InfiniBand, 0.82 ms on NVL72.
    """
    exchange = (1 + 2) * 32 * 9 * hidden_size / bandwidth
    return DecodeLimit(exchange, 2 * exchange, 2 * exchange * 61)
