"""Query heads: the part that carries no position, and the part that RoPE turns.

    q_h = [q_nope_h ; rope(q_rope_h)]        DeepSeek-V3 eq. 9, a concatenation

In MHA, GQA and MQA key heads are made in the same way.
"""

import numpy as np

from minids.ops import rope
from minids.ops.rope import Saved

Array = np.ndarray


def forward(q: Array, cos: Array, sin: Array, interleave: bool = True) -> tuple[Array, Saved]:
    """q (B, T, H, d_nope + d_r), cos and sin of each token's position, (T, d_r/2) or by sequence (B, T, d_r/2) → q of which the
    last d_r numbers of each head are turned."""
    split = q.shape[-1] - 2 * cos.shape[-1]  # d_nope
    turned, saved = rope.forward(q[..., split:], cos, sin, interleave)
    return np.concatenate([q[..., :split], turned], axis=-1), saved


def backward(dy: Array, saved: Saved) -> Array:
    """dy (B, T, H, d_nope + d_r) → dq, of the same shape: turned back."""
    split = dy.shape[-1] - 2 * saved.cos.shape[-1]
    return np.concatenate([dy[..., :split], rope.backward(dy[..., split:], saved)], axis=-1)
