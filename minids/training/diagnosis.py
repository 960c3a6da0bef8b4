"""Where a run went wrong: the first layer, or the first gradient on the way back, that is not a number."""

import math
from collections.abc import Sequence

import numpy as np

from minids.layers.parameters import Array
from minids.model import DeepSeekV3

EXPLODED = 3.0
"""A loss this many times that of guessing, ln V, is no learning any more: untrained models begin at 1."""


def exploded(loss: float, vocab_size: int) -> bool:
    """Whether a next-token loss is beyond anything a run comes back from, or no number at all."""
    return not loss <= EXPLODED * math.log(vocab_size)


def where_it_began(model: DeepSeekV3, batches: Sequence[tuple[Array, Array]]) -> str:
    """In words, where the step over ``batches`` of (tokens, targets) first met a value that is not finite, in the order of
    cause: a weight, the output of a layer on the way forward, a parameter's gradient (still there) on the way back."""
    for p in model.parameters:
        if not np.isfinite(p.value).all():
            return f"the weight {p.name} is not finite"
    with np.errstate(all="ignore"):
        for tokens, _ in batches:
            if found := _forward(model, tokens):
                return found
    for p in reversed(list(model.parameters)):
        if not np.isfinite(p.grad).all():
            return f"the gradient of {p.name} is not finite, those behind it are"
    return "nowhere: every weight, output and gradient is finite"


def _forward(model: DeepSeekV3, tokens: Array) -> str:
    """The first part of the model whose output is not finite, or an empty string."""
    rotary = model.rotary(tokens.shape[1])
    x, _ = model.embed_tokens.forward(tokens)
    for index, block in enumerate(model.blocks):
        name = f"model.layers.{index}"
        normed, _ = block.input_norm.forward(x)
        attended, _ = block.attention.forward(normed, rotary)
        if not np.isfinite(attended).all():
            return f"the output of {name}.self_attn is not finite, what it reads is"
        x, _, _ = block.feed_forward(x + attended)
        if not np.isfinite(x).all():
            return f"the output of {name}.mlp is not finite, what it reads is"
    hidden, _ = model.norm.forward(x)
    if not np.isfinite(model.head.forward(hidden)[0]).all():
        return "the logits of lm_head are not finite, what it reads is"
    return ""
