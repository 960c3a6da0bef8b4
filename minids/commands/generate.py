"""minids generate: text from a trained model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from minids.errors import refuse


@dataclass(frozen=True)
class Options:
    """Continue a text with a trained model."""

    checkpoint: str
    """A run's folder, or any Hugging Face DeepSeek folder."""
    prompt: str = ""
    """Text to continue; if empty, a new document is begun."""
    max_new_tokens: int = 200
    """Tokens to write."""
    temperature: float = 0.7
    """0 always takes the most likely token; 1 draws from the model's own distribution."""
    top_k: int = 0
    """Draw among the k most likely tokens only; 0 for all."""
    top_p: float = 0.95
    """Draw among the fewest tokens that together have this probability."""
    seed: int = 0
    """Seed of the draws."""
    cache: Literal["latent", "full", "none"] | None = None
    """What is kept of the tokens read: the latent (default for MLA), all keys and values, or nothing."""
    stream: bool = False
    """Leave the weights on disk and read each layer when it is needed, for models larger than memory."""


def run(options: Options, given: set[str]) -> None:
    from minids.checkpoint.model_folder import load
    from minids.checkpoint.streaming import load_streamed
    from minids.inference.generate import prompt_ids, stream

    model = (load_streamed if options.stream else load)(options.checkpoint)
    if model.tokenizer is None:
        raise refuse("checkpoint", options.checkpoint, "has no tokenizer.json, so there is no text to read or write")
    ids = prompt_ids(model, options.prompt)
    if options.prompt and model.config.bos_token_id is not None:
        ids = [model.config.bos_token_id, *ids]  # as in training: a document begins with it
    stop = () if model.config.eos_token_id is None else (model.config.eos_token_id,)
    print(options.prompt, end="", flush=True)
    shown, new = "", []
    for token in stream(
        model,
        ids,
        options.max_new_tokens,
        options.temperature,
        options.top_k,
        options.top_p,
        options.seed,
        options.cache,
        stop,
    ):
        new.append(token)
        text = model.tokenizer.decode(new)
        if not text.endswith("�"):  # the rest of a character may be still to come
            print(text[len(shown) :], end="", flush=True)
            shown = text
    print(model.tokenizer.decode(new)[len(shown) :])
