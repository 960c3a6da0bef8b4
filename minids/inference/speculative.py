"""Speculative decoding: MTP modules guess the next tokens, one pass of the model checks them all, and nothing is lost.

DeepSeek-V3 sections 2.2 and 5.4.3; the rule is that of Leviathan et al. 2023 and Chen et al. 2023. A round, when the model has
read t_0 … t_{T−1} and t_T is drawn but not read yet:

    draft    module 1 has seen h⁰ up to position T − 1 and is shown t_T: it guesses t_{T+1}. With D ≥ 2 modules the next ones
             guess further, each from the state of the one before; beyond D the last module is fed its own state again,
             as its block left it: the norm after that belongs to the head, and the module norms what it reads.
    verify   the model reads t_T and the n guesses in one pass: distributions p_0 … p_n of what comes after each.
    accept   guess x_j, drawn from the draft's q_j, with probability min(1, p_j(x_j) / q_j(x_j)). At the first one refused,
             draw from (p_j − q_j)⁺ / Σ (p_j − q_j)⁺ instead. If none is, p_n gives one token more.
    go back  caches forget what belongs to refused guesses.

A token is x with probability q(x) min(1, p(x)/q(x)) + (1 − Σ min(p, q)) · (p(x) − q(x))⁺ / Σ (p − q)⁺ = p(x): the text is
distributed as without guesses. Greedily, p and q are certainties: a guess stands if it is the model's own choice.

The modules' own cache entries from refused guesses, or from states that stood in for others, are made again from the model's.
``confidence`` ends a draft where the best guess is less probable, before anything is drawn: what is submitted is a draw from q.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from minids import arguments
from minids.inference.decoder import Decoder
from minids.inference.sampling import Sampling, Token, drawn
from minids.layers.parameters import Array


@dataclass(frozen=True)
class Speculation:
    """How far the modules guess."""

    draft_tokens: int = 1  # guesses a pass, at most
    confidence: float = 0.0  # a draft ends where the module's best guess is less probable than this

    def __post_init__(self) -> None:
        arguments.whole("draft_tokens", self.draft_tokens, 1)
        arguments.number("confidence", self.confidence, below=1)


@dataclass
class Counts:
    """How a text was made by speculation, or several that were given the same ``Counts``."""

    passes: int = 0  # of the main model, the one over the prompt not among them
    tokens: int = 0  # that came of them
    submitted: list[int] = field(default_factory=list)  # of each depth, the guesses judged: all before in their draft stood
    accepted: list[int] = field(default_factory=list)  # of each depth, those that stood

    @property
    def acceptance(self) -> list[float]:
        """Share of the judged guesses that stood, by depth."""
        return [a / s if s else float("nan") for a, s in zip(self.accepted, self.submitted, strict=True)]

    @property
    def tokens_per_pass(self) -> float:
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


class Draft(NamedTuple):
    tokens: list[int]  # n guesses
    q: list[Array]  # the distribution each was drawn from, (V,); empty when greedy


class Drafter:
    """The MTP modules at work on one sequence: the states that they still have to read, and the guesses they make."""

    def __init__(self, decoder: Decoder, speculation: Speculation, sampling: Sampling, rng: np.random.Generator):
        self.decoder, self.speculation, self.sampling, self.rng = decoder, speculation, sampling, rng
        self.used = min(len(decoder.model.mtp), speculation.draft_tokens)
        self.caches = decoder.mtp_caches[: self.used]
        for cache in self.caches:
            cache.rewind(0)
        # h^0 … h^{used−1}: of depth k − 1 the positions that module k has not settled on yet, from its cache's end on.
        self.unread = [np.empty((0, decoder.model.config.hidden_size), decoder.model.dtype) for _ in range(self.used)]
        # Of each module the positions that rest on the model's own states; ``unread`` begins there.
        self.settled = [0] * self.used

    def observe(self, hidden: Array) -> None:
        """h⁰ (S, d) of the next S tokens that the model has read and that stay."""
        self.unread[0] = np.concatenate([self.unread[0], hidden])

    def draft(self, text: list[int], most: int) -> Draft:
        """Up to ``most`` guesses at what follows ``text``, all but whose last token has been observed."""
        read_by_model = len(text) - 1  # T
        draft = Draft([], [])
        state = self.unread[0]  # of the newest guess, as its module's block left it; there is none yet
        while len(draft.tokens) < most:
            depth = min(len(draft.tokens) + 1, self.used)
            if len(draft.tokens) < self.used:  # module ``depth`` reads up to position T − 1, the states that are there for it
                known = [*text, *draft.tokens]
                shown = np.array(known[self.settled[depth - 1] + depth : read_by_model + depth], np.int64)
                before = self.unread[depth - 1]
            else:  # beyond the last module: its own state stands in for the one before it, one position further
                shown, before = np.array(draft.tokens[-1:]), state
            # Only a further module needs the states of all positions, others that of the last.
            hidden = self.decoder.read_mtp(depth, shown, before, skip=0 if depth < self.used else len(shown) - 1)
            if depth < self.used:
                self.unread[depth] = np.concatenate([self.unread[depth], self.decoder.handed_on(depth, hidden)])
            state = hidden[-1:]
            logits = self.sampling.penalised(self.decoder.mtp_logits(depth, state)[0], [*text, *draft.tokens])
            guessed = guess(logits, self.sampling, self.speculation.confidence, self.rng)
            if guessed is None:
                break
            draft.tokens.append(guessed[0])
            if guessed[1] is not None:
                draft.q.append(guessed[1])
        return draft

    def settle(self, read_by_model: int, stood: int) -> None:
        """After a draft was judged: forget what rested on refused guesses. ``read_by_model``: T as it was for the draft."""
        for depth, cache in enumerate(self.caches, start=1):
            # Module k at position i saw token i + k and a state of position i: of the model itself only below T.
            settled = max(min(int(cache.lengths[0]), read_by_model, read_by_model + stood + 1 - depth), 0)
            cache.rewind(settled)
            self.unread[depth - 1] = self.unread[depth - 1][settled - self.settled[depth - 1] :]
            self.settled[depth - 1] = settled
            if depth < self.used:  # the states that it made beyond are void
                self.unread[depth] = self.unread[depth][: max(settled - self.settled[depth], 0)]


def guess(logits: Array, sampling: Sampling, confidence: float, rng: np.random.Generator) -> tuple[int, Array | None] | None:
    """By logits (V,) a token and, unless greedy, the q it was drawn from; None if the best guess is below ``confidence``."""
    if sampling.temperature == 0:
        best = int(logits.argmax())
        unsure = confidence > 0 and 1 / np.exp(logits - logits[best]).sum() < confidence  # 1 / Σ = p(best) at temperature 1
        return None if unsure else (best, None)
    q = sampling.probabilities(logits)
    return None if q.max() < confidence else (drawn(q, rng), q)


def accepts(probability: float, rng: np.random.Generator) -> bool:
    """True with this probability."""
    return probability >= 1 or rng.random() < probability


def judge(draft: Draft, p: Array, rng: np.random.Generator) -> tuple[int, int]:
    """How many guesses stand, and the token after them. p (n + 1, V): the model's distribution at each guess and after."""
    for j, (guess, q) in enumerate(zip(draft.tokens, draft.q, strict=True)):
        if not accepts(p[j, guess] / q[guess], rng):
            rest = np.maximum(p[j] - q, 0)
            return j, drawn(rest if rest.any() else p[j], rng)
    return len(draft.tokens), drawn(p[-1], rng)


