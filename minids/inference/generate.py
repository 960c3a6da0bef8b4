"""Generation: one token after the other, each fed back in; or several at a time, where guesses stand.

Past the context the model was trained for, the older half of the text is forgotten and reading starts again from the newer
half: positions the model has never seen would give noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np

from minids.errors import MinidsError, refuse
from minids.inference.cache import Cache, FullCache, LatentCache
from minids.inference.decode import logits_of, read, read_ragged
from minids.inference.sampling import Sampling
from minids.inference.speculative import Counts, Token, speculate
from minids.layers.parameters import Array
from minids.model import DeepSeekV3
from minids.model_checks import check_tokens
from minids.processor import cores

CacheKind = Literal["latent", "full", "none"]
Prompt = str | Sequence[int] | Array


def generate(model: DeepSeekV3, prompt: Prompt, max_new_tokens: int = 200, temperature: float = 0.0, **options) -> Array:
    """Continue ``prompt`` by at most ``max_new_tokens`` tokens: the new ones, (S,) int.

    Options as for ``minids.inference.generate.tokens``. A text is continued as it stands and on to the last token asked for;
    the command ``minids generate`` puts the model's begin token before it and stops at its end token: that is
    ``[config.bos_token_id, *model.tokenizer.encode(text)]`` with ``stop=[config.eos_token_id]``.
    """
    return np.fromiter(stream(model, prompt, max_new_tokens, temperature, **options), dtype=np.int64)


def stream(model: DeepSeekV3, prompt: Prompt, max_new_tokens: int = 200, temperature: float = 0.0, **options) -> Iterator[int]:
    """Like ``generate``, token by token."""
    return (token.id for token in tokens(model, prompt, max_new_tokens, temperature, **options))


def tokens(
    model: DeepSeekV3,
    prompt: Prompt,
    max_new_tokens: int = 200,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int | np.random.Generator = 0,
    cache: CacheKind | None = None,
    stop: Sequence[int] = (),
    speculative: bool = False,
    draft_tokens: int | None = None,
    confidence: float = 0.0,
    log_probabilities: bool = False,
    absorb: bool = True,
    counts: Counts | None = None,
    threads: int = 1,
) -> Iterator[Token]:
    """Continue ``prompt``, token by token, each with what is known of it.

    ``prompt`` is text (for a model with a tokenizer) or token ids. ``cache``: "latent" (the default for MLA), "full" (for the
    others) or "none", which reads everything again for each token. Ends after a token of ``stop``, which is included.

    ``speculative``: have the MTP modules guess ``draft_tokens`` tokens a pass (as many as there are modules, if not given), or
    fewer where they are less than ``confidence`` sure; the text is distributed as without. ``counts`` is told how that went.
    ``threads``: 2 lets the tokens of a pass go through the model side by side, 0 does so where there are two cores; on
    those where it was measured one thread was the faster (``minids bench speculation``).
    ``log_probabilities``: say how likely each token was. ``absorb=False``: expand the cached latents at every step.
    """
    _check_count(max_new_tokens)
    if not 0 <= confidence < 1:
        raise refuse("confidence", confidence, "must be at least 0 and below 1")
    if not speculative and (draft_tokens is not None or confidence):
        name, given = ("confidence", confidence) if draft_tokens is None else ("draft_tokens", draft_tokens)
        raise refuse(name, given, "concerns guesses; say speculative=True too")
    if draft_tokens is not None and draft_tokens < 1:
        raise refuse("draft_tokens", draft_tokens, "must be at least 1")
    if threads < 0:
        raise refuse("threads", threads, "must be at least 1, or 0 for one per core")
    sampling = Sampling(temperature, top_k, top_p)
    text = prompt_ids(model, prompt)
    kind = cache or ("latent" if model.config.attention == "mla" else "full")
    _check_kind(model, kind)
    rng = _generator(seed)
    if speculative:
        if not model.mtp:
            raise refuse("speculative", True, "this model has no MTP module to guess with (num_nextn_predict_layers = 0)")
        if kind == "none":
            raise refuse("cache", kind, "speculation takes guesses back out of a cache; say latent or full")
        if not absorb:
            raise refuse("absorb", absorb, "guesses are checked with absorbed latents only; leave one of the two out")
        n = len(model.mtp) if draft_tokens is None else draft_tokens
        endless = speculate(model, text, _maker(model, kind), sampling, rng, n, confidence, counts, threads or cores())
    else:
        endless = _one_by_one(model, text, sampling, rng, kind, absorb)
    return _until(endless, max_new_tokens, _stopping(stop), log_probabilities)


def generate_batch(
    model: DeepSeekV3,
    prompts: Sequence[Prompt],
    max_new_tokens: int = 200,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    cache: Literal["latent", "full"] | None = None,
    stop: Sequence[int] = (),
) -> list[Array]:
    """Continue several prompts of any lengths side by side: the new tokens of each.

    Prompt i gets what ``generate`` gives it alone with ``seed`` + i: sequences share the reading of weights and nothing else.
    One that has ended, or has to read again because it is past the context, holds up no other.
    """
    _check_count(max_new_tokens)
    if isinstance(prompts, str):
        raise refuse("prompts", prompts[:40], "is one text; give a list of them")
    sampling, limit = Sampling(temperature, top_k, top_p), model.config.max_position_embeddings
    kind = cache or ("latent" if model.config.attention == "mla" else "full")
    _check_kind(model, kind)
    if kind == "none":
        raise refuse("cache", kind, "a batch is read through a cache; say latent or full")
    texts = [prompt_ids(model, prompt)[-limit:] for prompt in prompts]
    if not texts:
        return []
    rngs = [_generator(seed + i) for i in range(len(texts))]
    new: list[list[int]] = [[] for _ in texts]
    held = (LatentCache if kind == "latent" else FullCache)(model.config, len(texts), model.dtype)
    fresh = [list(text) for text in texts]  # of each, what has not been read yet; nothing once it has ended
    stop = _stopping(stop)
    for _ in range(max_new_tokens):
        for i, text in enumerate(texts):
            if fresh[i] and len(text) > limit:
                texts[i] = text[-(limit // 2 or 1) :]
                fresh[i] = list(texts[i])
                held.rewind(np.where(np.arange(len(texts)) == i, 0, held.lengths))
        live = [i for i, row in enumerate(fresh) if row]
        if not live:
            break
        hidden = read_ragged(model, fresh, held)
        logits = logits_of(model, np.concatenate([hidden[i][-1:] for i in live]), held)
        for i, row in zip(live, logits, strict=True):
            token = int(sampling.draw(row[None], rngs[i])[0])
            new[i].append(token)
            texts[i].append(token)
            fresh[i] = [] if token in stop else [token]
    return [np.array(ids, np.int64) for ids in new]


def _check_count(max_new_tokens: int) -> None:
    if not isinstance(max_new_tokens, int | np.integer) or max_new_tokens < 0:
        raise refuse("max_new_tokens", max_new_tokens, "must be a whole number of at least 0")


def _stopping(stop: Sequence[int]) -> set[int]:
    if isinstance(stop, str) or not np.iterable(stop) or not all(isinstance(token, int | np.integer) for token in stop):
        raise refuse("stop", stop, "must be a list of token ids")
    return set(stop)


def log_probabilities(model: DeepSeekV3, text: Prompt) -> Array:
    """log p(t_i | t_<i) in nats of every token of ``text`` but the first, (T − 1,)."""
    ids = np.array(prompt_ids(model, text))
    if len(ids) > model.config.max_position_embeddings:
        raise refuse("text", f"{len(ids)} tokens", f"the model is meant for {model.config.max_position_embeddings}; cut it")
    logits = model.logits(ids[None])[0]
    return np.array([_log_probability(row, token) for row, token in zip(logits[:-1], ids[1:], strict=True)])


def prompt_ids(model: DeepSeekV3, prompt: Prompt) -> list[int]:
    """Token ids of a prompt; an empty one becomes the token that starts a document."""
    if isinstance(prompt, str):
        if model.tokenizer is None:
            raise MinidsError("prompt: this model has no tokenizer; give token ids, or load it from a folder that has one")
        ids = model.tokenizer.encode(prompt).tolist()
    else:
        try:
            array = np.asarray(prompt)
        except ValueError:  # lists of different lengths
            array = np.array(None)
        if array.ndim > 1 and len(array) != 1:
            raise refuse("prompt", f"of shape {array.shape}", "is several sequences; minids.generate_batch continues those")
        if array.size and array.dtype.kind not in "iu":
            raise MinidsError(f"prompt = {repr(prompt)[:80]}: must be text, or token ids as whole numbers")
        ids = array.reshape(-1).tolist()
    if not ids:
        if model.config.bos_token_id is None:
            if isinstance(prompt, str) and prompt:
                raise refuse("prompt", prompt[:80], "none of its characters is in the model's vocabulary")
            raise MinidsError("prompt: empty, and this model has no token that starts a document; give at least one token")
        ids = [model.config.bos_token_id]
    check_tokens(model.config, [ids])
    return ids


def _until(endless: Iterator, most: int, stop: set[int], log_probabilities: bool) -> Iterator[Token]:
    """The first ``most`` tokens, or up to one of ``stop``."""
    for _ in range(most):
        token, logits, drafted = next(endless)
        yield Token(token, _log_probability(logits, token) if log_probabilities else None, drafted)
        if token in stop:
            return


def _log_probability(logits: Array, token: int) -> float:
    logits = logits.astype(np.float64)
    peak = logits.max()
    return float(logits[token] - peak - np.log(np.exp(logits - peak).sum()))


def _one_by_one(model, text, sampling, rng, kind, absorb) -> Iterator[tuple[int, Array, bool]]:
    """Without end: (token, logits it was drawn from (V,), False)."""
    limit = model.config.max_position_embeddings
    step = _stepper(model, kind, absorb)
    fresh = text[-limit:]  # what has not been read yet
    kept = list(fresh)
    while True:
        if len(kept) > limit:
            kept = kept[-(limit // 2 or 1) :]
            fresh = list(kept)
            step = _stepper(model, kind, absorb)
        logits = step(np.array([fresh]))
        token = int(sampling.draw(logits, rng)[0])
        yield token, logits[0], False
        fresh = [token]
        kept.append(token)


def _stepper(model: DeepSeekV3, kind: CacheKind, absorb: bool) -> Callable[[Array], Array]:
    """A function that reads further tokens (1, S) and returns the logits after the last, (1, V)."""
    if kind == "none":
        read_so_far: list[Array] = []

        def step(tokens: Array) -> Array:
            read_so_far.append(tokens)
            return model.logits(np.concatenate(read_so_far, axis=1))[:, -1]

        return step

    cache = _maker(model, kind)(None)

    def step(tokens: Array) -> Array:
        hidden = read(model, tokens, cache, absorb)  # (1, S, d)
        return logits_of(model, hidden[:, -1], cache)

    return step


def _maker(model: DeepSeekV3, kind: CacheKind) -> Callable[[int | None], Cache]:
    """Makes empty caches for one sequence, of so many layers; None for the main model's."""
    return lambda layers: (LatentCache if kind == "latent" else FullCache)(model.config, 1, model.dtype, layers)


def _generator(seed: int | np.random.Generator) -> np.random.Generator:
    if isinstance(seed, (int, np.integer)) and seed < 0:  # a generator, or None, has no sign
        raise refuse("seed", seed, "must be at least 0")
    return np.random.default_rng(seed)


def _check_kind(model: DeepSeekV3, kind: str) -> None:
    if kind not in ("latent", "full", "none"):
        raise refuse("cache", kind, "must be one of latent, full, none")
    if kind == "latent" and model.config.attention != "mla":
        raise refuse("cache", kind, f"attention = {model.config.attention!r} has no latent to cache; say full or none")
