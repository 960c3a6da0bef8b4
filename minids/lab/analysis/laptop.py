"""The reader's own machine: how long V3's training would take on it, and what of DeepSeek fits into its memory."""

import os
import time
from typing import NamedTuple

import numpy as np

from minids.config import ModelConfig
from minids.config.presets import PRESETS
from minids.errors import refuse
from minids.lab.analysis import kv_cache
from minids.lab.analysis.cost import V3_TOKENS, training_work
from minids.lab.analysis.parameters import block_tensors, total

YEAR = 365.25 * 24 * 3600  # seconds
FORMATS = {"fp32": 4, "bf16": 2, "fp8": 1}  # bytes per parameter; FP8 without its scales, which add 0.02 %


class TrainingTime(NamedTuple):
    """A whole training on one machine."""

    flops: float
    seconds: float

    @property
    def years(self) -> float:
        return self.seconds / YEAR


def training_time(config: ModelConfig, flops_per_second: float, tokens: float = V3_TOKENS, context: int = 4096) -> TrainingTime:
    """tokens · training FLOPs per token / (FLOP/s the machine sustains). V3's run at 200 GFLOP/s: 587,000 years."""
    if not flops_per_second > 0:
        raise refuse("flops_per_second", flops_per_second, "must be above 0, such as 2e11 for a laptop")
    work = training_work(config, tokens, context)
    return TrainingTime(work, work / flops_per_second)


def duration(seconds: float) -> str:
    """Seconds in the largest unit of which there is one: "587,298.9 years", "3.2 days", "0.5 seconds"."""
    for unit, length in (("years", YEAR), ("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.1f} seconds"


def measure_flops_per_second(size: int = 1024, seconds: float = 0.3) -> float:
    """float32 FLOP/s of NumPy's matrix product on this machine: the best of the repetitions that fit into ``seconds``."""
    a = np.ones((size, size), dtype=np.float32)
    out = np.empty_like(a)
    np.matmul(a, a, out=out)  # the first call starts the threads
    best, spent = float("inf"), 0.0
    while spent < seconds:
        start = time.perf_counter()
        np.matmul(a, a, out=out)
        elapsed = time.perf_counter() - start
        best, spent = min(best, elapsed), spent + elapsed
    return 2 * size**3 / best


def installed_memory() -> int:
    """Bytes of memory this machine has, where the system tells. Raises ``MinidsError`` where it does not."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not a Unix
        raise refuse("memory", 0, "this system does not tell its memory; give it in GiB") from None


class Fit(NamedTuple):
    """Whether a model's weights fit, and how much context beside them."""

    preset: str
    form: str
    bytes: int
    fits: bool
    context: int  # tokens of BF16 cache that the rest of the memory holds, at most what the model is meant for


def what_fits(memory: int) -> list[Fit]:
    """For every preset and format: do all weights of the main model fit into ``memory`` bytes, and how long a context then?"""
    _check(memory)
    fits = []
    for preset in PRESETS:
        config = ModelConfig.preset(preset)
        for form, width in FORMATS.items():
            size = total(config) * width
            context = min(int((memory - size) // kv_cache.bytes_per_token(config)), config.max_position_embeddings)
            fits.append(Fit(preset, form, size, size <= memory, max(0, context)))
    return fits


class Pieces(NamedTuple):
    """How many pieces of a model fit, for one that does not fit whole."""

    share: float  # of all parameters
    experts: int  # routed experts, of any layer
    dense_blocks: int
    moe_blocks: int


def pieces_that_fit(config: ModelConfig, memory: int, form: str = "fp8") -> Pieces:
    """Pieces of ``config`` that ``memory`` bytes hold, each kind alone: of V3, 16 GiB of FP8 hold 390 of its 14,848 experts."""
    _check(memory)
    if form not in FORMATS:
        raise refuse("form", form, f"must be one of {', '.join(FORMATS)}")
    room = memory // FORMATS[form]  # parameters
    dense, moe = (sum(t.size for t in block_tensors(config, moe)) for moe in (False, True))
    expert = 3 * config.hidden_size * config.moe_intermediate_size
    return Pieces(min(1.0, room / total(config)), room // expert, room // dense, room // moe)


def format_laptop(
    memory: int, flops_per_second: float, preset: str = "deepseek-v3", tokens: float = V3_TOKENS, context: int = 4096
) -> str:
    """What this machine could do, as text: how long a training takes, what fits whole, what of V3."""
    found = training_time(ModelConfig.preset(preset), flops_per_second, tokens, context)
    own = (preset, tokens, context) == ("deepseek-v3", V3_TOKENS, 4096)
    what = "DeepSeek-V3's pre-training" if own else f"training {preset} on {tokens:,.0f} tokens"
    lines = [
        f"{what} is {found.flops:.3g} FLOP: {duration(found.seconds)} at {flops_per_second / 1e9:,.0f} GFLOP/s",
        "",
        f"weights and context that fit into {memory / 2**30:.1f} GiB",
        f"  {'model':<20} {'format':<6} {'GiB':>9}   longest context with a BF16 cache",
    ]
    for fit in what_fits(memory):
        room = f"{fit.context:,} tokens" if fit.fits else "does not fit"
        lines.append(f"  {fit.preset:<20} {fit.form:<6} {fit.bytes / 2**30:>9,.3f}   {room}")
    lines += ["", "of DeepSeek-V3 alone would fit"]
    for form in FORMATS:
        p = pieces_that_fit(ModelConfig.preset("deepseek-v3"), memory, form)
        kinds = (("expert", p.experts), ("MoE block", p.moe_blocks), ("dense block", p.dense_blocks))
        counted = ", or ".join(f"{count:,} {kind}{'s' * (count != 1)}" for kind, count in kinds)
        lines.append(f"  {form:<6} {p.share:>6.2%} of it: {counted}")
    return "\n".join(lines)


def _check(memory: int) -> None:
    if not memory > 0:
        raise refuse("memory", memory, "is a number of bytes above 0, such as 17179869184 for 16 GiB")
