"""minids cost: what training a model costs, on rented GPUs or on the machine in front of you."""

from __future__ import annotations

from dataclasses import dataclass

from minids.presets import model_preset


@dataclass(frozen=True)
class Options:
    """Tokens × FLOPs ÷ utilisation → GPU hours → dollars; and what this machine could do. The defaults are V3's own numbers."""

    preset: str = "deepseek-v3"
    """Name of a preset."""
    tokens: float = 14.8e12
    """Tokens to train on."""
    context: int = 4096
    """Tokens per sequence, for attention's arithmetic."""
    peak: float = 989e12
    """FLOP/s of one GPU at best; 989e12 is an H800 in BF16."""
    utilisation: float = 0.3894
    """Share of the peak that training reaches; 0.3894 is what V3 reached."""
    gpus: int = 2048
    """GPUs at work side by side."""
    price: float = 2.0
    """Dollars per GPU hour."""
    laptop: bool = False
    """Measure this machine: how many years it would take, and what of DeepSeek its memory holds."""
    memory: float = 0.0
    """Memory to fill, in GiB, with --laptop; 0 for this machine's own."""
    json: bool = False
    """Print JSON."""


def run(options: Options, given: set[str]) -> None:
    import json

    from minids.analysis.cost import format_cost, training_cost

    config = model_preset(options.preset)
    o = options
    found = training_cost(config, o.tokens, o.peak, o.utilisation, o.gpus, o.price, o.context)
    if not options.laptop:
        print(json.dumps(found._asdict(), indent=2) if o.json else format_cost(found, o.preset, o.tokens, o.gpus, o.price))
        return
    from minids.analysis.laptop import format_laptop, installed_memory, measure_flops_per_second, training_time, what_fits

    memory = int(o.memory * 2**30) or installed_memory()
    speed = measure_flops_per_second()
    if o.json:
        time = training_time(config, speed, o.tokens, o.context)
        fits = [fit._asdict() for fit in what_fits(memory)]
        print(json.dumps({"memory": memory, "flops_per_second": speed, "seconds": time.seconds, "fits": fits}, indent=2))
        return
    print(format_laptop(memory, speed))
