"""Filling in: the text between what stands before and what comes after, by a model trained with fill-in-the-middle.

[begin of text] <|fim_begin|> prefix <|fim_hole|> suffix <|fim_end|> → middle, until the end of text    V3 section 4.1
"""

from typing import Any

from minids import arguments
from minids.errors import refuse
from minids.inference.generate import generate
from minids.layers.parameters import Array
from minids.model import DeepSeekV3


def infill_ids(model: DeepSeekV3, prefix: str, suffix: str) -> list[int]:
    """The prompt, laid out as in training."""
    arguments.instance("model", model, DeepSeekV3, "a model, as minids.load returns")
    arguments.instance("prefix", prefix, str, "the text before")
    arguments.instance("suffix", suffix, str, "the text after")
    tokenizer = model.tokenizer
    if tokenizer is None or tokenizer.fim is None:
        because = "this model was not trained to fill in, its tokenizer has no token for it; train one with --fim-rate 0.1"
        raise refuse("suffix", suffix[:40], because)
    around = tokenizer.fim.before_middle(tokenizer.encode(prefix), tokenizer.encode(suffix))
    ids = [*tokenizer.beginning, *around.tolist()]
    if len(ids) >= (most := model.config.max_position_embeddings):
        raise refuse("suffix", suffix[:40], f"with the prompt it has {len(ids)} tokens, and this model reads {most}")
    return ids


def infill(
    model: DeepSeekV3, prefix: str, suffix: str, max_new_tokens: int = 200, temperature: float = 0.0, **options: Any
) -> Array:
    """The tokens that the model writes between ``prefix`` and ``suffix``, (S,) int, the end token left out. ``options`` are
    those of ``stream``."""
    ids = infill_ids(model, prefix, suffix)
    eos = model.tokenizer.eos_id
    new = generate(model, ids, max_new_tokens, temperature, **({"stop": [] if eos is None else [eos]} | options))
    return new[new != eos]
