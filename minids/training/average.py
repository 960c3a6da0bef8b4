"""An exponential moving average of the weights, kept beside them: an early look at how the model does once the learning rate
has decayed (V3 section 3.2.3).

    e_t = Σ_i (1 − d) d^{t−i} θ_i / (1 − d^t)          e_t ← e_{t−1} + (1 − d) / (1 − d^t) · (θ_t − e_{t−1})

The divisor is Adam's: after one step the average is that step's weights, and never has a share of the initial ones. Balancing
biases are not averaged: they follow the load, and a model with averaged weights uses the present ones.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from minids.layers.parameters import Array, Parameters


class WeightAverage:
    """Of all parameters, one step at a time."""

    def __init__(self, parameters: Parameters, decay: float):
        self.parameters, self.decay = parameters, decay
        self.values = parameters.values.copy()  # (P,) e
        self.steps = 0  # t

    def update(self) -> None:
        """After a step."""
        self.steps += 1
        share = (1 - self.decay) / (1 - self.decay**self.steps)
        self.values += self.values.dtype.type(share) * (self.parameters.values - self.values)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within it the model's weights are the average; afterwards, to the bit, what they were."""
        with weights_in_place(self.parameters, self.values):
            yield

    def state(self) -> dict[str, Array]:
        """What a resumed run needs."""
        return {"average": self.values, "steps": np.array(self.steps, dtype=np.int64)}

    def restore(self, state: dict[str, Array]) -> None:
        self.values[...] = state["average"]
        self.steps = int(state["steps"])


@contextmanager
def weights_in_place(parameters: Parameters, values: Array) -> Iterator[None]:
    """Within it the ``parameters`` have these ``values`` (P,)."""
    own = parameters.values.copy()
    parameters.values[...] = values
    try:
        yield
    finally:
        parameters.values[...] = own
