"""minids tour: one batch through a model, step by step."""

from dataclasses import dataclass

import numpy as np

from minids.config import ModelConfig
from minids.config.presets import TRAINABLE
from minids.terminal import fit, say


@dataclass(frozen=True)
class Options:
    """Walk one batch through a model, forward and backward: equations, names, shapes, bytes, FLOPs."""

    preset: str = "tiny"
    """Name of a preset; the large ones are walked on paper, without a weight."""


TEXT = "DeepSeek-V3 adopts Multi-head Latent Attention and DeepSeekMoE; a token meets one shared expert and four others. "


def run(options: Options, given: set[str]) -> None:
    from minids.lab.analysis.tour import tour as walk

    config = ModelConfig.preset(options.preset)
    if options.preset not in TRAINABLE:
        say(fit(walk(config, options.preset)))
        return
    from minids.checkpoint.tokenizer import byte_tokenizer
    from minids.lab.analysis.tour_values import step_values
    from minids.model import DeepSeekV3

    model = DeepSeekV3(config)
    ids = np.resize(byte_tokenizer().encode(TEXT), (2, 65)) % config.vocab_size  # a smaller vocabulary reads some other text
    values = step_values(model, ids[:, :-1], ids[:, 1:])
    say(fit(walk(config, options.preset, len(ids), ids.shape[1] - 1, values=values)))
