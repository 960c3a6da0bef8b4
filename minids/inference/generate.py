"""Generation: one token after the other, each fed back in; or several at a time, where guesses stand. Past the context the
model was trained for, the older half of the text is forgotten, and the newer half is read again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, islice
from typing import Any

import numpy as np

from minids import arguments
from minids.checkpoint.tokenizer import encoded
from minids.errors import MinidsError, refuse
from minids.inference.decoder import CacheKind, Decoder
from minids.inference.sampling import Sampling, Token
from minids.inference.speculative import Counts, Speculation, speculate
from minids.layers.parameters import Array
from minids.model import DeepSeekV3
from minids.model_checks import check_tokens

MOST_TOKENS = 10**9  # of a text; more is a slip of the keyboard

Prompt = str | Sequence[int] | Array
Stop = str | Sequence[int | str]


def generate(model: DeepSeekV3, prompt: Prompt, max_new_tokens: int = 200, temperature: float = 0.0, **options: Any) -> Array:
    """Continue ``prompt`` by at most ``max_new_tokens`` tokens: the new ones, (S,) int; ``options`` are those of ``stream``.

    A text is continued as it stands, without end; the command ``minids generate`` gives
    ``[config.bos_token_id, *model.tokenizer.encode(text)]`` and ``stop=model.generation.stop``.
    """
    return np.fromiter((token.id for token in stream(model, prompt, max_new_tokens, temperature, **options)), np.int64)


def stream(
    model: DeepSeekV3,
    prompt: Prompt,
    max_new_tokens: int = 200,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    seed: int | np.random.Generator | None = 0,
    cache: CacheKind | None = None,
    stop: Stop = (),
    speculative: bool = False,
    draft_tokens: int | None = None,
    confidence: float = 0.0,
    counts: Counts | None = None,
) -> Iterator[Token]:
    """Like ``generate``, token by token, each with what is known of it.

    ``prompt`` is text or token ids. ``cache``: as for ``Decoder``. Ends after a token of ``stop``, or the token that
    completes one of its texts; that token is included.
    ``speculative``: have the MTP modules guess ``draft_tokens`` tokens a pass (as many as there are modules, if not given), or
    fewer where they are less than ``confidence`` sure; the text is distributed as without. ``counts`` is told how that went.
    """
    ending, sampling = (
        checked_ending(model, max_new_tokens, stop),
        Sampling(temperature, top_k, top_p, min_p, repetition_penalty, seed),
    )
    text, decoder = prompt_ids(model, prompt), Decoder(model, cache)
    arguments.switch("speculative", speculative)
    if speculative:
        if not model.mtp:
            raise refuse("speculative", True, "this model has no MTP module to guess with (num_nextn_predict_layers = 0)")
        if decoder.cache is None:
            raise refuse("cache", cache, "speculation takes guesses back out of a cache; say latent or full")
        speculation = Speculation(len(model.mtp) if draft_tokens is None else draft_tokens, confidence)
        tokens = speculate(decoder, text, sampling, speculation, counts)
    else:
        arguments.number("confidence", confidence, below=1)
        for name, value in (("draft_tokens", draft_tokens), ("confidence", confidence or None), ("counts", counts)):
            if value is not None:
                raise refuse(name, value, "concerns guesses; say speculative=True too")
        tokens = (new[0] for new in next_tokens(decoder, [text], sampling, set()))
    return _until(tokens, max_new_tokens, ending)


def generate_batch(
    model: DeepSeekV3,
    prompts: Sequence[Prompt],
    max_new_tokens: int = 200,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    seed: int | np.random.Generator | None = 0,
    cache: CacheKind | None = None,
    stop: Stop = (),
) -> list[Array]:
    """Continue several prompts of any lengths side by side: the new tokens of each, (S,) int.

    Prompt i gets what ``generate`` gives it alone with ``seed`` + i: sequences share the reading of weights and nothing else.
    """
    ending = checked_ending(model, max_new_tokens, stop)
    if isinstance(prompts, str):
        raise refuse("prompts", prompts[:40], "is one text; give a list of them")
    if not np.iterable(prompts):
        raise refuse("prompts", prompts, "must be a list, each of text or of token ids")
    sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, seed)
    texts = [prompt_ids(model, prompt) for prompt in prompts]
    endings = [ending.begun() for _ in texts]
    new: list[list[int]] = [[] for _ in texts]
    ended: set[int] = set()
    decoder = Decoder(model, cache, len(texts))
    for tokens in islice(next_tokens(decoder, texts, sampling, ended), max_new_tokens):
        for i, token in tokens.items():
            new[i].append(token.id)
            if endings[i].after(token.id):
                ended.add(i)
    return [np.array(ids, np.int64) for ids in new]


def next_tokens(decoder: Decoder, texts: list[list[int]], sampling: Sampling, ended: set[int]) -> Iterator[dict[int, Token]]:
    """Continue B texts with a decoder of as many: at each step, by number, the next token of each not in ``ended``."""
    limit = decoder.model.config.max_position_embeddings
    rngs, kept = sampling.generators(len(texts)), [text[-limit:] for text in texts]
    unread = [list(text) for text in kept]
    decoder.rewind(0)
    while live := [i for i in range(len(texts)) if i not in ended]:
        for i in live:
            if len(kept[i]) > limit:
                kept[i] = kept[i][-(limit // 2 or 1) :]
                unread[i] = list(kept[i])
                decoder.rewind(np.where(np.arange(len(texts)) == i, 0, decoder.lengths))
        counts = np.array([0 if i in ended else len(tokens) for i, tokens in enumerate(unread)])
        hidden = decoder.read_packed(np.array([token for i in live for token in unread[i]]), counts)  # (N, d)
        if len(hidden) > len(live):  # more than one token of each: what counts is the last
            hidden = hidden[[stop - 1 for stop in accumulate(len(unread[i]) for i in live)]]
        logits = decoder.logits(hidden)  # (live, V)
        new = {
            i: Token(sampling.draw(sampling.penalised(row, kept[i]), rngs[i]), row) for i, row in zip(live, logits, strict=True)
        }
        yield new
        for i, token in new.items():
            kept[i].append(token.id)
            unread[i] = [token.id]


def prompt_ids(model: DeepSeekV3, prompt: Prompt) -> list[int]:
    """Token ids of a prompt; an empty one becomes the token that starts a document. Characters that the vocabulary has no token
    for are left out with a warning; a text of nothing else is refused."""
    arguments.instance("model", model, DeepSeekV3, "a model: minids.load(folder), or minids.DeepSeekV3(config)")
    if isinstance(prompt, str):
        if model.tokenizer is None:
            raise MinidsError("prompt: this model has no tokenizer; give token ids, or load it from a folder that has one")
        ids = encoded(model.tokenizer, prompt, "prompt")
    else:
        try:
            array = np.asarray(prompt)
        except ValueError:  # lists of different lengths
            array = np.array(None)
        if array.ndim > 1 and len(array) != 1:
            raise refuse("prompt", f"of shape {array.shape}", "is several sequences; minids.generate_batch continues those")
        if array.ndim == 0 or (array.size and array.dtype.kind not in "iu"):
            raise MinidsError(f"prompt = {repr(prompt)[:80]}: must be text, or token ids as whole numbers")
        ids = array.reshape(-1).tolist()
    if not ids:
        if model.config.bos_token_id is None:
            raise MinidsError("prompt: empty, and this model has no token that starts a document; give at least one token")
        ids = [model.config.bos_token_id]
    check_tokens(model.config, [ids])
    return ids


class Ending:
    """Where a text ends: after one of some tokens, or with the token that completes one of some texts."""

    def __init__(self, tokens: frozenset[int], texts: tuple[bytes, ...], tokenizer: Any):
        self.tokens, self.texts, self._tokenizer = tokens, texts, tokenizer
        self._kept = max(map(len, texts), default=1) - 1  # bytes of what came before that a text may begin in
        self._tail = b""

    def begun(self) -> Ending:
        """The same for another text, at its beginning."""
        return Ending(self.tokens, self.texts, self._tokenizer)

    def after(self, token: int) -> bool:
        """Whether the text ends with this token, the next one of it."""
        if token in self.tokens:
            return True
        if not self.texts:
            return False
        text = self._tail + self._tokenizer.decode_bytes([token])
        self._tail = text[len(text) - min(self._kept, len(text)) :]
        return any(ending in text for ending in self.texts)


def checked_ending(model: DeepSeekV3, max_new_tokens: int, stop: Stop) -> Ending:
    """Where to stop, after both were found to mean something."""
    arguments.instance("model", model, DeepSeekV3, "a model: minids.load(folder), or minids.DeepSeekV3(config)")
    arguments.whole("max_new_tokens", max_new_tokens, most=MOST_TOKENS)
    given = [stop] if isinstance(stop, str) else stop
    kinds = (int, np.integer, str)
    if not np.iterable(given) or not all(isinstance(end, kinds) and not isinstance(end, bool) and end != "" for end in given):
        raise refuse("stop", stop, "must be a list of token ids and texts")
    texts = tuple(end.encode("utf-8", "replace") for end in given if isinstance(end, str))
    if texts and model.tokenizer is None:
        raise refuse("stop", stop, "this model has no tokenizer to know texts by; give token ids")
    return Ending(frozenset(int(end) for end in given if not isinstance(end, str)), texts, model.tokenizer)


def _until(tokens: Iterator[Token], most: int, ending: Ending) -> Iterator[Token]:
    """The first ``most`` tokens, or up to where it ends."""
    for token in islice(tokens, most):
        yield token
        if ending.after(token.id):
            return
