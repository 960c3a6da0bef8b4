"""What NumPy makes of a text with the weights that are in the page: the page's self-test compares itself with it.

Computed by ``minids.pico``, in float64.
"""

from typing import Any

import numpy as np

from minids import pico
from minids.config import ModelConfig

Array = np.ndarray
TEXTS = ("The value of a list is ", "def add(a, b):\n    return ", "Ben has 12 books and buys 30. ")
READ, WRITTEN, TOP = 24, 16, 5


def expected(weights: dict[str, Array], config: ModelConfig, ids: list[int]) -> dict[str, Any]:
    """For a text of ``ids``: the best logits at every token, the experts in every layer, and how it goes on greedily.

    ``weights``: float32 as unpacked. Numbers are rounded to nine digits behind the point, far below what is compared.
    """
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    tokens = np.array([ids])
    logits = pico.deepseek_v3(tokens, w, config)[0]  # (T, V)
    best = np.argsort(-logits, axis=-1, kind="stable")[:, :TOP]
    found = {
        "tokens": ids,
        "best": best.tolist(),
        "logits": np.take_along_axis(logits, best, axis=-1).round(9).tolist(),
        "experts": experts(tokens, w, config),
        "continued": pico.generate(tokens, w, config, WRITTEN)[0].tolist(),
    }
    if config.num_nextn_predict_layers and len(ids) > 1:
        found["guesses"] = mtp_logits(tokens, w, config, 1)[0].argmax(axis=-1).tolist()
    return found


def mtp_logits(tokens: Array, w: dict[str, Array], config: ModelConfig, depth: int) -> Array:
    """(1, T − depth, V): pico's, with the hidden states it needs."""
    return pico.mtp_logits(tokens, pico.hidden_states(tokens, w, config), w, config, depth)


def experts(tokens: Array, w: dict[str, Array], config: ModelConfig) -> list[list[list[int]] | None]:
    """Per layer the sorted experts of every token, None for a layer without any."""
    choices: dict[str, Array] = {}
    pico.main_model(tokens, w, config, choices)
    layers = [choices.get(f"model.layers.{layer}.mlp.") for layer in range(config.num_hidden_layers)]
    return [None if chosen is None else np.sort(chosen, axis=-1).tolist() for chosen in layers]
