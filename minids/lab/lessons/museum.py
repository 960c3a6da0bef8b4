"""Notebook 14: two wrong gradients of a key that all heads share."""

import numpy as np

Array = np.ndarray
Saved = tuple[Array, Array]  # q (T, H, d_r), k (T, d_r)


def gradient_of_one_head(dy: Array, saved: Saved) -> tuple[Array, Array]:
    """Wrong: dq is right; dk takes head 0 alone and forgets the others."""
    q, k = saved
    return np.einsum("hts,sr->thr", dy, k), np.einsum("ts,tr->sr", dy[0], q[:, 0])


def gradient_averaged(dy: Array, saved: Saved) -> tuple[Array, Array]:
    """Wrong: dk is the mean over heads, where it should be the sum."""
    q, k = saved
    return np.einsum("hts,sr->thr", dy, k), np.einsum("hts,thr->sr", dy, q) / len(dy)