def speculate(
    decoder: Decoder, text: list[int], sampling: Sampling, speculation: Speculation, counts: Counts | None
) -> Iterator[Token]:
    """Continue ``text`` without end, past the model's context as in ``generate``. ``counts`` is told how the guesses fare."""
    counts = Counts() if counts is None else counts
    limit = decoder.model.config.max_position_embeddings
    rng = sampling.generators(1)[0]
    text, drafter = text[-limit:], None
    while True:
        if drafter is None or len(text) > limit:
            text = text if len(text) <= limit else text[-(limit // 2 or 1) :]
            decoder.rewind(0)
            drafter = Drafter(decoder, speculation, sampling, rng)
            hidden = decoder.read(np.array([text]))[0]
            drafter.observe(hidden)
            first = decoder.logits(hidden[-1:])[0]
            text.append(sampling.draw(sampling.penalised(first, text), rng))
            yield Token(text[-1], first)
            continue
        read_by_model = len(text) - 1  # T
        draft = drafter.draft(text, min(speculation.draft_tokens, limit - len(text)))
        hidden = decoder.read(np.array([[text[-1], *draft.tokens]]))[0]  # (n + 1, d)
        logits = decoder.logits(hidden)  # (n + 1, V)
        judged = logits
        if sampling.repetition_penalty != 1:
            known = [*text, *draft.tokens]
            judged = np.stack([sampling.penalised(row, known[: len(text) + j]) for j, row in enumerate(logits)])
        if sampling.temperature == 0:
            best = judged.argmax(axis=-1).tolist()  # a guess stands where it is the likeliest token
            stood = next((j for j, guessed in enumerate(draft.tokens) if guessed != best[j]), len(draft.tokens))
            token = best[stood]
        else:
            stood, token = judge(draft, sampling.probabilities(judged), rng)
        counts.add(len(draft.tokens), stood)
        decoder.rewind(read_by_model + 1 + stood)
        drafter.settle(read_by_model, stood)
        drafter.observe(hidden[: stood + 1])
        text += [*draft.tokens[:stood], token]
        for j in range(stood):
            yield Token(draft.tokens[j], logits[j], drafted=True)
        yield Token(token, logits[stood], refused=draft.tokens[stood] if stood < len(draft.tokens) else None)
