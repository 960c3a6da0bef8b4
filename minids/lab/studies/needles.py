"""A task that needs a long memory, mixed into ordinary text: facts that are said once and come up again.

A fact is two bytes, its kind and its value: there are four kinds, and each has eight values of its own, as a city, a colour
and a number have. The 36 bytes they take stand for nothing else (in the text around them, bytes beyond ASCII become question
marks). In one window a kind has one value: where a kind has come up before, the value behind it is known to whoever
looks it up, and to nobody else.

    training      a few to many facts at random places of a window: retrieval over every distance there is
    evaluation    one fact at a chosen depth of a context, one of every other kind to mislead, and at the end its kind again

Numbers filed under letters (``[K47]``, then ``[K``) were tried and not learned: they need a circuit of two layers. Here one
layer can match a kind with its values. One guess in eight is right.
"""

from typing import NamedTuple

import numpy as np

from minids.errors import refuse
from minids.layers.parameters import Array
from minids.training.batches import Batches

KINDS, VALUES = 4, 8
SIZE = 2  # bytes of a fact
ASCII, BYTES = 128, 256
KIND = ASCII + KINDS * VALUES  # the byte of kind 0; those of the values are below it
SAID = (8, 32)  # fewest and most facts in a training window, whatever its length


class Haystacks(NamedTuple):
    """Contexts that end in a question."""

    tokens: Array  # (S, T): the last is the kind that is asked for
    answers: Array  # (S,): the value that follows for whoever remembers


class WithFacts:
    """Batches of windows with facts. Everything else in them is as it was."""

    def __init__(self, batches: Batches, rng: np.random.Generator):
        self.batches, self.rng = batches, rng

    def next(self) -> tuple[Array, Array]:
        """tokens (B, T) and the tokens that follow them (B, T)."""
        tokens, targets = self.batches.next()
        rows = plain(np.concatenate([tokens, targets[:, -1:]], axis=1))  # (B, T + 1)
        for row in rows:
            kinds = self.rng.integers(0, KINDS, self.rng.integers(SAID[0], SAID[1] + 1))
            _write(row, _places(self.rng, len(kinds), len(row)), kinds, _values(self.rng))
        return np.ascontiguousarray(rows[:, :-1]), np.ascontiguousarray(rows[:, 1:])


def plain(tokens: Array) -> Array:
    """A copy of tokens in which no byte is one of a fact's; special tokens, beyond the bytes, stay."""
    return np.where((tokens >= ASCII) & (tokens < BYTES), ord("?"), tokens).astype(np.int32)


def haystacks(stream: Array, rng: np.random.Generator, count: int, length: int, depth: float) -> Haystacks:
    """``count`` pieces of ``length`` tokens of ``stream`` (n,), each with a fact at ``depth``: 0 oldest place, 1 newest.

    One fact of every other kind is thrown into the text before it and behind it.
    """
    starts = rng.integers(0, len(stream) - length + 1, count)
    rows = plain(stream[starts[:, None] + np.arange(length)])  # (S, T)
    answers = np.empty(count, np.int32)
    end = length - 1  # where the question is
    at = round(depth * (end - SIZE))
    for i, row in enumerate(rows):
        asked, *others = kinds = rng.permutation(KINDS)
        before = min(int(rng.binomial(len(others), depth)), at // SIZE)
        behind = at + SIZE + _places(rng, len(others) - before, end - at - SIZE)
        values = _values(rng)
        _write(row, np.concatenate([[at], _places(rng, before, at), behind]), kinds, values)
        row[end], answers[i] = KIND + asked, values[asked]
    return Haystacks(rows, answers)


def found(logits: Array, answers: Array) -> Array:
    """logits (S, T, V) of haystacks → whether the answer was the most likely token, (S,) bool."""
    return logits[:, -1].argmax(axis=-1) == answers


def _values(rng: np.random.Generator) -> Array:
    """A value for every kind, as bytes, (KINDS,)."""
    return ASCII + VALUES * np.arange(KINDS) + rng.integers(0, VALUES, KINDS)


def _write(row: Array, places: Array, kinds: Array, values: Array) -> None:
    """Facts about ``kinds`` at ``places`` of ``row``, both (facts,); ``values`` (KINDS,)."""
    row[places], row[places + 1] = KIND + kinds, values[kinds]


def _places(rng: np.random.Generator, count: int, room: int) -> Array:
    """Where ``count`` facts begin that lie within ``room`` tokens and do not overlap, (count,), in order."""
    free = room - count * SIZE
    if free < 0:
        raise refuse("room", room, f"{count} facts of {SIZE} tokens need {count * SIZE}")
    return np.sort(rng.integers(0, free + 1, count)) + SIZE * np.arange(count)
