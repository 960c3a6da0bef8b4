"""What the linear layers of a model multiply in a step: the inputs and output gradients of each, as they come."""

from typing import NamedTuple

import numpy as np

from minids.backend import replaced, use_backend
from minids.layers.basic import Linear
from minids.model import DeepSeekV3
from minids.ops import quantise

Array = np.ndarray


class Operand(NamedTuple):
    layer: str  # the weight's name
    kind: str  # "input" or "gradient"
    values: Array  # (N, d)

    @property
    def outlier(self) -> float:
        """The largest number over the median of those that are not 0."""
        sizes = np.abs(self.values[self.values != 0])
        return float(sizes.max() / np.median(sizes)) if sizes.size else 1.0

    def lost(self, tile: tuple[int, int] | None) -> float:
        """Share of the numbers that E4M3 sets to 0 with a scale for each tile, or with one for the matrix (None)."""
        return float(np.mean((quantise.rounded(self.values, tile) == 0) & (self.values != 0)))


def operands(model: DeepSeekV3, tokens: Array, targets: Array) -> list[Operand]:
    """Of every linear layer (experts, which are multiplied together, left out), in the order in which they run."""
    found: list[Operand] = []
    forward, backward = Linear.forward, Linear.backward

    def read(self, x, *rest, **named):
        found.append(Operand(self.weight.name, "input", x.reshape(-1, x.shape[-1]).astype(np.float32)))
        return forward(self, x, *rest, **named)

    def read_back(self, dy, *rest, **named):
        found.append(Operand(self.weight.name, "gradient", dy.reshape(-1, dy.shape[-1]).astype(np.float32)))
        return backward(self, dy, *rest, **named)

    with use_backend("numpy"), replaced(Linear, forward=read, backward=read_back):
        model.parameters.zero_grads()
        model.forward_backward(tokens, targets)
    model.parameters.zero_grads()
    return found
