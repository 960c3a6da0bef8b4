"""Text to token ids and back: one token per byte, byte-pair encoding learned from the training text, or its characters.

All are byte-level BPE models of the ``tokenizers`` library (the byte tokenizer is one without a merge), so ``transformers``
opens what ``save`` writes, and ``Tokenizer.load`` the published ones, such as DeepSeek-V3's (128K tokens; report, section 4.1):

    ids 0 … 255     the bytes: id = value
    256, 257        <|begin_of_text|>, <|end_of_text|>
    258 …           what training merged
    the last three  <|fim_begin|>, <|fim_hole|>, <|fim_end|>, where a model is to fill in the middle (``with_fim``)
"""

from __future__ import annotations

import codecs
import json
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from minids import arguments
from minids.errors import MinidsError, refuse
from minids.files import staged
from minids.words import table

BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"
FIM = ("<|fim_begin|>", "<|fim_hole|>", "<|fim_end|>")
DEEPSEEK_FIM = ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>")  # the published tokenizers' names of the same three
FILES = ("tokenizer.json", "tokenizer_config.json")
BYTE_VOCAB_SIZE = 258  # 256 bytes and the two specials
# GPT-2's pattern but for the line breaks that punctuation takes along, as in DeepSeek-V3's tokenizer.json.
_WITH_LINE_BREAKS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+"


# The printable character that writes each byte in a byte-level vocabulary (Radford et al. 2019, GPT-2). Printable Latin-1
# stands for itself; the other 68 bytes take the characters from U+0100 on, in order.
_PRINTABLE = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
_STAND_INS = iter(range(0x100, 0x200))
CHARACTER_OF_BYTE = [chr(byte if byte in _PRINTABLE else next(_STAND_INS)) for byte in range(256)]
BYTE_OF_CHARACTER = {character: byte for byte, character in enumerate(CHARACTER_OF_BYTE)}


class FimIds(NamedTuple):
    """The tokens around the parts of a text whose middle comes last (V3 section 4.1): begin prefix hole suffix end middle."""

    begin: int
    hole: int
    end: int

    def before_middle(self, prefix: np.ndarray, suffix: np.ndarray) -> np.ndarray:
        """Ids of prefix and suffix → all that the middle comes after."""
        return np.concatenate([[self.begin], prefix, [self.hole], suffix, [self.end]]).astype(np.int32)


