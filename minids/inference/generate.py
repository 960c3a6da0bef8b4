"""Generation: one token after the other, each fed back in.

Past the context the model was trained for, the older half of the text is forgotten and reading starts again from the newer
half: positions the model has never seen would give noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from minids.errors import MinidsError, refuse
from minids.inference.cache import FullCache, LatentCache
from minids.inference.decode import read
from minids.inference.sampling import Sampling
from minids.layers.parameters import Array
from minids.model import DeepSeekV3

CacheKind = Literal["latent", "full", "none"]


def generate(
    model: DeepSeekV3,
    prompt: str | Sequence[int] | Array,
    max_new_tokens: int = 200,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int | np.random.Generator = 0,
    cache: CacheKind | None = None,
    stop: Sequence[int] = (),
) -> Array:
    """Continue ``prompt`` by at most ``max_new_tokens`` tokens: the new ones, (S,) int.

    ``prompt`` is text (for a model with a tokenizer) or token ids. ``cache``: "latent" (the default for MLA), "full" (for the
    others) or "none", which reads everything again for each token. Ends after a token of ``stop``, which is included.
    """
    return np.fromiter(stream(model, prompt, max_new_tokens, temperature, top_k, top_p, seed, cache, stop), dtype=np.int64)


def stream(
    model: DeepSeekV3,
    prompt: str | Sequence[int] | Array,
    max_new_tokens: int = 200,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int | np.random.Generator = 0,
    cache: CacheKind | None = None,
    stop: Sequence[int] = (),
) -> Iterator[int]:
    """Like ``generate``, token by token."""
    if max_new_tokens < 0:
        raise refuse("max_new_tokens", max_new_tokens, "must be at least 0")
    sampling = Sampling(temperature, top_k, top_p)
    text = prompt_ids(model, prompt)
    kind = cache or ("latent" if model.config.attention == "mla" else "full")
    return _tokens(model, text, max_new_tokens, sampling, np.random.default_rng(seed), kind, set(stop))


def prompt_ids(model: DeepSeekV3, prompt: str | Sequence[int] | Array) -> list[int]:
    """Token ids of a prompt; an empty one becomes the token that starts a document."""
    if isinstance(prompt, str):
        if model.tokenizer is None:
            raise MinidsError("prompt: this model has no tokenizer; give token ids, or load it from a folder that has one")
        ids = model.tokenizer.encode(prompt).tolist()
    else:
        ids = np.asarray(prompt, dtype=np.int64).reshape(-1).tolist()
    if not ids:
        if model.config.bos_token_id is None:
            raise MinidsError("prompt: empty, and this model has no token that starts a document; give at least one token")
        ids = [model.config.bos_token_id]
    model.check_tokens(np.array([ids]))
    return ids


def _tokens(model, text, max_new_tokens, sampling, rng, kind, stop) -> Iterator[int]:
    limit = model.config.max_position_embeddings
    step = _stepper(model, kind)
    fresh = text[-limit:]  # what has not been read yet
    kept = list(fresh)
    for _ in range(max_new_tokens):
        if len(kept) > limit:
            kept = fresh = kept[-(limit // 2 or 1) :]
            step = _stepper(model, kind)
        token = int(sampling.draw(step(np.array([fresh])), rng)[0])
        yield token
        if token in stop:
            return
        fresh = [token]
        kept = [*kept, token]


def _stepper(model: DeepSeekV3, kind: CacheKind):
    """A function that reads further tokens (1, S) and returns the logits after the last, (1, V)."""
    if kind == "none":
        read_so_far: list[Array] = []

        def step(tokens: Array) -> Array:
            read_so_far.append(tokens)
            return model.logits(np.concatenate(read_so_far, axis=1))[:, -1]

        return step

    if kind not in ("latent", "full"):
        raise refuse("cache", kind, "must be one of latent, full, none")
    if kind == "latent" and model.config.attention != "mla":
        raise refuse("cache", kind, f"attention = {model.config.attention!r} has no latent to cache; say full or none")
    cache = (LatentCache if kind == "latent" else FullCache)(model.config, 1, model.dtype)

    def step(tokens: Array) -> Array:
        hidden = read(model, tokens, cache)  # (1, S, d)
        return model.head.forward(hidden[:, -1])[0]

    return step
