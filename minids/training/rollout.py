"""Answers drawn from a model, a group to each question, with all that an update has to know of them.

A question is read once and its cache copied to the group. All answers are then written side by side, a token of each at a time.
Which experts every token went to is kept, and which tokens top-p left to be drawn: the update of GRPO sends tokens there again,
and looks at no others (Keep Routing and Keep Sampling Mask, DeepSeek-V3.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from minids.blas import one_blas_thread
from minids.inference.decoder import Decoder
from minids.inference.generate import Ending
from minids.inference.sampling import Sampling
from minids.layers.parameters import Array
from minids.model import IGNORE, DeepSeekV3


class Draws(Protocol):
    """A generator, of which one thing is asked."""

    def random(self, size: int) -> Array:
        """(size,) numbers between 0 and 1."""


class Rollouts(NamedTuple):
    """A answers to Q questions, A/Q to each, one behind another. T: tokens of the longest of both together, less one."""

    tokens: Array  # (A, T) int32: question, then answer without its last token; filled up with 0 at the end
    targets: Array  # (A, T) int32: where an answer's token follows, that token; IGNORE elsewhere
    chosen: list[Array]  # (A, T, K) of each layer of the main model with experts; any experts where it is filled up
    log_probs: Array  # (N,) float64: ln π of the answers' N tokens, answer after answer
    lengths: Array  # (A,) tokens of each answer
    ended: Array  # (A,) bool: whether it came to its end by itself
    groups: Array  # (A,) the number of its question
    kept: Array | None = None  # (N, V) bool: the tokens that top-p left to be drawn; None for all

    @property
    def rows(self) -> Array:
        """Where the N tokens are predicted, among A·T positions."""
        return np.flatnonzero(self.targets.reshape(-1) != IGNORE)

    @property
    def answer(self) -> Array:
        """Which answer each of the N tokens belongs to."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @property
    def answers(self) -> list[Array]:
        """The tokens of each answer."""
        return np.split(self.targets[self.targets != IGNORE], np.cumsum(self.lengths)[:-1])

    def part(self, questions: slice) -> Rollouts:
        """The answers to some of the questions."""
        low, high = questions.start, questions.stop
        mine = (self.groups >= low) & (self.groups < high)
        of_tokens = mine[self.answer]
        arrays = [a[mine] for a in (self.tokens, self.targets, self.lengths, self.ended, self.groups)]
        tokens, targets, lengths, ended, groups = arrays
        kept = None if self.kept is None else self.kept[of_tokens]
        chosen, log_probs = [c[mine] for c in self.chosen], self.log_probs[of_tokens]
        return Rollouts(tokens, targets, chosen, log_probs, lengths, ended, groups, kept)


@one_blas_thread()
def sample(
    model: DeepSeekV3,
    questions: Sequence[Sequence[int]],
    group: int,
    max_new_tokens: int,
    temperature: float,
    ending: Ending,
    rng: Draws,
    top_p: float = 1.0,
) -> Rollouts:
    """``group`` answers to each of the ``questions`` (token ids), of at most so many tokens, each drawn among the fewest that
    together have the probability ``top_p``."""
    sampling, top_k = Sampling(temperature, top_p=top_p), model.config.num_experts_per_tok
    reads = np.array([len(question) for question in questions])
    count, room = len(questions) * group, max(int(reads.max()) + max_new_tokens - 1, len(model.mtp) + 1)
    tokens = np.zeros((count, room), np.int32)
    targets = np.full((count, room), IGNORE, np.int32)
    log_probs = np.zeros((count, max_new_tokens))
    kept_tokens = np.ones((count, max_new_tokens, model.config.vocab_size), bool) if top_p < 1 else None

    decoder = Decoder(model, batch=len(questions))
    hidden = decoder.read_packed(np.concatenate([np.asarray(question, np.int64) for question in questions]), reads)
    chosen = [np.tile(np.arange(top_k), (count, room, 1)) for _ in decoder.chosen]  # (A, T, K)
    for q, (question, stop) in enumerate(zip(questions, np.cumsum(reads), strict=True)):
        mine, read = slice(q * group, (q + 1) * group), slice(stop - len(question), stop)
        tokens[mine, : len(question)] = question
        for kept, layer in zip(chosen, decoder.chosen, strict=True):
            kept[mine, : len(question)] = layer[read]

    logits = np.repeat(decoder.logits(hidden[np.cumsum(reads) - 1]), group, axis=0)  # (A, V)
    decoder, at = decoder.copied(group), np.repeat(reads, group)  # at: tokens of each that are known
    live, ended = np.arange(count), np.zeros(count, bool)
    endings = [ending.begun() for _ in range(count)]
    for written in range(max_new_tokens):
        p = sampling.probabilities(logits)  # (live, V)
        ids = _drawn(p, rng)
        targets[live, at[live] - 1] = ids
        log_probs[live, written] = np.log(p[np.arange(len(live)), ids])
        if kept_tokens is not None:
            kept_tokens[live, written] = p > 0
        ended[live] = [endings[a].after(int(token)) for a, token in zip(live, ids, strict=True)]
        ids, live = ids[~ended[live]], live[~ended[live]]
        if not len(live) or written + 1 == max_new_tokens:
            break
        tokens[live, at[live]] = ids
        counts = np.zeros(count, np.int64)
        counts[live] = 1
        hidden = decoder.read_packed(ids, counts)  # (live, d)
        for kept, layer in zip(chosen, decoder.chosen, strict=True):
            kept[live, at[live]] = layer
        at[live] += 1
        logits = decoder.logits(hidden)
    lengths = (targets != IGNORE).sum(axis=1)
    used = max(int((np.repeat(reads, group) + lengths).max()) - 1, len(model.mtp) + 1)  # an MTP module looks one token further
    known = np.arange(max_new_tokens) < lengths[:, None]  # (A, max_new_tokens)
    tokens, targets, chosen = tokens[:, :used], targets[:, :used], [kept[:, :used] for kept in chosen]
    groups = np.repeat(np.arange(len(questions)), group)
    kept_of_drawn = None if kept_tokens is None else kept_tokens[known]
    return Rollouts(tokens, targets, chosen, log_probs[known], lengths, ended, groups, kept_of_drawn)


def _drawn(p: Array, rng: Draws) -> Array:
    """A token from each row of p (R, V): (R,)."""
    cumulative = np.cumsum(p, axis=-1)
    below = cumulative <= rng.random(len(p))[:, None] * cumulative[:, -1:]
    return np.minimum(below.sum(axis=-1), p.shape[-1] - 1)
