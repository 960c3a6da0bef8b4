"""Layers in FP8, and the choice between them and the usual ones.

With ``precision = "fp8"`` these run in FP8, as in DeepSeek-V3 (section 3.3.1 and the number types of its released weights):

    attention      every projection; the one behind the attention operator takes E5M6 with power-of-two scales
    feed-forward   dense networks, routed and shared experts

but not embedding, head, router, norms, the attention operator, eh_proj of the MTP modules, master weights, gradients, the loss.
With ``precision = "bf16"`` the same maps have operands in BF16.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from minids.backend import op
from minids.config import ModelConfig
from minids.layers.basic import Linear, SavedLinear
from minids.layers.feed_forward import FeedForward, SavedFeedForward
from minids.layers.parameters import Array, Parameter, Parameters
from minids.ops.fp8_accumulation import NEVER_PROMOTED
from minids.ops.fp8_linear import Arithmetic, Scheme


def scheme_of(config: ModelConfig, parameters: Parameters | None = None, name: str = "") -> Scheme | None:
    """How a model's linear maps are quantised; None in full precision. With delayed scaling the layer called ``name`` has a
    history among ``parameters``."""
    if config.precision == "fp32":
        return None
    if config.precision == "bf16":
        return Scheme(tile=None)
    tile = config.fp8_tile if config.fp8_scaling == "tile" else None
    history = parameters.amaxes(name) if parameters is not None and config.fp8_scaling == "delayed" else None
    return Scheme(tile, accumulator=None if config.fp8_promotion else NEVER_PROMOTED, history=history)


def arithmetic_of(config: ModelConfig) -> dict[str, Arithmetic]:
    """Who rounds and multiplies, where that is not the backend's FP8: as arguments of the operations."""
    return {"by": op.bf16_arithmetic.BF16} if config.precision == "bf16" else {}


def projection(
    config: ModelConfig,
    parameters: Parameters,
    name: str,
    n_out: int,
    n_in: int,
    bias: bool = False,
    after_attention: bool = False,
) -> Linear:
    """A linear map of an attention layer, in the model's precision."""
    scheme = scheme_of(config, parameters, name)
    if scheme is None:
        return Linear(parameters, name, n_out, n_in, bias)
    scheme = scheme.after_attention() if after_attention else scheme
    return Fp8Linear(parameters, name, n_out, n_in, bias, scheme, by=arithmetic_of(config))


def feed_forward(config: ModelConfig, parameters: Parameters, name: str, width: int) -> FeedForward:
    """A dense network of the given hidden width, in the model's precision."""
    scheme = scheme_of(config, parameters, name)
    if scheme is None:
        return FeedForward(parameters, name, config.hidden_size, width)
    return Fp8FeedForward(parameters, name, config.hidden_size, width, scheme, arithmetic_of(config))


class Fp8Linear(Linear):
    """y = x̂ Ŵᵀ (+ b): the weight is kept and updated in full precision, and quantised on every use."""

    def __init__(
        self,
        parameters: Parameters,
        name: str,
        n_out: int,
        n_in: int,
        bias: bool,
        scheme: Scheme,
        weight: Parameter | None = None,  # another layer's, to be shared
        by: Mapping[str, Arithmetic] = MappingProxyType({}),
    ):
        super().__init__(parameters, name, n_out, n_in, bias, weight)
        self.scheme, self.by = scheme, by

    def forward(self, x: Array) -> tuple[Array, SavedLinear]:
        return op.fp8_linear.forward(x, self.weight.value, self.bias.value if self.bias else None, self.scheme, **self.by)

    def backward(self, dy: Array, saved: SavedLinear) -> Array:
        assert isinstance(saved, op.fp8_linear.Saved)
        dx, d_weight, d_bias = op.fp8_linear.backward(dy, saved, **self.by)
        self.weight.grad += d_weight
        if self.bias and d_bias is not None:
            self.bias.grad += d_bias
        return dx


class Fp8FeedForward(FeedForward):
    """A dense SwiGLU network: one expert that gets every row."""

    def __init__(
        self, parameters: Parameters, name: str, hidden_size: int, width: int, scheme: Scheme,
        by: Mapping[str, Arithmetic] = MappingProxyType({}),
    ):  # fmt: skip
        super().__init__(parameters, name, hidden_size, width)
        self.scheme, self.by = scheme, by

    def forward(self, x: Array) -> tuple[Array, SavedFeedForward]:
        rows = x.reshape(-1, x.shape[-1])  # (N, d)
        gate, up, down = (layer.weight.value[None] for layer in self._layers)  # (1, I, d), (1, I, d), (1, d, I)
        y, saved = op.fp8_feed_forward.forward(rows, np.array([0, len(rows)]), gate, up, down, self.scheme, **self.by)
        return y.reshape(x.shape), saved

    def backward(self, dy: Array, saved: SavedFeedForward) -> Array:
        assert isinstance(saved, op.fp8_feed_forward.Saved)
        d_rows, *d_weights = op.fp8_feed_forward.backward(dy.reshape(-1, dy.shape[-1]), saved, **self.by)
        for layer, d_weight in zip(self._layers, d_weights, strict=True):
            layer.weight.grad += d_weight[0]
        return d_rows.reshape(dy.shape)

    @property
    def _layers(self) -> tuple[Linear, Linear, Linear]:
        return self.gate_proj, self.up_proj, self.down_proj
