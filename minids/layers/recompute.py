"""What need not be kept of a forward pass, and how the backward pass forms it again (V3 section 3.2.3).

    dropped                                  formed again from                       by
    normalised rows n, 1/rms, y              the norm's input                        the norm
    q, k, v and attention weights            both latents, before their norms        norms, up-projections, RoPE, attention
    SwiGLU's product, sigmoid(gate)          gate and up                             SwiGLU

The same operations on the same arrays give the same bits, so gradients do not change. A linear map needs its input in its
backward pass: where that is a row that a norm makes, the input is left out (``without_input``) and put back (``with_input``).
In FP8 a linear map keeps its input as 8-bit codes, and keeps them here too. Experts keep the rows that they were sent, which on
a cluster came from other machines.
"""

from typing import TypeVar

import numpy as np

from minids.backend import op
from minids.layers.basic import SavedLinear
from minids.layers.feed_forward import Saved as SavedPlain
from minids.layers.feed_forward import SavedFeedForward
from minids.layers.parameters import Array

NOTHING: Array = np.empty(0, np.float32)  # in the place of what was dropped


def without_input(saved: SavedLinear) -> SavedLinear:
    return saved._replace(x=NOTHING) if isinstance(saved, op.linear.Saved) else saved


def with_input(saved: SavedLinear, x: Array) -> SavedLinear:
    """x (…, in) as the map was given it."""
    return saved._replace(x=x.reshape(-1, x.shape[-1])) if isinstance(saved, op.linear.Saved) else saved


Saved = TypeVar("Saved")


def feed_forward_without(saved: SavedFeedForward) -> SavedFeedForward:
    """Of a dense network, without input, sigmoid and product. In FP8 it keeps none of them as numbers."""
    if not isinstance(saved, SavedPlain):
        return saved
    gate, up, down = (without_input(part) for part in (saved.gate, saved.up, saved.down))
    return SavedPlain(gate, up, _inner_without(saved.swiglu), down)


def feed_forward_again(saved: SavedFeedForward, x: Array) -> SavedFeedForward:
    """x (…, d): the network's input."""
    if not isinstance(saved, SavedPlain):
        return saved
    act, swiglu = op.swiglu.forward(saved.swiglu.gate, saved.swiglu.up)
    return SavedPlain(with_input(saved.gate, x), with_input(saved.up, x), swiglu, with_input(saved.down, act))


def experts_without(saved: Saved) -> Saved:
    """Of the routed experts in NumPy; the compiled ones and those in FP8 keep no product."""
    if isinstance(saved, op.routed_experts.Saved):
        return saved._replace(experts=experts_without(saved.experts))
    if isinstance(saved, op.grouped_feed_forward.Saved):
        return saved._replace(act=NOTHING, inner=_inner_without(saved.inner))
    return saved


def experts_again(saved: Saved) -> Saved:
    if isinstance(saved, op.routed_experts.Saved):
        return saved._replace(experts=experts_again(saved.experts))
    if isinstance(saved, op.grouped_feed_forward.Saved):
        act, inner = op.swiglu.forward(saved.inner.gate, saved.inner.up)
        return saved._replace(act=act, inner=inner)
    return saved


def _inner_without(saved: op.swiglu.Saved) -> op.swiglu.Saved:
    """SwiGLU's inputs without sigmoid(gate), which the compiled one does not keep anyway."""
    return saved._replace(s=NOTHING) if isinstance(saved, op.swiglu.Saved) else saved
