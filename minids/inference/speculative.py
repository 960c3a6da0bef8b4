"""Speculative decoding: MTP modules guess the next tokens, one pass of the model checks them all, and nothing is lost.

DeepSeek-V3 sections 2.2 and 5.4.3; the rule is that of Leviathan et al. 2023 and Chen et al. 2023. A round, when the model has
read t_0 … t_{T−1} and t_T is drawn but not read yet:

    draft    module 1 has seen h⁰ up to position T − 1 and is shown t_T: it guesses t_{T+1}. With D ≥ 2 modules the next ones
             guess further, each from the state of the one before; beyond D the last module is fed its own state again.
    verify   the model reads t_T and the n guesses in one pass: distributions p_0 … p_n of what comes after each.
    accept   guess x_j, drawn from the draft's q_j, with probability min(1, p_j(x_j) / q_j(x_j)). At the first one refused,
             draw from (p_j − q_j)⁺ / Σ (p_j − q_j)⁺ instead. If none is, p_n gives one token more.
    go back  caches forget what belongs to refused guesses.

A token is x with probability q(x) min(1, p(x)/q(x)) + (1 − Σ min(p, q)) · (p(x) − q(x))⁺ / Σ (p − q)⁺ = p(x): the text is
distributed as without guesses. Greedily, p and q are certainties: a guess stands if it is the model's own choice.

The modules have caches of their own. Entries made from states that stood in for others, or from refused guesses, are
forgotten and made again from the model's states.

A further guess is worth its pass only if it is likely to stand: ``confidence`` ends a draft where the module's best guess has
less than that probability. It looks at q before anything is drawn from it, so that what is submitted is still a draw from q.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from minids.errors import refuse
from minids.inference import compiled
from minids.inference.by_two import ByTwo, Turns, by_two
from minids.inference.cache import Cache, FullCache, LatentCache
from minids.inference.decode import logits_of, read, read_mtp
from minids.inference.sampling import Sampling
from minids.layers.parameters import Array
from minids.model import DeepSeekV3


class Token(NamedTuple):
    """One token of generated text."""

    id: int
    log_probability: float | None = None
    """In nats, by the model's own distribution (temperature 1), where it was asked for."""
    drafted: bool = False
    """Whether it was a guess that stood."""


@dataclass
class Counts:
    """How a text was made by speculation."""

    passes: int = 0
    """Passes of the main model, the one over the prompt not among them."""
    tokens: int = 0
    """Tokens that came of them."""
    submitted: list[int] = field(default_factory=list)
    """Of each depth, the guesses that were judged: all before them in their draft stood."""
    accepted: list[int] = field(default_factory=list)
    """Of each depth, those that stood."""

    @property
    def acceptance(self) -> list[float]:
        """Share of the judged guesses that stood, by depth."""
        return [a / s if s else float("nan") for a, s in zip(self.accepted, self.submitted, strict=True)]

    @property
    def tokens_per_pass(self) -> float:
        """1 without speculation."""
        return self.tokens / self.passes if self.passes else float("nan")

    def add(self, drafted: int, stood: int) -> None:
        """One pass that checked ``drafted`` guesses, of which the first ``stood`` did."""
        while len(self.submitted) < drafted:
            self.submitted.append(0)
            self.accepted.append(0)
        for depth in range(min(drafted, stood + 1)):
            self.submitted[depth] += 1
            self.accepted[depth] += depth < stood
        self.passes += 1
        self.tokens += stood + 1

    def merge(self, other: Counts) -> None:
        """Add what another text counted."""
        width = max(len(self.submitted), len(other.submitted))
        for name in ("submitted", "accepted"):
            mine, theirs = getattr(self, name), getattr(other, name)
            pairs = zip(mine + [0] * (width - len(mine)), theirs + [0] * (width - len(theirs)), strict=True)
            setattr(self, name, [a + b for a, b in pairs])
        self.passes += other.passes
        self.tokens += other.tokens


class Draft(NamedTuple):
    tokens: list[int]  # n guesses
    q: list[Array]  # the distribution each was drawn from, (V,); empty when greedy


