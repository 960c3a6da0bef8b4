"""Batches of training windows in a new order every epoch, and validation windows in a fixed one.

DeepSeek-V3 packs documents one behind another and lets attention see across their borders (report, section 4.1). So does an
epoch here: documents, each as [begin] text [end], are laid in a shuffled order on a ring, the ring is cut into windows of T
tokens from a random place on, and the windows are visited in a shuffled order, each with the token that follows it:

    tokens  = t_0 … t_{T-1}        targets = t_1 … t_T

The ring exists only as arithmetic on positions: the encoded corpus is kept once and never copied.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from minids.checkpoint.tokenizer import Tokenizer
from minids.errors import MinidsError, refuse
from minids.layers.parameters import Array
from minids.ops.cross_entropy import IGNORE
from minids.training.corpus import Document
from minids.training.text_files import LARGE

Layout = Callable[[bytes], list[Array]]  # a document's text → the ids of the documents that it becomes


@dataclass(frozen=True, eq=False)
class TokenStream:
    """Encoded documents, one behind another."""

    tokens: Array  # (n,) every document's tokens, uint16 where the vocabulary allows, else int32
    starts: Array  # (documents + 1,) where each document begins in ``tokens``; the last entry is n
    domains: tuple[str, ...] = ()
    domain_of: Array | None = None  # (documents,) the domain of each, an index of ``domains``

    @classmethod
    def encode(cls, documents: Iterable[Document], tokenizer: Tokenizer, layout: Layout | None = None) -> TokenStream:
        """Encode documents as [begin] text [end], leaving out what the tokenizer has no token for. ``layout``: a text's ids,
        where they are not simply its tokens; it may also make several documents of one."""
        dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.int32
        begin, end = ([] if special is None else [special] for special in (tokenizer.bos_id, tokenizer.eos_id))
        documents = list(documents)
        if not documents:
            return cls(np.zeros(0, dtype), np.zeros(1, np.int64))
        layout = layout or (lambda text: [tokenizer.encode(text)])
        domains, domain_of = tuple(dict.fromkeys(d.domain for d in documents)), []

        def laid_out() -> Iterator[Array]:
            for d in documents:
                for ids in layout(d.text):
                    domain_of.append(domains.index(d.domain))
                    yield np.concatenate([begin, ids, end], dtype=dtype, casting="unsafe")

        pieces = laid_out()
        if sum(d.size for d in documents) < LARGE:
            held = list(pieces)
            tokens, lengths = np.concatenate(held), [len(piece) for piece in held]
        else:
            tokens, lengths = _joined_on_disk(pieces, dtype)
        return cls(tokens, np.cumsum([0, *lengths]), domains, np.array(domain_of))

    def __len__(self) -> int:
        return len(self.tokens)


class Batches:
    """An endless supply of (tokens, targets), each (B, T) int32, that can be stopped and continued exactly.

    Every epoch draws one number from ``rng``, which seeds its shuffling: so ``rng`` may have other users, and a state is small.
    Up to T − 1 tokens of an epoch fall outside its windows. A batch may join two epochs.
    """

    def __init__(self, stream: TokenStream, batch_size: int, context_length: int, rng: np.random.Generator, keep: int = 1):
        """The last ``keep`` batches are in ``kept``: tokens, targets, and the tokens' domains where the stream has some."""
        if batch_size < 1:
            raise refuse("batch_size", batch_size, "must be at least 1")
        if not 1 <= context_length < len(stream):
            longest = f"the training text has {len(stream)} tokens, so it can be at most {len(stream) - 1}"
            raise refuse("context_length", context_length, longest if context_length > 0 else "must be at least 1")
        self.stream, self.batch_size, self.context_length, self.rng = stream, batch_size, context_length, rng
        self.windows_per_epoch = len(stream) // context_length
        self.kept: deque[tuple[Array, Array, Array | None]] = deque(maxlen=keep)  # (B, T) each
        self._begin(0)

    def next(self, sequences: int | None = None) -> tuple[Array, Array]:
        """The next batch: tokens (B, T) and the tokens that follow them (B, T), int32. B is ``sequences``, where given."""
        parts, missing = [], self.batch_size if sequences is None else sequences
        while missing:
            if self.position == self.windows_per_epoch:
                self._begin(self.epoch + 1)
            windows = self._windows[self.position : self.position + missing]
            parts.append(self._gather(windows))
            self.position += len(windows)
            missing -= len(windows)
        rows, documents = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))  # (B, T + 1)
        tokens, targets = np.ascontiguousarray(rows[:, :-1]), np.ascontiguousarray(rows[:, 1:])
        domain_of = self.stream.domain_of
        self.kept.append((tokens, targets, None if domain_of is None else domain_of[documents[:, :-1]]))
        return tokens, targets

    def state(self) -> dict:
        """Where the supply stands, ready for JSON; holds the state of ``rng`` too."""
        return {
            **{"epoch": self.epoch, "position": self.position, "epoch_seed": self._seed},
            **{"context_length": self.context_length, "tokens": len(self.stream), "documents": len(self.stream.starts) - 1},
            "generator": _plain(self.rng.bit_generator.state),
        }

    def restore(self, state: dict) -> None:
        """Continue where ``state`` was taken, ``rng`` too: the same batches follow. Another text is refused: other windows."""
        now = self.state()
        if not isinstance(state, dict) or state.keys() != now.keys():
            raise MinidsError(f"data state: must hold {', '.join(now)}; it is not one that this version wrote")
        for field in ("context_length", "tokens", "documents"):
            if state[field] != now[field]:
                raise refuse(field, now[field], f"the run to be continued had {state[field]}; use the same text and settings")
        if not 0 <= state["position"] <= self.windows_per_epoch:
            raise refuse("position", state["position"], f"an epoch has {self.windows_per_epoch} windows")
        try:
            self.rng.bit_generator.state = state["generator"]
        except (TypeError, ValueError, KeyError) as error:
            raise MinidsError(f"data state: the random generator's part cannot be used: {error}") from None
        self._begin(state["epoch"], state["epoch_seed"])
        self.position = state["position"]

    def _begin(self, epoch: int, seed: int | None = None) -> None:
        """Lay out an epoch: the documents' order on the ring, the place of the first cut, the windows' order."""
        self.epoch, self.position = epoch, 0
        self._seed = int(self.rng.integers(1 << 63, dtype=np.uint64)) if seed is None else seed
        shuffle = np.random.default_rng(self._seed)
        starts = self.stream.starts
        order = shuffle.permutation(len(starts) - 1)
        lengths = np.diff(starts)[order]
        self._order = order  # (documents,) which document comes when
        self._ends = np.cumsum(lengths)  # (documents,) where each document of this order ends on the ring
        self._offsets = starts[order] - (self._ends - lengths)  # (documents,) from a place on the ring to one in the array
        self._first = shuffle.integers(len(self.stream))
        self._windows = shuffle.permutation(self.windows_per_epoch)

    def _gather(self, windows: Array) -> tuple[Array, Array]:
        """The tokens of some windows and one more each, (windows, T + 1) int32; and which document each comes from."""
        span = np.arange(self.context_length + 1)
        places = (self._first + windows[:, None] * self.context_length + span) % len(self.stream)
        document = np.searchsorted(self._ends, places, side="right")
        return self.stream.tokens[places + self._offsets[document]].astype(np.int32), self._order[document]


