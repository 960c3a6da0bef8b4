"""Text on the disk: which files are text, and where a long one is cut into documents.

A text is ``bytes``, or a ``Stretch`` of a file too large to hold in memory, read when it is asked for. Both have a length,
slices and ``bytes(text)``.
"""

from __future__ import annotations

import codecs
import hashlib
import itertools
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minids.terminal import name_of

DOCUMENT_BYTES = 1 << 16
"""A longer text is cut into documents of at most this size, so that validation can take some of it."""
LARGE = 64 << 20
"""Bytes of a file, or of a corpus, from which on it is not held in memory."""
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Stretch:
    """Bytes ``begin`` to ``end`` of a file."""

    path: str
    begin: int
    end: int

    def __len__(self) -> int:
        return self.end - self.begin

    def __getitem__(self, part: slice) -> Stretch:
        begin, end, _ = part.indices(len(self))
        return Stretch(self.path, self.begin + begin, self.begin + max(begin, end))

    def __bytes__(self) -> bytes:
        with open(self.path, "rb") as file:
            file.seek(self.begin)
            return file.read(len(self))


def walk(folder: Path, passed: list[tuple[str, str]]) -> Iterator[Path]:
    """Every file under a folder but hidden ones, sorted; links are followed, each folder is entered once. What cannot be
    entered is added to ``passed``, with the reason."""
    entered = set()

    def closed(error: OSError) -> None:
        passed.append((name_of(error.filename), _reason(error)))

    for here, folders, files in os.walk(folder, followlinks=True, onerror=closed):
        real = os.path.realpath(here)
        new = real not in entered
        entered.add(real)
        folders[:] = sorted(name for name in folders if new and not name.startswith("."))
        yield from (Path(here, name) for name in sorted(files) if new and not name.startswith("."))


def read(file: Path) -> tuple[bytes | Stretch, bytes, str]:
    """A file's text as UTF-8, its SHA-256, and an empty string or what is wrong with it as text. A byte-order mark is left out,
    UTF-16 and UTF-32 that begin with one are read, and a notebook gives the sources of its cells, without what they printed."""
    if file.exists() and not file.is_file():  # opening a pipe would wait for its other end
        return b"", b"", "is neither a file nor a folder"
    try:
        size = file.stat().st_size
        text = file.read_bytes() if size < LARGE else Stretch(str(file), 0, size)
        text = _as_utf8(text)
        if file.suffix == ".ipynb":
            text = _sources(bytes(text))
        return text, *_examined(text)
    except OSError as error:
        return b"", b"", _reason(error)
    except _NoText as problem:
        return b"", b"", str(problem)


class _NoText(Exception):
    """Why a file is not read."""


MARKS = {  # the longer first: UTF-32's begins with UTF-16's
    codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32", codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16",
    codecs.BOM_UTF8: "UTF-8",
}  # fmt: skip


def _as_utf8(text: bytes | Stretch) -> bytes | Stretch:
    """A text without its byte-order mark, in UTF-8 whatever the mark says it is."""
    begin = bytes(text[:4])
    mark = next((mark for mark in MARKS if begin.startswith(mark)), b"")
    coding = MARKS.get(mark, "UTF-8")
    if coding == "UTF-8":
        halves = begin[0::2], begin[1::2]
        letters = any(half.isascii() and half.decode().isprintable() for half in halves)  # "a\0b\0", or "\0a\0b"
        if len(begin) == 4 and b"\0\0" in halves and letters:
            raise _NoText("looks like UTF-16 without a byte-order mark; save it as UTF-8")
        return text[len(mark) :] if mark else text
    if isinstance(text, Stretch):
        raise _NoText(f"is {coding} and too large to convert here; save it as UTF-8")
    try:
        return text.decode(coding).encode()
    except UnicodeError as error:
        raise _NoText(f"begins with the mark of {coding} and is not that ({error.reason})") from None  # type: ignore[attr-defined]


def _sources(notebook: bytes) -> bytes:
    """What people wrote into a Jupyter notebook: pictures and printed numbers would be most of it."""
    try:
        cells = json.loads(notebook)["cells"]
        sources = [cell["source"] for cell in cells]
        texts = ["".join(source) for source in sources]  # a list of lines, or one text
        return "\n\n".join(text.strip("\n") for text in texts if text.strip()).encode("utf-8", errors="replace") + b"\n" * bool(
            texts
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _NoText("is no notebook that can be read (JSON with cells, each with a source)") from None


def _examined(text: bytes | Stretch) -> tuple[bytes, str]:
    """SHA-256 of a text, and an empty string or what is wrong with it, in one pass that holds a megabyte."""
    digest, decoder, blank = hashlib.sha256(), codecs.getincrementaldecoder("utf-8")(), True
    for start in range(0, len(text) + 1, _CHUNK):
        chunk = bytes(text[start : start + _CHUNK])
        if b"\0" in chunk:
            return b"", "is binary (it holds NUL bytes)"
        begun = len(decoder.getstate()[0])  # bytes of a character that the chunk before did not finish
        try:
            decoder.decode(chunk, final=start + _CHUNK > len(text))
        except UnicodeDecodeError as error:
            return b"", f"is not UTF-8 text (byte {start - begun + error.start})"
        digest.update(chunk)
        blank = blank and not chunk.strip()
    return digest.digest(), "is empty" if blank else ""


def _reason(error: OSError) -> str:
    return f"cannot be read ({error.strerror or error})"


def cut(name: str, text: bytes | Stretch, most: int = DOCUMENT_BYTES) -> list[tuple[str, bytes | Stretch]]:
    """A text as documents of about equal size, none above ``most`` bytes, cut where it pauses."""
    if len(text) <= most:
        return [(name, text)]
    count = math.ceil(len(text) / (most * 2 / 3))  # leaves room to look back for a blank line
    size = len(text) // count
    cuts = [0]
    for at in range(size, size * count, size):
        first = max(at - size // 3 - 8, 0)  # a character has at most four bytes: there is always a place
        cuts.append(first + boundary(bytes(text[first : at + 8]), at - first, reach=size // 3))
    return [(f"{name}#{i}", text[a:b]) for i, (a, b) in enumerate(itertools.pairwise([*cuts, len(text)]), start=1)]


def boundary(text: bytes, at: int, reach: int) -> int:
    """The best place to cut near ``at``: behind the last blank line, or else line's end, in the ``reach`` bytes before it; or
    else between two characters; 0 where there is but one."""
    for mark in (b"\n\n", b"\n\r\n", b"\n"):
        if (found := text.rfind(mark, max(0, at - reach), at)) >= 0:
            return found + len(mark)
    near = itertools.chain(range(at, 0, -1), range(at + 1, len(text)))
    return next((place for place in near if text[place] & 0xC0 != 0x80), 0)  # 0b10xxxxxx continues a UTF-8 character
