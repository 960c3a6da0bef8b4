"""Text files too large to hold in memory: checked and cut into documents by reading through them once.

A ``FileDocument`` knows where its text lies and reads it when it is asked for; everything else treats it like one that is
in memory. What is held at any time is a megabyte of the file.
"""

from __future__ import annotations

import codecs
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

LARGE = 64 << 20
"""Bytes of a file from which on it is read piece by piece."""

_CHUNK = 1 << 20


@dataclass(frozen=True)
class FileDocument:
    """A stretch of a UTF-8 file."""

    domain: str
    name: str
    path: str
    begin: int
    end: int
    part: Literal["train", "validation"] | None = None

    @property
    def text(self) -> bytes:
        return read_stretch(self.path, self.begin, self.end)

    @property
    def size(self) -> int:
        return self.end - self.begin

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the text."""
        return hashlib.sha256(self.text).digest()


def read_stretch(path: str | Path, begin: int, end: int) -> bytes:
    """Bytes ``begin`` to ``end`` of a file."""
    with open(path, "rb") as file:
        file.seek(begin)
        return file.read(end - begin)


def inspect(path: Path) -> tuple[bytes, str]:
    """SHA-256 of a file and an empty string, or what is wrong with it as text: the tests of a small file, in one pass."""
    digest, decoder, blank, position = hashlib.sha256(), codecs.getincrementaldecoder("utf-8")(), True, 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            if b"\0" in chunk:
                return b"", "is binary (it holds NUL bytes)"
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                return b"", f"is not UTF-8 text (near byte {position + error.start})"
            digest.update(chunk)
            blank = blank and not chunk.strip()
            position += len(chunk)
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return b"", f"is not UTF-8 text (it ends inside a character, at byte {position})"
    return digest.digest(), "is empty" if blank else ""


def cut(
    path: Path, domain: str, name: str, document_bytes: int, boundary: Callable[[bytes, int, int], int]
) -> list[FileDocument]:
    """A file as documents of about equal size, none above ``document_bytes``, cut where the text pauses."""
    length = path.stat().st_size
    count = math.ceil(length / (document_bytes * 2 / 3))
    size = length // count
    reach = size // 3
    cuts = [0]
    for i in range(1, count):
        at = i * size
        first = max(at - reach - 8, 0)
        window = read_stretch(path, first, at + 8)  # a character has at most four bytes: there is always a place
        cuts.append(first + boundary(window, at - first, reach))
    cuts.append(length)
    return [FileDocument(domain, f"{name}#{i + 1}", str(path), cuts[i], cuts[i + 1]) for i in range(count)]
