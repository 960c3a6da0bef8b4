"""Notebook 2: errors of measured slopes, the reach of a gradient, what a block keeps, and the checks of its exercises."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minids import check, pico
from minids.check import Report
from minids.config import ModelConfig
from minids.model import DeepSeekV3
from minids.ops import embedding, rmsnorm
from minids.terminal import say
from minids.words import table

Array = np.ndarray

_RNG = np.random.default_rng(7)
_P = _RNG.standard_normal((3, 4))
_TOKENS, _GAIN = _RNG.standard_normal((2, 3, 8)), 1 + 0.2 * _RNG.standard_normal(8)
_SCORES, _WANTED = _RNG.standard_normal((2, 4, 6))
_IDS = np.array([[3, 1, 3], [0, 3, 1]])  # token 3 in three places, 1 in two, 2 and 4 in none
_TABLE = _RNG.standard_normal((5, 2))


def errors(differences: Callable, combined: Callable, steps: Array, exact: Array) -> dict[str, Array]:
    """The largest relative error of ``differences`` in both precisions, and of ``combined``, at every step; prints the best."""
    methods = {
        "float32": lambda h: differences(h, np.float32),
        "float64": differences,
        "float64, two steps combined": combined,
    }
    largest = np.abs(exact).max()
    found = {name: np.array([np.abs(measure(h) - exact).max() / largest for h in steps]) for name, measure in methods.items()}
    for name, error in found.items():
        say(f"{name:<28} at best {error.min():.0e}, with h = {steps[error.argmin()]:.0e}")
    return found


def cosines(x: Array, y: Array) -> Array:
    """Cosines of the angles between vectors (..., d) and (..., d)."""
    return np.sum(x * y, axis=-1) / (np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1))


def for_pico(model: DeepSeekV3) -> tuple[pico.Weights, ModelConfig]:
    """A model's weights as ``pico.py`` takes them, and its configuration with the main loss alone."""
    weights = {p.name: p.value for p in model.parameters} | model.parameters.buffers
    return weights, model.config.replace(num_nextn_predict_layers=0, aux_loss_alpha=0.0)


def reach(w: pico.Weights, c: Any, tokens: Array, targets: Array, position: int) -> Array:
    """(T): length of the gradient that arrives at every token's row from the loss at one position of tokens (1, T)."""
    rows = {**w, "model.embed_tokens.weight": w["model.embed_tokens.weight"][tokens[0]]}  # a row for each place
    only = np.full_like(targets, pico.IGNORE)
    only[0, position] = targets[0, position]
    _, gradients = pico.loss_and_grads(np.arange(tokens.size)[None], only, rows, c)
    return np.linalg.norm(gradients["model.embed_tokens.weight"], axis=-1)


def random_direction(arrays: Mapping[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    """A random direction in the space of all these arrays together, of length 1."""
    direction = {name: rng.standard_normal(array.shape) for name, array in arrays.items()}
    length = np.sqrt(sum(np.sum(v * v) for v in direction.values()))
    return {name: v / length for name, v in direction.items()}


def slope(f: Callable[[float], float], h: float) -> float:
    """The slope of f at 0 from four evaluations, two steps combined so that the term with h² cancels."""
    wide, narrow = ((f(step) - f(-step)) / (2 * step) for step in (h, h / 2))
    return (4 * narrow - wide) / 3


def print_kept(c: ModelConfig) -> None:
    """What one dense block keeps for its backward pass, numbers per token, and which of them V3 computes again."""
    heads, d = c.num_attention_heads, c.hidden_size
    kept = {
        "residual stream, twice": (2 * d, False),
        "outputs of the two norms": (2 * d, True),
        "the two latents and k_rope": (c.q_lora_rank + c.kv_lora_rank + c.qk_rope_head_dim, False),
        "the two latents, normalised": (c.q_lora_rank + c.kv_lora_rank, True),
        "queries of all heads": (heads * c.qk_head_dim, True),
        "keys and values of all heads": (heads * (c.qk_nope_head_dim + c.v_head_dim), True),
        "output of attention": (heads * c.v_head_dim, False),
        "gate and up of SwiGLU": (2 * c.intermediate_size, False),
    }
    everything = sum(count for count, _ in kept.values())
    again = sum(count for count, recomputed in kept.values() if recomputed)
    rows = [(name, f"{count:,}", "computed again" * recomputed) for name, (count, recomputed) in kept.items()]
    say(table([*rows, ("all", f"{everything:,}", f"of which {again / everything:.0%} need not be kept")], align="lrl"))


# Exercise 1.


def check_silu_backward(silu_forward: Callable, silu_backward: Callable) -> Report:
    """The gradient of silu, p (3, 4)."""
    return check.gradient(silu_forward, silu_backward, {"p": _P})


# Exercise 2.


def check_thrifty(thrifty_forward: Callable, thrifty_backward: Callable) -> list[Report]:
    """The outputs, the gradients, and that nothing but x and gain is saved."""

    def both_inputs(x, gain):
        return x, gain

    def what_is_saved(x, gain):
        return thrifty_forward(x, gain)[1]

    return [
        check.against(rmsnorm.forward, thrifty_forward, _TOKENS, _GAIN),
        check.gradient(thrifty_forward, thrifty_backward, {"x": _TOKENS, "gain": _GAIN}),
        check.against(both_inputs, what_is_saved, _TOKENS, _GAIN),
    ]


def check_rmsnorm_backward(backward: Callable) -> Report:
    """A backward pass for what ``rmsnorm.forward`` saves."""
    return check.gradient(rmsnorm.forward, backward, {"x": _TOKENS, "gain": _GAIN})


# Exercise 3.


def check_softmax_backward(softmax_forward: Callable, softmax_backward: Callable) -> list[Report]:
    """Against slopes, and against the line of ``pico.py``."""
    return [
        check.gradient(softmax_forward, softmax_backward, {"z": 3 * _SCORES}),
        check.against(pico.softmax_backward, softmax_backward, _WANTED, pico.softmax(_SCORES)),
    ]


# Exercise 4.


def check_lookup_backward(lookup_backward: Callable) -> Report:
    """The gradient of a table with five rows, of which three are read, two of them more than once."""
    return check.gradient(embedding.forward, lookup_backward, {"tokens": _IDS, "weight": _TABLE})


def last_of_its_kind(tokens: Array) -> Array:
    """(B, T): whether no equal token follows, row after row."""
    flat = tokens.ravel().tolist()
    return np.array([token not in flat[place + 1 :] for place, token in enumerate(flat)]).reshape(tokens.shape)
