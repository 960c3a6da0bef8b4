"""The three smallest layers: a linear map, a norm and an embedding, each one operation with its parameters."""

from functools import partial
from typing import TypeAlias

from minids.backend import op
from minids.layers.parameters import Array, Parameter, Parameters
from minids.layers.put_off import waiting

SavedLinear: TypeAlias = "op.linear.Saved | op.fp8_linear.Saved"  # by the model's precision


class Linear:
    """y = x Wᵀ (+ b), W (out, in)."""

    def __init__(
        self, parameters: Parameters, name: str, n_out: int, n_in: int, bias: bool = False, weight: Parameter | None = None
    ):
        """``weight``: another layer's, to be shared."""
        self.weight = parameters.add(f"{name}.weight", (n_out, n_in)) if weight is None else weight
        self.bias = parameters.add(f"{name}.bias", (n_out,), init="zeros") if bias else None

    def forward(self, x: Array) -> tuple[Array, SavedLinear]:
        return op.linear.forward(x, self.weight.value, self.bias.value if self.bias else None)

    def backward(self, dy: Array, saved: SavedLinear) -> Array:
        assert isinstance(saved, op.linear.Saved)
        totals = self.weight.grad, self.bias.grad if self.bias else None
        if (later := waiting()) is not None:
            later.append(partial(op.linear.backward_weight_into, dy, saved, *totals))
            return op.linear.backward_input(dy, saved)
        return op.linear.backward_into(dy, saved, *totals)


class RMSNorm:
    """y = x / rms(x) · g, g (size,)."""

    def __init__(self, parameters: Parameters, name: str, size: int, eps: float):
        self.gain = parameters.add(f"{name}.weight", (size,), init="ones")
        self.eps = eps

    def forward(self, x: Array) -> tuple[Array, op.rmsnorm.Saved]:
        return op.rmsnorm.forward(x, self.gain.value, self.eps)

    def backward(self, dy: Array, saved: op.rmsnorm.Saved) -> Array:
        dx, d_gain = op.rmsnorm.backward(dy, saved)
        self.gain.grad += d_gain
        return dx


class Embedding:
    """x = W[token], W (V, d)."""

    def __init__(self, parameters: Parameters, name: str, vocab_size: int, hidden_size: int):
        self.weight = parameters.add(f"{name}.weight", (vocab_size, hidden_size))

    def forward(self, tokens: Array) -> tuple[Array, op.embedding.Saved]:
        return op.embedding.forward(tokens, self.weight.value)

    def backward(self, dx: Array, saved: op.embedding.Saved) -> None:
        if (later := waiting()) is not None:
            later.append(partial(self._add, dx, saved))
        else:
            self._add(dx, saved)

    def _add(self, dx: Array, saved: op.embedding.Saved) -> None:
        self.weight.grad += op.embedding.backward(dx, saved)
