"""Fill-in-the-middle: some documents with their middle last, so that a model learns to write what is missing (V3 section 4.1).

    <|fim_begin|> prefix <|fim_hole|> suffix <|fim_end|> middle

before packing, between the begin and end token of the document: prefix-suffix-middle of Bavarian et al. 2022. Both cuts are
drawn among all places between two characters, whatever the tokens there, so that a middle may begin inside a word.

V3's documents are shorter than its context. Here many are longer, and a hole whose middle lies in another window teaches
nothing. So a document is looked at in stretches of at most half a context, cut where the text pauses; each of them is laid out
at the rate that V3 has for documents, as a document of its own, and what lies between two such stays together.
"""

from collections.abc import Callable

import numpy as np

from minids.checkpoint.tokenizer import FimIds
from minids.layers.parameters import Array
from minids.training.text_files import boundary

Encode = Callable[[bytes], Array]  # text → ids, without begin or end token


class FillInTheMiddle:
    """text → the documents that it becomes, ids (n,) each, without begin or end token."""

    def __init__(self, encode: Encode, fim: FimIds, rate: float, context_length: int, rng: np.random.Generator):
        self.encode, self.fim, self.rate, self.rng = encode, fim, rate, rng
        self.longest = max(context_length // 2, 1)  # of a stretch, in tokens

    def __call__(self, text: bytes) -> list[Array]:
        bytes_per_token = len(text) / max(len(self.encode(text)), 1)
        found, begin, at = [], 0, 0  # text[begin:at] is not laid out
        for stop in ends(text, max(int(self.longest * bytes_per_token), 1)):
            if self.rng.random() < self.rate:
                found += [self.encode(text[begin:at])] * (begin < at) + [self.rearranged(text[at:stop])]
                begin = stop
            at = stop
        return found + [self.encode(text[begin:])] * (begin < len(text))

    def rearranged(self, text: bytes) -> Array:
        """begin prefix hole suffix end middle, with the cuts drawn."""
        first_bytes = (np.frombuffer(text, np.uint8) & 0xC0) != 0x80  # of characters: 0b10xxxxxx continues one
        places = [*np.flatnonzero(first_bytes).tolist(), len(text)]
        a, b = sorted(places[i] for i in self.rng.integers(len(places), size=2))
        prefix, middle, suffix = (self.encode(part) for part in (text[:a], text[a:b], text[b:]))
        return np.concatenate([self.fim.before_middle(prefix, suffix), middle])


def ends(text: bytes, longest: int) -> list[int]:
    """Where the stretches of a text end, each of at most ``longest`` bytes (a character may have a few more)."""
    found = [0]
    while found[-1] + longest < len(text):
        rest = text[found[-1] : found[-1] + longest + 8]
        found.append(found[-1] + (boundary(rest, longest, reach=longest // 2) or len(rest)))
    return found[1:] + [len(text)] * (found[-1] < len(text))