class Drafter:
    """The MTP modules at work on one sequence: their caches, and the states that they still have to read."""

    def __init__(self, model: DeepSeekV3, make_cache: Callable[[int], Cache], draft_tokens: int):
        """``make_cache(layers)`` gives an empty cache of the kind in use."""
        self.model = model
        self.used = min(len(model.mtp), draft_tokens)
        self.caches = [make_cache(1) for _ in range(self.used)]
        self.due = [np.empty((0, model.config.hidden_size), model.dtype) for _ in range(self.used)]
        """h^0 … h^{used−1}: of depth k − 1 the positions that module k has not settled on yet, from its cache's end on."""
        self.started = [0] * self.used
        """The position that each of ``due`` begins with."""
        self.pair: ByTwo | None = None
        """What guesses with the last module in use, where the compiled step serves it."""
        self.two = False
        """Whether it may use two threads."""

    def observe(self, hidden: Array) -> None:
        """h⁰ (S, d) of the next S tokens that the model has read and that stay."""
        self.due[0] = np.concatenate([self.due[0], hidden])

    def draft(self, text: list[int], most: int, sampling: Sampling, confidence: float, rng: np.random.Generator) -> Draft:
        """Up to ``most`` guesses at what follows ``text``, all but whose last token has been observed."""
        read_by_model = len(text) - 1  # T
        guessed: Draft = Draft([], [])
        state = logits = None
        while len(guessed.tokens) < most:
            depth = min(len(guessed.tokens) + 1, self.used)
            cache = self.caches[depth - 1]
            if len(guessed.tokens) < self.used:  # module ``depth`` reads up to position T − 1, the states it is due
                start = int(cache.lengths[0])
                shown = _after(text, guessed.tokens, start + depth, read_by_model + depth)
                before = self.due[depth - 1]
            else:  # beyond the last module: its own state stands in for the one before it, one position further
                shown, before = np.array(guessed.tokens[-1:]), state
            if depth == self.used and self.pair and len(shown) <= compiled.MOST_ROWS:
                state, logits = self.pair.guess(shown, before, self.two)
            else:  # only a further module needs the states of all positions
                wanted = 0 if depth < self.used else len(shown) - 1
                hidden = read_mtp(self.model, depth, shown, before, cache, wanted=wanted)
                if depth < self.used:
                    self.due[depth] = np.concatenate([self.due[depth], hidden])
                state = hidden[-1:]
                logits = logits_of(self.model, state, cache)
            if not self._guess(logits, guessed, sampling, confidence, rng):
                break
        return guessed

    def settle(self, read_by_model: int, stood: int) -> None:
        """After a draft was judged: forget what rested on refused guesses. ``read_by_model``: T as it was for the draft."""
        for depth, cache in enumerate(self.caches, start=1):
            # Module k at position i saw token i + k and a state of position i: of the model itself only below T.
            before = int(cache.lengths[0])
            settled = max(min(before, read_by_model, read_by_model + stood + 1 - depth), 0)
            cache.rewind(settled)
            started = self.started[depth - 1]
            self.due[depth - 1] = self.due[depth - 1][settled - started :]
            self.started[depth - 1] = settled
            if depth < self.used:  # the states that it made beyond are void
                self.due[depth] = self.due[depth][: max(settled - self.started[depth], 0)]

    def _guess(self, logits: Array, guessed: Draft, sampling: Sampling, confidence: float, rng) -> bool:
        """Draw one more guess from logits (1, V); False where none is worth it."""
        best = int(logits[0].argmax())
        if sampling.temperature == 0:
            if confidence > 0 and 1 / np.exp(logits[0] - logits[0, best]).sum() < confidence:
                return False
            guessed.tokens.append(best)
            return True
        q = sampling.probabilities(logits)[0]
        if q.max() < confidence:
            return False
        guessed.tokens.append(drawn(q, rng))
        guessed.q.append(q)
        return True


def _after(text: list[int], guesses: list[int], start: int, stop: int) -> Array:
    """Tokens ``start`` … ``stop`` − 1 of the text with its guesses."""
    known = text[start : min(stop, len(text))]
    return np.array(known + guesses[max(start - len(text), 0) : max(stop - len(text), 0)], np.int64)


def accepts(probability: float, rng: np.random.Generator) -> bool:
    """True with this probability."""
    return probability >= 1 or rng.random() < probability


def drawn(distribution: Array, rng: np.random.Generator) -> int:
    """A token from a distribution (V,)."""
    cumulative = np.cumsum(distribution)
    return min(int((cumulative <= rng.random() * cumulative[-1]).sum()), len(distribution) - 1)


def judge(draft: Draft, p: Array, rng: np.random.Generator) -> tuple[int, int]:
    """How many guesses stand, and the token after them. p (n + 1, V): the model's distribution at each guess and after."""
    for j, (guess, q) in enumerate(zip(draft.tokens, draft.q, strict=True)):
        if not accepts(p[j, guess] / q[guess], rng):
            rest = np.maximum(p[j] - q, 0)
            return j, drawn(rest if rest.any() else p[j], rng)
    return len(draft.tokens), drawn(p[-1], rng)


def judge_greedily(draft: Draft, logits: Array) -> tuple[int, int]:
    """The same where only the likeliest token is ever taken: logits (n + 1, V)."""
    best = logits.argmax(axis=-1).tolist()
    stood = 0
    while stood < len(draft.tokens) and draft.tokens[stood] == best[stood]:
        stood += 1
    return stood, best[stood]


