"""Prompts with their answers, and how they are packed into sequences for supervised fine-tuning (DeepSeek-V3, section 5.1).

a file of JSON lines      {"prompt": "What is 2 + 2?\\n", "answer": "2 + 2 = 4.\\n"}
a sample                  [begin] prompt answer [end]; what is predicted and counted is the answer and the end
a sequence                samples one behind another, as many as fit; none sees another
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minids.errors import MinidsError, refuse
from minids.inference.generate import Prompt, prompt_ids
from minids.layers.parameters import Array
from minids.model import IGNORE, DeepSeekV3

FIELDS = ("prompt", "answer")
OPEN = 64
"""Sequences that still take samples, where they fit; those filled longest are closed first."""


class Sample(NamedTuple):
    tokens: Array  # (n,) all of it
    answer: int  # where the answer begins


class Packed(NamedTuple):
    """Some samples in B sequences of T tokens."""

    tokens: Array  # (B, T) int32, filled up with 0
    targets: Array  # (B, T) int32: answers and ends, IGNORE elsewhere
    segments: Array  # (B, T) the number of each token's sample; -1 where a sequence is filled up


def read_json_lines(path: str | Path, fields: tuple[str, ...] = FIELDS) -> dict[str, tuple[str, ...]]:
    """The texts called ``fields`` of each line of a file, by the line's name. Empty lines are passed over; any other without
    such texts is refused by its name."""
    like = "{" + ", ".join(f'"{field}": …' for field in fields) + "}"
    try:
        text = Path(path).read_text(encoding="utf-8-sig")  # with or without the mark that some editors begin a file with
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise refuse("data", str(path), f"cannot be read: {why}; give a file of JSON lines, each like {like}") from None
    found: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise MinidsError(f"{where}: is not JSON ({error}); it must be like {like}") from None
        for field in fields:
            if not isinstance(values, dict) or not isinstance(values.get(field), str):
                raise MinidsError(f"{where}: has no text called {field!r}; it must be like {like}")
        found[where] = tuple(values[field] for field in fields)
    if not found:
        raise refuse("data", str(path), f"holds no line; give at least one like {like}")
    return found


def encoded_samples(
    model: DeepSeekV3, pairs: Iterable[Sequence[Prompt]], longest: int, names: Sequence[str] = ()
) -> list[Sample]:
    """Samples of (prompt, answer) pairs, texts or token ids, none of more than ``longest`` + 1 tokens. ``names``: how each is
    called where it is refused, if not samples[0], samples[1] …"""
    begin, end = model.config.bos_token_id, model.config.eos_token_id
    samples = []
    for number, pair in enumerate(pairs):
        where = names[number] if names else f"samples[{number}]"
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise refuse(where, pair, "must be a prompt and its answer")
        if not len(pair[1]):
            raise MinidsError(f"{where}: the answer is empty, so there is nothing to learn")
        prompt, answer = (prompt_ids(model, part) if len(part) else [] for part in pair)
        before = [*([] if begin is None else [begin]), *prompt]
        if not before:
            raise MinidsError(f"{where}: the prompt is empty, and this model has no token that starts a document")
        tokens = np.array([*before, *answer, *([] if end is None else [end])], np.int32)
        if len(tokens) > longest + 1:
            because = f"has {len(tokens)} tokens; context_length = {longest} takes {longest + 1} at most"
            raise MinidsError(f"{where}: {because}; shorten it, or raise context_length")
        samples.append(Sample(tokens, len(before)))
    if not samples:
        raise refuse("samples", [], "must hold at least one prompt with its answer")
    return samples


def sequences(samples: list[Sample], length: int, rng: np.random.Generator) -> list[list[int]]:
    """The samples in a shuffled order, each put into the first sequence that has room: their numbers, sequence by sequence."""
    packed: list[list[int]] = []
    room: list[int] = []
    for i in rng.permutation(len(samples)):
        needs = len(samples[i].tokens) - 1  # the last token is predicted and never read
        first = max(0, len(packed) - OPEN)
        at = next((s for s in range(first, len(packed)) if room[s] >= needs), None)
        if at is None:
            packed.append([])
            room.append(length)
            at = len(packed) - 1
        packed[at].append(int(i))
        room[at] -= needs
    return packed


def laid_out(samples: list[Sample], rows: list[list[int]], length: int) -> Packed:
    """Sequences of sample numbers → arrays (B, T)."""
    tokens = np.zeros((len(rows), length), np.int32)
    targets = np.full((len(rows), length), IGNORE, np.int32)
    segments = np.full((len(rows), length), -1, np.int32)
    for row, members in enumerate(rows):
        at = 0
        for number, i in enumerate(members):
            ids, answer = samples[i]
            stop = at + len(ids) - 1
            tokens[row, at:stop] = ids[:-1]
            targets[row, at + answer - 1 : stop] = ids[answer:]
            segments[row, at:stop] = number
            at = stop
    return Packed(tokens, targets, segments)


def batches(
    samples: list[Sample], length: int, batch_size: int, epochs: int, rng: np.random.Generator
) -> list[list[list[int]]]:
    """The sequences of every step of every epoch; an epoch's last step may have fewer."""

    def steps() -> Iterator[list[list[int]]]:
        for _ in range(epochs):
            rows = sequences(samples, length, rng)
            yield from (rows[i : i + batch_size] for i in range(0, len(rows), batch_size))

    return list(steps())
