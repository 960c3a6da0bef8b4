"""minids tour: one batch through a model, step by step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minids.presets import TRAINABLE, model_preset


@dataclass(frozen=True)
class Options:
    """Walk one batch through a model, forward and backward: equations, names, shapes, bytes, FLOPs."""

    preset: str = "tiny"
    """Name of a preset; the large ones are walked on paper, without a weight."""


TEXT = "DeepSeek-V3 adopts Multi-head Latent Attention and DeepSeekMoE; a token meets one shared expert and four others. "


def run(options: Options, given: set[str]) -> None:
    from minids.analysis.tour import tour as walk

    config = model_preset(options.preset)
    if options.preset not in TRAINABLE:
        print(walk(config, options.preset))
        return
    from minids.analysis.tour_values import step_values
    from minids.model import DeepSeekV3
    from minids.training.tokenizer import byte_tokenizer

    model = DeepSeekV3(config)
    ids = np.resize(byte_tokenizer().encode(TEXT), (2, 65)) % config.vocab_size  # a smaller vocabulary reads some other text
    values = step_values(model, ids[:, :-1], ids[:, 1:])
    print(walk(config, options.preset, *ids[:, 1:].shape, values=values))
