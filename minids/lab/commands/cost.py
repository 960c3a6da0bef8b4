"""minids cost: what training a model costs, on rented GPUs or on the machine in front of you."""

import json
from dataclasses import dataclass

from minids.config import ModelConfig
from minids.errors import refuse
from minids.terminal import fit, say

MOST_MEMORY = 2**30  # GiB, an exbibyte: more than there is


@dataclass(frozen=True)
class Options:
    """Tokens × FLOPs ÷ utilisation → GPU hours → dollars; and what this machine could do. The defaults are V3's own numbers."""

    preset: str = "deepseek-v3"
    """Name of a preset."""
    tokens: float = 14.8e12
    """Tokens to train on."""
    context: int | None = None
    """Tokens per sequence, for attention's arithmetic; 4096, or the model's longest if that is less."""
    peak: float = 989e12
    """FLOP/s of one GPU at best; 989e12 is an H800 in BF16."""
    utilisation: float = 0.3894
    """Share of the peak that training reaches; 0.3894 is what V3 reached."""
    gpus: int = 2048
    """GPUs at work side by side."""
    price: float = 2.0
    """Dollars per GPU hour."""
    laptop: bool = False
    """Measure this machine: how long it would take, and what of DeepSeek its memory holds. No GPU is rented then."""
    memory: float = 0.0
    """Memory to fill, in GiB, with --laptop; 0 for this machine's own."""
    json: bool = False
    """Print JSON."""


def run(options: Options, given: set[str]) -> None:
    from minids.lab.analysis.flops import usual_context

    o = options
    for name in sorted(given & ({"peak", "utilisation", "gpus", "price"} if o.laptop else {"memory"})):
        because = "concerns rented GPUs, not --laptop" if o.laptop else "concerns --laptop; say it too"
        raise refuse(name, getattr(o, name), because)
    config = ModelConfig.preset(o.preset)
    context = usual_context(config) if o.context is None else o.context
    if not o.laptop:
        from minids.lab.analysis.cost import format_cost, training_cost

        found = training_cost(config, o.tokens, o.peak, o.utilisation, o.gpus, o.price, context)
        say(json.dumps(found._asdict(), indent=2) if o.json else fit(format_cost(found, o.preset, o.tokens, o.gpus, o.price)))
        return
    from minids.lab.analysis.laptop import format_laptop, installed_memory, measure_flops_per_second, training_time, what_fits

    if not 0 <= o.memory <= MOST_MEMORY:
        raise refuse("memory", o.memory, f"must be from 0, for this machine's own, to {MOST_MEMORY:,} GiB")
    memory = int(o.memory * 2**30) or installed_memory()
    speed = measure_flops_per_second()
    if o.json:
        time, fits = training_time(config, speed, o.tokens, context), [fit._asdict() for fit in what_fits(memory)]
        say(json.dumps({"memory": memory, "flops_per_second": speed, "seconds": time.seconds, "fits": fits}, indent=2))
    else:
        say(fit(format_laptop(memory, speed, o.preset, o.tokens, context)))
