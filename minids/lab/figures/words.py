"""Numbers as a slide says them."""

from minids.config import ModelConfig
from minids.lab.analysis.parameters import total
from minids.words import si


def size_of(settings: dict) -> str:
    """Fields of a model's configuration → "320 k parameters"."""
    return f"{si(total(ModelConfig(**settings)))} parameters"


def parameter_count(value: float, digits: int = 3) -> str:
    """671026419200 → "671B": billions, millions, or thousands."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if value >= 0.9995 * size:
            return f"{value / size:.{digits}g}{letter}"
    return f"{value:.{digits}g}"


def token_count(tokens: float) -> str:
    """131072 → "128K" where it is a multiple of 1024, else rounded: "1.1 million", "20,000"."""
    if tokens >= 1 << 20 and tokens % (1 << 20) == 0:
        return f"{int(tokens) >> 20}M"
    if tokens >= 1024 and tokens % 1024 == 0:
        return f"{int(tokens) >> 10}K"
    if tokens >= 1e6:
        return f"{tokens / 1e6:.1f} million"
    return f"{float(f'{tokens:.2g}'):,.0f}"
