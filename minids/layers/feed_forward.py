"""Dense SwiGLU network, of the first blocks and of shared experts: FFN(x) = down_proj ( silu(gate_proj x) · up_proj x )."""

from typing import NamedTuple, TypeAlias

from minids.backend import op
from minids.layers.basic import Linear, SavedLinear
from minids.layers.parameters import Array, Parameters


class Saved(NamedTuple):
    gate: SavedLinear
    up: SavedLinear
    swiglu: op.swiglu.Saved
    down: SavedLinear


SavedFeedForward: TypeAlias = "Saved | op.fp8_feed_forward.Saved"  # by the model's precision


class FeedForward:
    """x (..., d) → y (..., d), hidden width I."""

    def __init__(self, parameters: Parameters, name: str, hidden_size: int, width: int):
        self.gate_proj = Linear(parameters, f"{name}.gate_proj", width, hidden_size)
        self.up_proj = Linear(parameters, f"{name}.up_proj", width, hidden_size)
        self.down_proj = Linear(parameters, f"{name}.down_proj", hidden_size, width)

    def forward(self, x: Array) -> tuple[Array, SavedFeedForward]:
        gate, saved_gate = self.gate_proj.forward(x)  # (..., I)
        up, saved_up = self.up_proj.forward(x)
        act, saved_swiglu = op.swiglu.forward(gate, up)
        y, saved_down = self.down_proj.forward(act)
        return y, Saved(saved_gate, saved_up, saved_swiglu, saved_down)

    def backward(self, dy: Array, saved: SavedFeedForward) -> Array:
        assert isinstance(saved, Saved)
        d_act = self.down_proj.backward(dy, saved.down)
        d_gate, d_up = op.swiglu.backward(d_act, saved.swiglu)
        dx = self.gate_proj.backward(d_gate, saved.gate)
        dx += self.up_proj.backward(d_up, saved.up)
        return dx