class Tokenizer:
    """A byte-level tokenizer, its begin and end tokens and those of fill-in-the-middle (None where it has none)."""

    def __init__(self, backend: tokenizers.Tokenizer, bos_token: str | None = None, eos_token: str | None = None):
        backend.no_truncation()  # a published tokenizer.json may carry both switched on
        backend.no_padding()
        backend.encode_special_tokens = True  # special tokens written out in a text are text
        self.backend = backend
        self.bos_token, self.eos_token = bos_token, eos_token
        self.bos_id, self.eos_id = self._id_of("bos_token", bos_token), self._id_of("eos_token", eos_token)
        self.fim = next(filter(None, (self._fim_ids(names) for names in (FIM, DEEPSEEK_FIM))), None)
        self._pieces = _pieces(backend)
        self.byte_counts = np.array([len(piece) for piece in self._pieces], dtype=np.int32)  # (V,) 0 for special tokens
        # (256,), -1 for a byte without a token. Where no token is longer than a byte it is all there is to know.
        self._id_of_byte: np.ndarray | None = None
        if int(self.byte_counts.max(initial=0)) == 1:
            numbers = {piece[0]: number for number, piece in enumerate(self._pieces) if piece}
            self._id_of_byte = np.array([numbers.get(byte, -1) for byte in range(256)], dtype=np.int32)

    def _id_of(self, field: str, token: str | None) -> int | None:
        found = None if token is None else self.backend.token_to_id(token)
        if token is not None and found is None:
            raise refuse(field, token, "the vocabulary has no such token")
        return found

    def __repr__(self) -> str:
        """A short table: how many tokens, of how many bytes, and the two that begin and end a document."""
        special, longest = int((self.byte_counts == 0).sum()), int(self.byte_counts.max(initial=0))
        rows = [
            ("tokens", f"{self.vocab_size:,}, {special} of them special or unused"),
            ("longest", f"{longest} {'byte' if longest == 1 else 'bytes'}"),
            *((what, f"{token} = {number}") for what, token, number in self._ends() if token is not None),
        ]
        return f"Tokenizer\n{table(rows, align='l')}"

    def _ends(self) -> list[tuple[str, str | None, int | None]]:
        return [("begins", self.bos_token, self.bos_id), ("ends", self.eos_token, self.eos_id)]

    def _fim_ids(self, names: Sequence[str]) -> FimIds | None:
        begin, hole, end = (self.backend.token_to_id(name) for name in names)
        return None if begin is None or hole is None or end is None else FimIds(begin, hole, end)

    def with_fim(self) -> Tokenizer:
        """The same tokenizer with the three tokens of fill-in-the-middle behind all others, and before them an end token where
        there is none: a middle that is filled in has to end."""
        backend = tokenizers.Tokenizer.from_str(self.backend.to_str())
        backend.add_special_tokens([*([] if self.eos_token else [EOS]), *FIM])
        return Tokenizer(backend, self.bos_token, self.eos_token or EOS)

    @property
    def beginning(self) -> list[int]:
        return [] if self.bos_id is None else [self.bos_id]

    @property
    def vocab_size(self) -> int:
        return len(self._pieces)

    def encode(self, text: str | bytes) -> np.ndarray:
        """Ids of a text, int32, without begin or end token; a special token's name inside the text stays text. Bytes that are
        not UTF-8 pass the byte tokenizer unchanged; BPE sees U+FFFD in their place."""
        data = text.encode("utf-8", errors="replace") if isinstance(text, str) else bytes(text)  # half a surrogate pair: "?"
        if self._id_of_byte is not None:
            ids = self._id_of_byte[np.frombuffer(data, dtype=np.uint8)]
            return ids[ids >= 0]
        found = self.backend.encode(data.decode("utf-8", errors="replace"), add_special_tokens=False)
        return np.array(found.ids, dtype=np.int32)

    def unknown(self, text: str) -> list[str]:
        """The characters of a text, each once, that ``encode`` leaves out or turns into others."""
        if self.decode(self.encode(text)) == text:
            return []
        return [c for c in dict.fromkeys(text) if not self.decode(self.encode(c)).endswith(c)]  # some put a space before

    def decode_bytes(self, ids: Sequence[int] | np.ndarray) -> bytes:
        """The bytes that ids stand for. Special tokens, padding (-100) and ids without a token stand for none."""
        return b"".join(self._pieces[i] for i in np.ravel(ids).tolist() if 0 <= i < len(self._pieces))

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of ids as they come: for each what it adds, which is nothing while a character is half there, and at the end
        what never became one. Together it is ``decode`` of all, in time that grows with their number alone."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for number in ids:
            yield decoder.decode(self.decode_bytes([number]))
        yield decoder.decode(b"", final=True)

    def count_bytes(self, ids: Sequence[int] | np.ndarray) -> int:
        """Bytes of text in ids of any shape; targets of -100 count none. bits per byte = Σ loss / (ln 2 · bytes)."""
        ids = np.asarray(ids)
        known = (ids >= 0) & (ids < self.vocab_size)
        return int(self.byte_counts[ids[known]].sum(dtype=np.int64))

    def files(self) -> dict[str, bytes]:
        """What ``tokenizer.json`` and ``tokenizer_config.json`` hold, by file name."""
        config = {
            **{"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": self.bos_token, "eos_token": self.eos_token},
            **{"add_bos_token": False, "add_eos_token": False},  # transformers then gives the ids that encode() gives
            "clean_up_tokenization_spaces": False,  # or decode() would drop spaces before punctuation
        }
        texts = self.backend.to_str(pretty=True), json.dumps(config, indent=2, ensure_ascii=False)
        return {name: text.encode() for name, text in zip(FILES, texts, strict=True)}

    def save(self, folder: str | Path) -> None:
        """Write ``tokenizer.json`` and ``tokenizer_config.json``, both whole or none."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        with staged() as staging:
            for name, content in self.files().items():
                with staging.create(Path(folder) / name) as file:
                    file.write(content)
            staging.publish()

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """The tokenizer of a checkpoint's folder, ours or a published byte-level one. Begin and end token are those of
        ``tokenizer_config.json``; without that file, ours where the vocabulary has them."""
        arguments.instance("folder", folder, (str, os.PathLike), "the path of a folder")
        path = Path(folder) / "tokenizer.json"
        try:
            backend = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise refuse("tokenizer", str(folder), "has no tokenizer.json") from None
        except Exception as error:  # the library raises a bare Exception for what it cannot parse
            raise refuse("tokenizer", str(path), f"cannot be read: {_first_line(error)}") from None
        config_path = path.with_name("tokenizer_config.json")
        try:
            config = json.loads(config_path.read_text(encoding="utf-8"))
            bos, eos = (_content(config.get(field)) for field in ("bos_token", "eos_token"))
        except FileNotFoundError:
            bos, eos = (token if backend.token_to_id(token) is not None else None for token in (BOS, EOS))
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise refuse("tokenizer", str(config_path), f"cannot be read: {_first_line(error)}") from None
        return cls(backend, bos, eos)


def encoded(tokenizer: Tokenizer, text: str, field: str) -> list[int]:
    """Token ids of a text that somebody gave as ``field``. What the vocabulary does not have is left out with a warning that
    names it; a text of nothing else is refused."""
    ids = tokenizer.encode(text).tolist()
    if unknown := tokenizer.unknown(text):
        shown = ", ".join(map(repr, unknown[:10])) + (f" and {len(unknown) - 10} more" if unknown[10:] else "")
        if not ids:
            raise refuse(field, text[:80], f"none of its characters is in the model's vocabulary ({shown})")
        warnings.warn(f"{field}: left out, because the model's vocabulary does not have it: {shown}", stacklevel=4)
    return ids


def byte_tokenizer() -> Tokenizer:
    """One token per byte, and the two specials: V = 258."""
    return _byte_level([])


def train_bpe(texts: Iterable[str | bytes], vocab_size: int, line_tokens: bool = False) -> Tokenizer:
    """Byte-level BPE (Sennrich et al. 2016) with at most ``vocab_size`` tokens, learned from ``texts``; fewer where a small
    text runs out of pairs. Digits are never merged, as in DeepSeek LLM (Bi et al. 2024, section 2.1). ``line_tokens``:
    punctuation may be merged with the line break behind it, as in V3's (section 4.1)."""
    if vocab_size < BYTE_VOCAB_SIZE:
        raise refuse("bpe_vocab_size", vocab_size, f"must be at least {BYTE_VOCAB_SIZE}: 256 bytes and two special tokens")
    learner = tokenizers.Tokenizer(models.BPE())
    learner.pre_tokenizer = _words(line_tokens)
    size = vocab_size - 2  # the specials are added below, behind the bytes
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=CHARACTER_OF_BYTE, show_progress=False)
    learner.train_from_iterator(map(_as_text, texts), trainer)
    return _byte_level([tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]], line_tokens)


