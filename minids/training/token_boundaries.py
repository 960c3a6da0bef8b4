"""Tokens that join punctuation and a line break, split at random against the token-boundary bias (V3 section 4.1).

A tokenizer that has ``:⏎`` as one token writes no text as ``:`` and then ``⏎``. A model trained on it so has never seen a line
break behind a ``:``, and a prompt that ends in ``:`` is continued as if the line went on. V3 splits "a certain proportion" of
such tokens while training; the model then knows both spellings. Held-out text is left as the tokenizer makes it.
"""

import re

import numpy as np

from minids.checkpoint.tokenizer import Tokenizer
from minids.layers.parameters import Array

_JOINED = re.compile(r"(.*\S)([\r\n].*)", re.DOTALL)


def joined(tokenizer: Tokenizer) -> dict[int, Array]:
    """Every token that holds something and a line break behind it → the tokens of both parts."""
    found = {}
    for number in range(tokenizer.vocab_size):
        match = _JOINED.fullmatch(tokenizer.decode_bytes([number]).decode("utf-8", errors="replace"))
        if match:
            found[number] = np.concatenate([tokenizer.encode(part) for part in match.groups()])
    return found


class SplitJoined:
    """text → its tokens, (n,) int32, of which each that joins is split with probability ``rate``."""

    def __init__(self, tokenizer: Tokenizer, rate: float, rng: np.random.Generator):
        self.tokenizer, self.rate, self.rng = tokenizer, rate, rng
        self.parts = joined(tokenizer)
        self.joins = np.zeros(tokenizer.vocab_size, dtype=bool)  # (V,)
        self.joins[list(self.parts)] = True

    def __call__(self, text: bytes) -> Array:
        ids = self.tokenizer.encode(text)
        split = np.flatnonzero(self.joins[ids] & (self.rng.random(len(ids)) < self.rate))
        pieces, begin = [], 0
        for at in split.tolist():
            pieces += [ids[begin:at], self.parts[int(ids[at])]]
            begin = at + 1
        return np.concatenate([*pieces, ids[begin:]])
