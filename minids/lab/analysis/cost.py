"""What training costs: tokens × FLOPs ÷ utilisation → GPU hours → dollars.

    GPU hours = tokens · FLOPs per token / (peak FLOP/s · utilisation) / 3600        dollars = GPU hours · price

Checked against DeepSeek-V3's own bill (V3 report, Table 1): 14.8T tokens at 250.46 GFLOP on H800s with 989 TFLOP/s of BF16
and the 38.94 % utilisation printed in the ISCA 2025 paper, Table 4, give 2674K GPU hours; the report says 2664K. That bill
is for the final run only: the report itself excludes earlier research and ablations.
"""

import math
from typing import NamedTuple

from minids.config import ModelConfig
from minids.errors import refuse
from minids.lab.analysis import flops

PRICE = 2.0  # dollars per H800 hour, the rental price V3's report assumes
H800_PEAK = 989e12  # BF16 FLOP/s of one H800 without sparsity: TFLOPS over MFU in the ISCA 2025 paper, Table 4 (988 to 989)
V3_UTILISATION = 0.3894  # V3's causal model FLOPs utilisation (ISCA 2025 paper, Table 4)
V3_TOKENS, V3_GPUS = 14.8e12, 2048
V3_GPU_HOURS = {"pre-training": 2_664_000, "context extension": 119_000, "post-training": 5_000}  # its report, Table 1


class Cost(NamedTuple):
    """A training run in every unit it is talked about."""

    flops: float
    gpu_hours: float
    dollars: float
    days: float  # on ``gpus`` of them


def training_work(config: ModelConfig, tokens: float, context: int) -> float:
    """FLOP of training on ``tokens`` tokens in sequences of ``context``. Raises ``MinidsError`` where one cannot be."""
    if not 0 <= tokens < math.inf:
        raise refuse("tokens", tokens, "must not be below 0" if tokens < 0 else "must be a finite number")
    if context <= 0:
        raise refuse("context", context, "must be above 0")
    return tokens * flops.training(config, context)


def training_cost(
    config: ModelConfig, tokens: float, peak: float = H800_PEAK, utilisation: float = V3_UTILISATION, gpus: int = 1,
    price: float = PRICE, context: int = 4096,
) -> Cost:  # fmt: skip
    """Bill of training ``config`` on ``tokens`` tokens: every number is the caller's, V3's by default.

    Raises ``MinidsError`` for a price or an amount below zero or not finite, no GPUs, or a utilisation outside (0, 1].
    """
    if not 0 <= price < math.inf:
        raise refuse("price", price, "must not be below 0" if price < 0 else "must be a finite number")
    for name, value in (("peak", peak), ("gpus", gpus)):
        if not 0 < value < math.inf:
            raise refuse(name, value, "must be above 0" if value <= 0 else "must be a finite number")
    if not 0 < utilisation <= 1:
        raise refuse("utilisation", utilisation, "is a share of the peak: above 0 and at most 1, V3 reached 0.389")
    work = training_work(config, tokens, context)
    hours = work / (peak * utilisation) / 3600
    return Cost(work, hours, hours * price, hours / gpus / 24)


def format_cost(cost: Cost, name: str, tokens: float, gpus: int, price: float) -> str:
    """The bill as text, and beside V3's own run what its report prints."""
    lines = [
        f"training {name} on {tokens:,.0f} tokens",
        f"  {'work':<12}{cost.flops:>16.4g} FLOP        tokens · (6·N + attention)",
        f"  {'GPU hours':<12}{_amount(cost.gpu_hours):>16}             work / (peak · utilisation) / 3600",
        f"  {'dollars':<12}{_amount(cost.dollars):>16}             GPU hours · {price:g}",
        f"  {'days':<12}{_amount(cost.days, 1):>16}             on {gpus:,} GPU{'s' * (gpus != 1)}",
        "",
        "DeepSeek-V3's own bill (report, Table 1), the final run only, nothing before it",
    ]
    for phase, hours in (V3_GPU_HOURS | {"total": v3_gpu_hours()}).items():
        lines.append(f"  {phase:<20}{hours:>10,} GPU hours  {hours * PRICE:>10,.0f} $")
    return "\n".join(lines)


def _amount(value: float, digits: int = 0) -> str:
    return f"{value:,.{digits}f}" if value >= 10 else f"{value:.3g}"


def v3_gpu_hours() -> int:
    """2664K + 119K + 5K = 2788K (V3 report, Table 1)."""
    return sum(V3_GPU_HOURS.values())


def v3_dollars() -> float:
    """2788K · 2 $ = 5.576M $ (V3 report, Table 1)."""
    return v3_gpu_hours() * PRICE
