"""Notebook 3: what a model knows of order, how sharp a softmax is, and the checks of its exercises."""

from collections.abc import Callable

import numpy as np

from minids import check
from minids.check import Report
from minids.layers.positions import Rotary
from minids.model import DeepSeekV3
from minids.ops import rope, yarn
from minids.terminal import say
from minids.words import table

Array = np.ndarray

_T, _D_R, _D = 48, 16, 10
_COS, _SIN = yarn.rotation_table(yarn.plain_frequencies(_D_R, 10000.0), np.arange(_T))
_RNG = np.random.default_rng(7)
_X = _RNG.standard_normal((2, _T, 3, _D_R))
_HIDDEN = _RNG.standard_normal((1, _T, _D))
_W_Q, _W_K = _RNG.standard_normal((2, _D_R, _D))


def last_token(model: DeepSeekV3, tokens: Array, rotary: Rotary, blocks: int) -> Array:
    """What so many blocks make of the last of tokens (1, T), (d); 0: what the attention of block 0 alone makes of it."""
    x, _ = model.embed_tokens.forward(tokens)
    if blocks == 0:
        normed, _ = model.blocks[0].input_norm.forward(x)
        return model.blocks[0].attention.forward(normed, rotary)[0][0, -1]
    for block in model.blocks[:blocks]:
        x, _ = block.forward(x, rotary)
    return x[0, -1]


def moved(model: DeepSeekV3, tokens: Array, order: Array, rotary: Rotary, blocks: int) -> float:
    """How far ``last_token`` moves, relative to its length, when tokens (1, T) come in another order, places (T)."""
    straight, shuffled = (last_token(model, t, rotary, blocks) for t in (tokens, tokens[:, order]))
    return float(np.linalg.norm(straight - shuffled) / np.linalg.norm(straight))


def print_pairs(theta: Array, stretched: Array, window: int) -> None:
    """Some pairs of coordinates: the turns that each makes within ``window`` tokens, and its speed before and after YaRN."""
    rows = [("pair", f"turns in {window:,}", "θ", "θ'", "θ/θ'")]
    for i in (0, 10, 11, 16, 22, 23, 31):
        turns, slower = window * theta[i] / (2 * np.pi), theta[i] / stretched[i]
        rows.append((i, f"{turns:.3f}", f"{theta[i]:.3e}", f"{stretched[i]:.3e}", f"{slower:.2f}"))
    say(table(rows, align="r"))


def share_looked_at(keys: int, sharpness: float, rows: int = 200) -> float:
    """exp(entropy) of the softmax over so many random scores, as a share of them, mean over some rows."""
    z = sharpness * np.random.default_rng(1).standard_normal((rows, keys))
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    return float(np.exp(-np.sum(p * np.log(p), axis=-1)).mean() / keys)


# Exercises 1 and 2.


def check_turn(turn: Callable) -> Report:
    """RoPE of interleaved pairs, x (B, T, H, d_r) with cos and sin (T, d_r/2)."""
    return check.against(rope.forward, turn, _X, _COS, _SIN)


def check_turn_backward(turn: Callable, turn_backward: Callable) -> Report:
    """Its backward pass, by ``turn`` as it is."""
    few = {"x": _X[:1, :3, :2, :4], "cos": _COS[:3, :2], "sin": _SIN[:3, :2]}
    return check.gradient(turn, turn_backward, few, wrt=["x"])


# Exercise 3.


def check_to_half_split(to_half_split: Callable) -> Report:
    """The scores of interleaved weights, and those of the ported ones under half-split RoPE."""

    def ported_scores(w_q, w_k):
        ported = [np.asarray(to_half_split(w)) for w in (w_q, w_k)]
        if any(w.shape != w_q.shape for w in ported):
            raise ValueError(f"to_half_split returns shape {ported[0].shape}, expected {w_q.shape}")
        return _scores(*ported, interleave=False)

    return check.against(right_scores, ported_scores, _W_Q, _W_K)


def right_scores(w_q: Array, w_k: Array) -> Array:
    """Scores (T, T) of weights (d_r, d) that were trained interleaved."""
    return _scores(w_q, w_k, interleave=True)


def wrong_signs() -> float:
    """The share of scores whose sign is wrong if these weights are not ported."""
    unported = _scores(_W_Q, _W_K, interleave=False)
    return float(np.mean(np.sign(unported) != np.sign(right_scores(_W_Q, _W_K))))


def _scores(w_q: Array, w_k: Array, interleave: bool) -> Array:
    made = [rope.forward((_HIDDEN @ w.T)[:, :, None], _COS, _SIN, interleave)[0][0, :, 0] for w in (w_q, w_k)]
    return made[0] @ made[1].T


# Exercise 4.


def check_yarn(my_yarn: Callable) -> Report:
    """Stretched frequencies for V3's sizes, for a smaller factor, and for another base and length."""
    sizes = [(64, 1e4, 40.0, 4096), (64, 1e4, 8.0, 4096), (128, 5e5, 4.0, 8192)]
    return check.against(yarn.yarn_frequencies, my_yarn, sizes)
