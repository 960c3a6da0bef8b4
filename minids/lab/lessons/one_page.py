"""Notebook 0: what the lines of ``pico.py`` are for, and the checks of the exercises."""

import ast
import inspect
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from minids import check, pico
from minids.check import Report

Array = np.ndarray

# the headings of pico.py by how they begin, and what stands below each
_HEADINGS = {
    "Functions that": "matrices, norms, SwiGLU, embedding",
    "Positions": "rotary positions, YaRN",
    "Multi-head": "latent attention",
    "Mixture": "router and experts",
    "The main": "blocks, main model",
    "Multi-token": "multi-token prediction",
    "The losses": "losses and all gradients",
    "Using": "generation",
    "Training": "AdamW, training, command line",
}
_USE = ("generation", "AdamW, training, command line")


class Lines(NamedTuple):
    """Lines of one part of the file, by what they are for."""

    forward: int = 0
    backward: int = 0
    use: int = 0  # training and generation
    text: int = 0


def lines_by_part() -> dict[str, Lines]:
    """Part of ``pico.py`` → lines of its functions; last what lies outside of them: text, imports, sizes, empty lines."""
    text = inspect.getsource(pico)
    lines, part = text.splitlines(), ""
    found: dict[str, Lines] = {}
    functions = {n.lineno: n for n in ast.parse(text).body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    for number, line in enumerate(lines, start=1):
        part = next((label for beginning, label in _HEADINGS.items() if line.startswith(f"# {beginning}")), part)
        if function := functions.get(number):
            size = function.end_lineno - number + 1
            back = function.name.endswith("_backward") or function.name == "loss_and_grads"
            way = "use" if part in _USE else "backward" if back else "forward"
            before = found.get(part, Lines())
            found[part] = before._replace(**{way: getattr(before, way) + size})
    rest = len(lines) - sum(map(sum, found.values()))
    return found | {"explanation, sizes, empty lines": Lines(text=rest)}


def letters(c: Any, batch: int, time: int) -> dict[str, int]:
    """The sizes of a configuration of ``pico.py`` by the letters of the report, for ``notebook.shapes``."""
    heads, d_h, d_r, d_v = c.num_attention_heads, c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim
    sizes = {"B": batch, "T": time, "N": batch * time, "T-1": time - 1, "d": c.hidden_size, "2d": 2 * c.hidden_size}
    sizes |= {"H": heads, "d_h+d_r": d_h + d_r, "d_h+d_v": d_h + d_v, "d_v": d_v, "d_r": d_r, "H·d_v": heads * d_v}
    sizes |= {"d_c'": c.q_lora_rank, "d_c": c.kv_lora_rank, "V": c.vocab_size}
    return sizes | {"E": c.n_routed_experts, "K": c.num_experts_per_tok, "I": c.moe_intermediate_size}


def curves(history: Sequence[pico.Losses]) -> tuple[Array, Array]:
    """Losses of the next byte and the one after it (steps, 2); MaxVio of each router (steps, layers)."""
    losses = np.array([(one.main, one.mtp[0]) for one in history])
    busiest = []
    for one in history:
        loads = [np.bincount(chosen.ravel(), minlength=pico.CONFIG.n_routed_experts) for chosen in one.choices.values()]
        busiest.append([load.max() / load.mean() - 1 for load in loads])
    return losses, np.array(busiest)


# Exercise 1.


def check_linear_backward(my_linear_backward: Callable) -> Report:
    """The backward pass of a matrix product, dy (B, T, out), x (B, T, in), W (out, in)."""
    rng = np.random.default_rng(7)
    dy, x, W = (rng.standard_normal(shape) for shape in ((2, 5, 7), (2, 5, 4), (7, 4)))
    return check.against(linear_reference, my_linear_backward, dy, x, W)


def linear_reference(dy: Array, x: Array, W: Array) -> tuple[Array, Array]:
    """``pico.linear_backward``, with arrays in place of names."""
    gradient = {"W.weight": np.zeros_like(W)}
    dx = pico.linear_backward(dy, x, {"W.weight": W}, gradient, "W")
    return dx, gradient["W.weight"]


# Exercise 2.


def check_split_key_gradient(split_key_gradient: Callable) -> Report:
    """The gradient of 3 heads' keys, 15 numbers of content and 8 of position."""
    dk = np.random.default_rng(7).standard_normal((2, 3, 11, 23))
    return check.against(key_reference, split_key_gradient, dk, 15)


def key_reference(dk: Array, d_h: int) -> tuple[Array, Array]:
    """Content part of each head; position part, of all heads together."""
    content, position = np.split(dk, [d_h], axis=-1)
    return content, np.einsum("bhtr->btr", position)


# Exercise 3.


def check_tied_gradient(tied_gradient: Callable, w: pico.Weights, tokens: Array, targets: Array, c: Any) -> Report:
    """The gradient of one matrix for embedding and head, beside what ``pico.py`` makes of a model that has but one."""
    shared = w["model.embed_tokens.weight"]
    _, apart = pico.loss_and_grads(tokens, targets, w | {"lm_head.weight": shared}, c)

    def one_matrix(g):
        one = {name: array for name, array in w.items() if name != "lm_head.weight"}
        _, together = pico.loss_and_grads(tokens, targets, one, SimpleNamespace(**vars(c) | {"tie_word_embeddings": True}))
        return together["model.embed_tokens.weight"]

    return check.against(one_matrix, tied_gradient, apart)
