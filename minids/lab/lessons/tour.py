"""Notebook 1: gates as a table, and the checks of its exercises."""

from collections.abc import Callable

import numpy as np

from minids import check
from minids.check import Report
from minids.config import ModelConfig
from minids.lab.analysis import kv_cache
from minids.layers.block import Block
from minids.layers.positions import Rotary
from minids.ops import router
from minids.ops.router import Routing

Array = np.ndarray


def gates_of(routing: Routing) -> Array:
    """(N, E): the gate of every expert, 0 where it was not chosen."""
    grid = np.zeros(routing.scores.shape)
    np.put_along_axis(grid, routing.chosen, routing.gates, axis=1)
    return grid


# Exercise 1.


def check_gates(gates: Callable) -> Report:
    """The gates of 6 tokens and 16 experts, with biases that are not zero."""
    rng = np.random.default_rng(7)
    logits, bias = rng.standard_normal((6, 16)), 0.3 * rng.standard_normal(16)
    right, _ = router.forward(logits, bias, top_k=4, n_group=4, topk_group=2, scale=2.5)

    def right_gates(scores, bias, chosen):
        return right.gates

    return check.against(right_gates, gates, right.scores, bias, right.chosen)


# Exercise 2.


def check_my_block(my_block: Callable, block: Block, rotary: Rotary) -> Report:
    """The reader's block beside that of the model, on random states (1, T, d)."""

    def right_block(x):
        return block.forward(x, rotary)[0]

    x = np.random.default_rng(7).standard_normal((1, len(rotary.cos), block.input_norm.gain.value.size))
    return check.against(right_block, my_block, x)


# Exercise 3.


def check_shown_and_asked(shown_and_asked: Callable, tokens: Array, targets: Array) -> Report:
    """What an MTP module is shown and asked for, of tokens and targets (B, T)."""
    return check.against(right_pair, shown_and_asked, tokens, targets)


def right_pair(tokens: Array, targets: Array) -> tuple[Array, Array]:
    """From the sequence (B, T + 1) that both were cut from."""
    together = np.concatenate([tokens, targets[:, -1:]], axis=1)
    return together[:, 1:-1], together[:, 2:]


# Exercise 4.


def check_cache_bytes(cache_bytes: Callable, ours: ModelConfig) -> Report:
    """Bytes per token in BF16, for three published models and ``ours``."""
    models = [ModelConfig.preset(name) for name in ("deepseek-v3", "deepseek-v2", "kimi-k2")]
    return check.against(kv_cache.bytes_per_token, cache_bytes, [(c,) for c in (*models, ours)])