def validation_windows(
    tokens: Array, batch_size: int, context_length: int, max_tokens: int | None = None
) -> Iterator[tuple[Array, Array]]:
    """Consecutive windows over ``tokens`` (n,), each batch (≤ B, T) tokens and targets, int32. Every token but the first is a
    target once, up to ``max_tokens``. The last window is filled up with token 0 and target -100, which no loss counts."""
    for field, value in (("batch_size", batch_size), ("context_length", context_length)):
        if value < 1:
            raise refuse(field, value, "must be at least 1")
    count = len(tokens) - 1 if max_tokens is None else min(len(tokens) - 1, max_tokens)
    if count < 1:
        raise refuse("validation", len(tokens), "a validation text of two tokens is the shortest there can be")
    per_batch = batch_size * context_length
    for begin in range(0, count, per_batch):
        size = min(per_batch, count - begin)
        rows = -(-size // context_length)
        inputs = np.zeros((rows, context_length), np.int32)
        targets = np.full_like(inputs, IGNORE)
        inputs.flat[:size] = tokens[begin : begin + size]
        targets.flat[:size] = tokens[begin + 1 : begin + size + 1]
        yield inputs, targets


def spread_windows(
    tokens: Array, batch_size: int, context_length: int, max_tokens: int | None = None
) -> Iterator[tuple[Array, Array]]:
    """Of a text longer than ``max_tokens``: whole windows at even distances over all of it, each batch (≤ B, T) tokens and
    targets, int32, so that a short look meets many documents. A shorter text is read whole, as ``validation_windows`` does."""
    span = max(context_length, 1)
    there, wanted = (len(tokens) - 1) // span, 0 if max_tokens is None else max_tokens // span
    if not 0 < wanted < there:
        yield from validation_windows(tokens, batch_size, context_length, max_tokens)
        return
    starts = np.arange(wanted) * there // wanted * span
    for first in range(0, wanted, batch_size):
        rows = tokens[starts[first : first + batch_size, None] + np.arange(span + 1)].astype(np.int32)  # (≤ B, T + 1)
        yield np.ascontiguousarray(rows[:, :-1]), np.ascontiguousarray(rows[:, 1:])


def _joined_on_disk(pieces: Iterator[Array], dtype: DTypeLike) -> tuple[Array, list[int]]:
    """The pieces one behind another, in a temporary file that goes when the array does, and their lengths."""
    with tempfile.TemporaryFile(prefix="minids-tokens-") as file:
        lengths = []
        for piece in pieces:
            file.write(piece.data)
            lengths.append(len(piece))
        file.flush()
        return np.memmap(file, dtype, "r", shape=(sum(lengths),)), lengths


def _plain(value: object) -> object:
    """A bit generator's state with plain numbers and lists only: some kinds hold arrays, which JSON cannot write."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return value
