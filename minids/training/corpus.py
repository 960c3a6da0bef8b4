"""The text a model is trained on: documents, each of a domain, and their division into training and validation.

Three sources: ``builtin`` needs nothing but Python, ``shakespeare`` is fetched once, and anything else is a path, each file
or folder one domain. Domains are kept apart to the end: validation losses are reported per domain, and the experts of a
mixture can be seen to specialise on them (DeepSeek-V3 report, Figure 9).
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from minids.errors import refuse
from minids.training import builtin, download, large_text
from minids.training.large_text import FileDocument

DOCUMENT_BYTES = 1 << 16
"""A longer text is cut into documents of at most this size, so that validation can take some of it."""


@dataclass(frozen=True)
class Document:
    """One text, UTF-8."""

    domain: str
    name: str
    text: bytes
    part: Literal["train", "validation"] | None = None
    """Where ``Corpus.split`` puts it; None leaves that to the split."""

    @property
    def size(self) -> int:
        """Bytes of text."""
        return len(self.text)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the text."""
        return hashlib.sha256(self.text).digest()


AnyDocument = Document | FileDocument
"""In memory, or on the disk where its file is too large."""


@dataclass(frozen=True)
class Corpus:
    """Documents in a fixed order, those of a domain side by side."""

    name: str
    documents: tuple[AnyDocument, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    """Files that were passed over, and why."""

    @cached_property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains, in order."""
        return tuple(dict.fromkeys(document.domain for document in self.documents))

    def of(self, domain: str) -> tuple[AnyDocument, ...]:
        """The documents of one domain."""
        return tuple(document for document in self.documents if document.domain == domain)

    def passed_over(self) -> str:
        """A line about the files that were passed over."""
        shown = "; ".join(f"{name} {why}" for name, why in self.skipped[:3])
        files = "1 file" if len(self.skipped) == 1 else f"{len(self.skipped)} files"
        return f"Passed over {files}: {shown}{'; …' if len(self.skipped) > 3 else ''}"

    @cached_property
    def sha256(self) -> str:
        """Hash over every document in order; a resumed run compares it, so that it never goes on with other text."""
        digest = hashlib.sha256()
        for document in self.documents:
            for field in (document.domain.encode(), document.name.encode(), document.text):
                digest.update(b"%d:" % len(field) + field)  # the length keeps "ab", "c" apart from "a", "bc"
        return digest.hexdigest()

    def split(self, share: float) -> tuple[Corpus, Corpus]:
        """Training and validation text: ``share`` of each domain's bytes, in whole documents, goes to validation.

        Documents are chosen by the hash of their text, so the choice depends on nothing else. Where whole documents do not
        come to half the share (a domain of one document is the plainest case), the rest is the end of one document, cut off
        at a blank line, a line's end or at least between two characters. So every domain has text on both sides, whatever
        share > 0; share = 0 keeps nothing for validation. A document's ``part`` goes before all this.
        """
        if not 0 <= share < 1:
            raise refuse("validation_share", share, "must be at least 0 and below 1")
        sides: tuple[list[AnyDocument], list[AnyDocument]] = [], []
        for domain in self.domains:
            free = []
            for document in self.of(domain):
                if document.part is None:
                    free.append(document)
                else:
                    sides[document.part == "validation"].append(document)
            for side, documents in zip(sides, _split(free, share), strict=True):
                side.extend(documents)
        return Corpus(self.name, tuple(sides[0])), Corpus(self.name, tuple(sides[1]))


def _split(documents: list[AnyDocument], share: float) -> tuple[list[AnyDocument], list[AnyDocument]]:
    """One domain's documents, divided."""
    wanted = share * sum(document.size for document in documents)
    if not wanted:
        return documents, []
    by_hash = sorted(documents, key=lambda document: document.digest)
    chosen: set[int] = set()
    size = 0
    for document in by_hash:
        if size + document.size <= wanted:
            chosen.add(id(document))
            size += document.size
    train = [document for document in documents if id(document) not in chosen]
    validation = [document for document in documents if id(document) in chosen]
    if size < wanted / 2:
        whole = next(document for document in by_hash if id(document) not in chosen)
        text = whole.text
        at = _boundary(text, len(text) - math.ceil(wanted - size), reach=len(text) // 8)
        if not at:
            raise refuse("data", whole.name, "one character cannot be divided into training and validation text")
        head, tail = (Document(whole.domain, whole.name, piece) for piece in (text[:at], text[at:]))
        train[train.index(whole)] = head
        validation.append(tail)
    return train, validation


def load_corpus(spec: str | Sequence[str]) -> Corpus:
    """The corpus that ``--data`` names: ``builtin``, ``shakespeare``, or paths, each file or folder one domain.

    A domain is called after its file (without suffix) or folder. Folders are read with everything in them but hidden files;
    what is not UTF-8 text, is empty, or was read before is passed over and listed in ``Corpus.skipped``. One file is one
    document, unless it is longer than ``DOCUMENT_BYTES``: then it is cut at blank lines. Raises ``MinidsError`` for a path
    that is missing or holds no text, and for a file named by itself that is not text.
    """
    spec = [spec] if isinstance(spec, str) else [os.fspath(entry) for entry in spec]
    if not spec:
        raise refuse("data", spec, f"name {', '.join(SOURCES)}, or files and folders of text")
    documents: list[AnyDocument] = []
    skipped: list[tuple[str, str]] = []
    seen: dict[bytes, str] = {}  # hash of a text → where it was read; a copy could sit on the other side of the split
    for entry in spec:
        if entry not in SOURCES:
            found = _read_path(Path(entry), seen, skipped)
        elif spec.count(entry) == 1:
            found = SOURCES[entry]()
        else:
            raise refuse("data", entry, "is named twice")
        taken = {document.domain for document in documents}
        renamed = {domain: _unique(domain, taken) for domain in dict.fromkeys(document.domain for document in found)}
        documents += [replace(document, domain=renamed[document.domain]) for document in found]
    return Corpus(" ".join(spec), tuple(documents), tuple(skipped))


def describe(corpus: Corpus) -> str:
    """A table of the domains: documents, bytes, and how the first document begins."""
    width = max(len("domain"), *map(len, corpus.domains))
    lines = [f"{'domain':{width}}  documents       bytes  begins with"]
    for domain in corpus.domains:
        documents = corpus.of(domain)
        size = sum(document.size for document in documents)
        start = " ".join(documents[0].text[:400].decode("utf-8", "ignore").split())[:60]
        lines.append(f"{domain:{width}}  {len(documents):9,}  {size:10,}  {start}")
    if corpus.skipped:
        lines.append(corpus.passed_over())
    return "\n".join(lines)


# Files and folders.


def _read_path(path: Path, seen: dict[bytes, str], skipped: list[tuple[str, str]]) -> list[AnyDocument]:
    """The documents of one path: a domain."""
    if not path.exists():
        close = difflib.get_close_matches(str(path), SOURCES, n=1)
        works = f"did you mean {close[0]}?" if close else f"name {', '.join(SOURCES)}, or files and folders of text"
        raise refuse("data", str(path), f"there is no such file or folder; {works}")
    alone = not path.is_dir()
    domain = path.stem if alone else Path(os.path.abspath(path)).name or "files"
    documents: list[AnyDocument] = []
    passed: list[tuple[str, str]] = []
    for file in [path] if alone else _walk(path, passed):
        name = file.name if alone else file.relative_to(path).as_posix()
        text, digest, problem = _read_text(file)
        if not problem and digest in seen:
            problem = f"is the same text as {seen[digest]}"
        if not problem:
            seen[digest] = str(file)
            if text is None:
                documents += large_text.cut(file, domain, name, DOCUMENT_BYTES, _boundary)
            else:
                documents += [Document(domain, *piece) for piece in _cut(name, text)]
        elif alone:
            raise refuse("data", str(path), f"{problem}; name a file of UTF-8 text, each text once")
        else:
            passed.append((name, problem))
    if not documents:
        example = f": {len(passed)} passed over, such as {passed[0][0]}, which {passed[0][1]}" if passed else ""
        raise refuse("data", str(path), f"no text was found in this folder{example}")
    skipped += passed
    return documents


def _walk(folder: Path, passed: list[tuple[str, str]]) -> Iterator[Path]:
    """Every file under a folder but hidden ones, in sorted order; links are followed, each folder entered once."""
    entered = set()
    for here, folders, files in os.walk(folder, followlinks=True, onerror=lambda e: passed.append((e.filename, _reason(e)))):
        if (real := os.path.realpath(here)) in entered:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(here, name) for name in sorted(files) if not name.startswith("."))


def _read_text(file: Path) -> tuple[bytes | None, bytes, str]:
    """A file's bytes (None for one too large to hold), their SHA-256, and an empty string or what is wrong with it as text."""
    if file.exists() and not file.is_file():  # opening a pipe would wait for its other end
        return b"", b"", "is neither a file nor a folder"
    try:
        if file.stat().st_size >= large_text.LARGE:
            return None, *large_text.inspect(file)
        text = file.read_bytes()
    except OSError as error:
        return b"", b"", _reason(error)
    if not text.strip():
        return b"", b"", "is empty"
    if b"\0" in text:
        return b"", b"", "is binary (it holds NUL bytes)"
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        return b"", b"", f"is not UTF-8 text (byte {error.start})"
    return text, hashlib.sha256(text).digest(), ""


def _reason(error: OSError) -> str:
    return f"cannot be read ({error.strerror or error})"


def _cut(name: str, text: bytes) -> list[tuple[str, bytes]]:
    """A text as documents of about equal size, none above ``DOCUMENT_BYTES``, cut where the text pauses."""
    if len(text) <= DOCUMENT_BYTES:
        return [(name, text)]
    count = math.ceil(len(text) / (DOCUMENT_BYTES * 2 / 3))  # leaves room to look back for a blank line
    size = len(text) // count
    cuts = [0, *(_boundary(text, i * size, reach=size // 3) for i in range(1, count)), len(text)]
    return [(f"{name}#{i + 1}", text[cuts[i] : cuts[i + 1]]) for i in range(count)]


def _boundary(text: bytes, at: int, reach: int) -> int:
    """The best place to cut near ``at``: behind the last blank line, or else the last line's end, in the ``reach`` bytes
    before it; or else between two characters; 0 where there is but one character."""
    for mark in (b"\n\n", b"\n\r\n", b"\n"):
        found = text.rfind(mark, max(0, at - reach), at)
        if found >= 0:
            return found + len(mark)
    near = itertools.chain(range(at, 0, -1), range(at + 1, len(text)))
    return next((place for place in near if text[place] & 0xC0 != 0x80), 0)  # 0b10xxxxxx continues a UTF-8 character


def _unique(name: str, taken: set[str]) -> str:
    """``name``, or with the first number from 2 on that makes it new."""
    number = 2
    candidate = name
    while candidate in taken:
        candidate = f"{name}-{number}"
        number += 1
    return candidate


def _builtin() -> list[Document]:
    return [
        Document(domain, *piece)
        for domain, texts in builtin.domains().items()
        for name, text in texts
        for piece in _cut(name, text)
    ]


def _shakespeare() -> list[Document]:
    """Tiny Shakespeare with the division everyone uses: the first 90 % of the characters, and the rest."""
    text = download.fetch("shakespeare").read_bytes()  # ASCII, so bytes are characters
    at = len(text) * 9 // 10
    return [
        Document("shakespeare", "the first 90 %", text[:at], "train"),
        Document("shakespeare", "the last 10 %", text[at:], "validation"),
    ]


SOURCES: dict[str, Callable[[], list[Document]]] = {"builtin": _builtin, "shakespeare": _shakespeare}
"""What ``load_corpus`` knows by name."""