def speculate(
    model: DeepSeekV3,
    text: list[int],
    make_cache: Callable[[int | None], Cache],
    sampling: Sampling,
    rng: np.random.Generator,
    draft_tokens: int,
    confidence: float = 0.0,
    counts: Counts | None = None,
    threads: int = 1,
) -> Iterator[tuple[int, Array, bool]]:
    """Continue ``text`` without end: (token, logits it was judged by (V,), whether it was a guess that stood).

    ``make_cache(layers)`` gives an empty cache, of the main model's layers for None. Past the model's context the older half
    of the text is forgotten, as in ``generate``. With two ``threads`` the tokens of a pass go through the model side by side.
    """
    if not model.mtp:
        raise refuse("speculative", True, "this model has no MTP module to guess with (num_nextn_predict_layers = 0)")
    if draft_tokens < 1:
        raise refuse("draft_tokens", draft_tokens, "must be at least 1")
    counts = Counts() if counts is None else counts
    limit = model.config.max_position_embeddings
    text = list(text[-limit:])
    cache, pair, turns = None, None, Turns()
    try:
        while True:
            if cache is None or len(text) > limit:
                text = text[-(limit // 2 or 1) :] if len(text) > limit else text
                cache, drafter = make_cache(None), Drafter(model, make_cache, draft_tokens)
                hidden = read(model, np.array([text]), cache)[0]
                logits = logits_of(model, hidden[-1:], cache)
                drafter.observe(hidden)
                if pair:
                    pair.close()
                pair = drafter.pair = by_two(model, cache, drafter.caches[-1], drafter.used)
                token = int(sampling.draw(logits, rng)[0])
                yield token, logits[0], False
                text.append(token)
                continue
            known = len(text) - 1  # T: what the model has read
            two = drafter.two = pair is not None and threads > 1 and turns.next()
            began = time.perf_counter()
            draft = drafter.draft(text, min(draft_tokens, limit - len(text)), sampling, confidence, rng)
            if pair:
                hidden, logits = pair.verify([text[-1], *draft.tokens], two)  # (n + 1, d), (n + 1, V)
            else:
                hidden = read(model, np.array([[text[-1], *draft.tokens]]), cache)[0]
                logits = logits_of(model, hidden, cache)
            turns.took(time.perf_counter() - began)
            if sampling.temperature == 0:
                stood, token = judge_greedily(draft, logits)
            else:
                stood, token = judge(draft, sampling.probabilities(logits), rng)
            counts.add(len(draft.tokens), stood)
            cache.rewind(known + 1 + stood)
            drafter.settle(known, stood)
            drafter.observe(hidden[: stood + 1])
            for j in range(stood):
                text.append(draft.tokens[j])
                yield draft.tokens[j], logits[j], True
            text.append(token)
            yield token, logits[stood], False
    finally:
        if pair:
            pair.close()


def acceptance(
    model: DeepSeekV3,
    texts: dict[str, list[Array]],
    draft_tokens: int = 1,
    prompt_tokens: int = 64,
    new_tokens: int = 128,
    prompts: int = 4,
    temperature: float = 0.0,
    seed: int = 0,
) -> dict[str, Counts]:
    """How guesses fare while text is written, per domain: what DeepSeek-V3 section 5.4.3 reports (85 to 90 % at depth 1).

    ``texts``: domain → tokens of its documents. ``prompts`` passages of ``prompt_tokens`` tokens, evenly spread over a domain,
    are continued by ``new_tokens`` each.
    """
    kind = LatentCache if model.config.attention == "mla" else FullCache
    found = {}
    for domain, documents in texts.items():
        total, rng = Counts(), np.random.default_rng(seed)
        for prompt in passages(documents, prompts, prompt_tokens):
            counts = Counts()
            steps = speculate(
                model,
                prompt.tolist(),
                lambda layers: kind(model.config, 1, model.dtype, layers),
                Sampling(temperature),
                rng,
                draft_tokens,
                counts=counts,
            )
            for _ in range(new_tokens):
                next(steps)
            total.merge(counts)
        found[domain] = total
    return found


def agreement(model: DeepSeekV3, documents: list[Array], most_tokens: int = 1 << 13) -> list[float]:
    """On text as it stands: how often each module's likeliest token, and the model's own when it gets there, are the same.

    Module k at position i against the model at position i + k, both having seen the text up to t_{i+k}: the share of guesses
    that would stand if the text were drawn as it is. One number per module.
    """
    window = min(model.config.max_position_embeddings, 512)
    same, count = np.zeros(len(model.mtp)), np.zeros(len(model.mtp))
    for document in documents:
        for start in range(0, len(document), window):
            tokens = np.asarray(document[start : start + window])[None]
            if tokens.shape[1] <= len(model.mtp) + 1 or count[0] >= most_tokens:
                continue
            own = model.logits(tokens)[0].argmax(axis=-1)
            for k, logits in enumerate(model.mtp_logits(tokens), start=1):
                same[k - 1] += (logits[0].argmax(axis=-1) == own[k:]).sum()
                count[k - 1] += len(own) - k
    return (same / np.maximum(count, 1)).tolist()


def passages(documents: list[Array], count: int, length: int) -> list[Array]:
    """``count`` passages of ``length`` tokens (less where a document is shorter), evenly spread over the documents."""
    whole = np.concatenate(documents)
    last = max(len(whole) - length, 0)
    return [whole[start : start + length] for start in np.linspace(0, last, count).astype(int)]