def character_tokenizer(texts: Iterable[str | bytes]) -> Tokenizer:
    """One token per character that occurs in ``texts``, in the order of their code points, and no special token. Encoding
    leaves out a character that did not occur."""
    alphabet = set[str]().union(*map(_as_text, texts))
    written = ["".join(CHARACTER_OF_BYTE[byte] for byte in c.encode("utf-8", errors="replace")) for c in sorted(alphabet)]
    vocab = {token: number for number, token in enumerate(dict.fromkeys(written))}
    # ignore_merges: what is cut out as one piece is looked up whole, so that a character of several bytes needs no merges.
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[], ignore_merges=True))
    every_one = pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([every_one, as_bytes])
    backend.decoder = decoders.ByteLevel()
    return Tokenizer(backend)


def _byte_level(merges: list[tuple[str, str]], line_tokens: bool = False) -> Tokenizer:
    """The tokenizer with these merges, numbered as in the table at the top: training leaves the ids in another order."""
    tokens = [*CHARACTER_OF_BYTE, BOS, EOS, *(left + right for left, right in merges)]
    vocab = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
    backend.pre_tokenizer = _words(line_tokens)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([BOS, EOS])
    return Tokenizer(backend, BOS, EOS)


def _words(line_tokens: bool) -> pre_tokenizers.PreTokenizer:
    """Cuts a text into what merges may not cross: single digits, then words, runs of spaces and punctuation as in GPT-2; with
    ``line_tokens`` line breaks stay with the punctuation before them."""
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not line_tokens)
    lines = [pre_tokenizers.Split(tokenizers.Regex(_WITH_LINE_BREAKS), "isolated")] if line_tokens else []
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(True), *lines, as_bytes])


def _as_text(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode("utf-8", errors="replace")


def _pieces(backend: tokenizers.Tokenizer) -> list[bytes]:
    """The bytes of every id, read from the vocabulary; none for special tokens and for gaps in the numbering."""
    added, vocab = backend.get_added_tokens_decoder(), backend.get_vocab(with_added_tokens=True)
    pieces = [b""] * (max(vocab.values(), default=-1) + 1)
    for token, number in vocab.items():
        try:
            if number in added:
                pieces[number] = b"" if added[number].special else token.encode("utf-8")
            else:
                pieces[number] = bytes(BYTE_OF_CHARACTER[character] for character in token)
        except KeyError as error:
            why = f"holds {error.args[0]!r}, which stands for no byte; only byte-level tokenizers work"
            raise MinidsError(f"tokenizer: token {token!r} {why}") from None
    return pieces


def _content(token: str | dict | None) -> str | None:
    """A token as ``tokenizer_config.json`` writes it: its name, or a description with the name inside."""
    content = token.get("content") if isinstance(token, dict) else token
    if content is not None and not isinstance(content, str):
        raise TypeError(f"{token!r} is not the name of a token")
    return content


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
