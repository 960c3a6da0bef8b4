"""Multiple choice by perplexity: three ways to end a line of held-out text, one of them the true one.

As the report scores HellaSwag, PIQA and the like (section 4.4): nothing is generated. Each ending is read after the same
beginning, and the model's answer is the one whose bytes surprise it least on average,

    argmin_e  −ln p(e | beginning) / bytes(e)

Guessing is right once in three times. The wrong endings come from other lines of the same domain, of about the same length.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from minids.backend import op
from minids.blas import one_blas_thread
from minids.layers.parameters import Array
from minids.model import IGNORE, DeepSeekV3

CHOICES = 3
ITEMS, FEWEST = 150, 50
"""Of each domain: lines that are asked for, and how few do not tell anything."""
SHORTEST, LONGEST, BEFORE = 40, 120, 80
"""Bytes: of a line, and of the text before it that is shown."""
SEED, SIDE_BY_SIDE = 44, 48
"""Of the draws; and rows in a batch."""


class Item(NamedTuple):
    beginning: bytes
    endings: tuple[bytes, ...]  # (CHOICES,)
    true: int  # which of them stands in the text


def items(documents: Iterable[bytes], count: int = ITEMS) -> list[Item]:
    """Lines of held-out documents, cut in two at the space nearest to their middle; none where there are too few."""
    cut: dict[bytes, bytes] = {}  # ending → what stands before it
    for document in documents:
        at = 0
        for line in document.split(b"\n"):
            middle = [i for i in (line.rfind(b" ", 0, len(line) // 2), line.find(b" ", len(line) // 2)) if i > 0]
            if SHORTEST <= len(line.strip()) <= LONGEST and middle:
                space = min(middle, key=lambda i: abs(i - len(line) // 2))
                cut.setdefault(line[space:], document[max(at - BEFORE, 0) : at + space])
            at += len(line) + 1
    if len(cut) < FEWEST:
        return []
    rng = np.random.default_rng(SEED)
    lines = [list(cut.items())[i] for i in rng.permutation(len(cut))[:count]]
    lines.sort(key=lambda line: len(line[0]))
    found = []
    for i, (ending, beginning) in enumerate(lines):
        first = min(max(i - 8, 0), len(lines) - 17)
        others = [lines[j][0] for j in range(first, first + 17) if j != i]  # the sixteen nearest in length
        endings = [others[j] for j in rng.permutation(len(others))[: CHOICES - 1]]
        true = int(rng.integers(CHOICES))
        endings.insert(true, ending)
        found.append(Item(beginning, tuple(endings), true))
    return found


@one_blas_thread()
def chosen(model: DeepSeekV3, asked: list[Item]) -> Array:
    """The ending that the model finds likeliest, byte for byte, of each item, (items,) int."""
    tokenizer = model.tokenizer
    rows, sizes = [], []
    for item in asked:
        start = [*tokenizer.beginning, *tokenizer.encode(item.beginning)]
        for ending in item.endings:
            ids = tokenizer.encode(ending).tolist()
            rows.append((start, ids))
            sizes.append(max(tokenizer.count_bytes(ids), 1))
    nats = np.zeros(len(rows))
    by_length = sorted(range(len(rows)), key=lambda i: sum(map(len, rows[i])))  # so that little is filled up
    for first in range(0, len(rows), SIDE_BY_SIDE):
        some = by_length[first : first + SIDE_BY_SIDE]
        longest = max(sum(map(len, rows[i])) for i in some)
        tokens = np.zeros((len(some), longest), np.int32)  # (B, T)
        targets = np.full_like(tokens, IGNORE)
        for row, i in enumerate(some):
            start, ids = rows[i]
            tokens[row, : len(start) + len(ids)] = start + ids
            targets[row, len(start) - 1 : len(start) + len(ids) - 1] = ids
        hidden = model.hidden_states(tokens)[0]  # (B, T, d)
        for row, i in enumerate(some):
            counted = targets[row] != IGNORE
            logits = model.head.forward(hidden[row, counted])[0]  # (tokens of the ending, V)
            nats[i] = op.cross_entropy.forward(logits, targets[row, counted], 1.0)[0]
    return (nats / sizes).reshape(len(asked), -1).argmin(axis=-1)


def accuracy(model: DeepSeekV3, asked: list[Item]) -> float:
    """The share of items whose true ending the model finds likeliest."""
    return float(np.mean(chosen(model, asked) == [item.true for item in asked]))
