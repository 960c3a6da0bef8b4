"""The text a model is trained on: documents, each of a domain, and their division into training and validation.

``builtin`` needs nothing but Python, ``shakespeare`` is fetched once, and anything else is a path, each file or folder one
domain. Domains are kept apart: losses are reported for each, and experts specialise on them (DeepSeek-V3 report, Figure 9).
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from minids.errors import refuse
from minids.terminal import name_of
from minids.training import builtin, download, text_files
from minids.training.text_files import Stretch, boundary


@dataclass(frozen=True)
class Document:
    """One text, UTF-8."""

    domain: str
    name: str
    content: bytes | Stretch
    part: Literal["train", "validation"] | None = None  # where ``Corpus.split`` puts it; None leaves that to the split

    @property
    def text(self) -> bytes:  # read from the disk where it is not held
        return bytes(self.content)

    @property
    def size(self) -> int:  # bytes
        return len(self.content)

    @cached_property
    def digest(self) -> bytes:
        return hashlib.sha256(self.text).digest()


@dataclass(frozen=True)
class Corpus:
    """Documents in a fixed order, those of a domain side by side."""

    name: str
    documents: tuple[Document, ...]
    skipped: tuple[tuple[str, str], ...] = ()  # files that were passed over, and why

    @cached_property
    def domains(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(document.domain for document in self.documents))

    def of(self, domain: str) -> tuple[Document, ...]:
        return tuple(document for document in self.documents if document.domain == domain)

    def passed_over(self) -> str:
        shown = "; ".join([f"{name} {why}" for name, why in self.skipped[:3]] + ["…"] * (len(self.skipped) > 3))
        more = "; minids data show FOLDER lists all" if len(self.skipped) > 3 else ""
        return f"Passed over {len(self.skipped)} file{'s' * (len(self.skipped) > 1)}: {shown}{more}"

    @cached_property
    def sha256(self) -> str:
        """Hash over every document in order; a resumed run compares it, so that it never goes on with other text."""
        digest = hashlib.sha256()
        for document in self.documents:
            for field in (document.domain.encode(), document.name.encode(), document.text):
                digest.update(b"%d:" % len(field) + field)  # the length keeps "ab", "c" apart from "a", "bc"
        return digest.hexdigest()

    @cached_property
    def texts_sha256(self) -> str:
        """The same without names: what it is when files and folders are called otherwise and nothing else has changed."""
        digest = hashlib.sha256()
        for document in self.documents:
            digest.update(b"%d %d:" % (self.domains.index(document.domain), document.size) + document.text)
        return digest.hexdigest()

    def renamed(self, domains: Sequence[str]) -> Corpus:
        """The same corpus with other names for its domains, in their order."""
        names = dict(zip(self.domains, domains, strict=True))
        return replace(self, documents=tuple(replace(d, domain=names[d.domain]) for d in self.documents))

    def split(self, share: float) -> tuple[Corpus, Corpus]:
        """Training and validation text: ``share`` of each domain's bytes, in whole documents chosen by the hash of their text.

        Where those do not come to half the share (a domain may be one document), the rest is the end of one document, cut off
        where the text pauses. So both sides have text of every domain unless share = 0. ``part`` goes before all this.
        """
        if not 0 <= share < 1:
            raise refuse("validation_share", share, "must be at least 0 and below 1")
        train: list[Document] = []
        validation: list[Document] = []
        for domain in self.domains:
            rest, held_out = _split([document for document in self.of(domain) if document.part is None], share)
            train += [document for document in self.of(domain) if document.part == "train"] + rest
            validation += [document for document in self.of(domain) if document.part == "validation"] + held_out
        return Corpus(self.name, tuple(train)), Corpus(self.name, tuple(validation))


def _split(documents: list[Document], share: float) -> tuple[list[Document], list[Document]]:
    """One domain's documents, divided."""
    wanted = share * sum(document.size for document in documents)
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
        at = boundary(text, len(text) - math.ceil(wanted - size), reach=len(text) // 8)
        if not at:
            raise refuse("data", whole.name, "one character cannot be divided into training and validation text")
        train[train.index(whole)] = Document(whole.domain, whole.name, text[:at])
        validation.append(Document(whole.domain, whole.name, text[at:]))
    return train, validation


def load_corpus(spec: str | Sequence[str]) -> Corpus:
    """The corpus that ``--data`` names: ``builtin``, ``shakespeare``, or paths, each file or folder one domain.

    A domain is called after its file (without suffix) or folder. Hidden files are left out; what is not UTF-8 text, is empty,
    or was read before is passed over and listed in ``Corpus.skipped``, but refused where it was named by itself.
    """
    spec = [spec] if isinstance(spec, str) else [os.fspath(entry) for entry in spec]
    if not spec:
        raise refuse("data", spec, f"name {', '.join(SOURCES)}, or files and folders of text")
    documents: list[Document] = []
    skipped: list[tuple[str, str]] = []
    seen: dict[bytes, str] = {}  # hash of a text → where it was read; a copy could sit on the other side of the split
    for entry in spec:
        if entry in SOURCES and spec.count(entry) > 1:
            raise refuse("data", entry, "is named twice")
        found = SOURCES[entry]() if entry in SOURCES else _read_path(Path(entry), seen, skipped)
        taken = {document.domain for document in documents}
        for document in found:
            numbered = (f"{document.domain}-{number}" for number in itertools.count(2))
            new = next(name for name in itertools.chain([document.domain], numbered) if name not in taken)
            documents.append(replace(document, domain=new))
    return Corpus(" ".join(spec), tuple(documents), tuple(skipped))


def _read_path(path: Path, seen: dict[bytes, str], skipped: list[tuple[str, str]]) -> list[Document]:
    if not path.exists():
        close = difflib.get_close_matches(str(path), SOURCES, n=1)
        works = f"did you mean {close[0]}?" if close else f"name {', '.join(SOURCES)}, or files and folders of text"
        raise refuse("data", str(path), f"there is no such file or folder; {works}")
    alone = not path.is_dir()
    domain = name_of(path.stem if alone else Path(os.path.abspath(path)).name or "files")
    documents: list[Document] = []
    passed: list[tuple[str, str]] = []
    for file in [path] if alone else text_files.walk(path, passed):
        name = name_of(file.name if alone else file.relative_to(path).as_posix())
        text, digest, problem = text_files.read(file)
        if not problem and digest in seen:
            problem = f"is the same text as {seen[digest]}"
        if not problem:
            seen[digest] = name_of(file)
            documents += [Document(domain, *piece) for piece in text_files.cut(name, text)]
        elif alone:
            raise refuse("data", str(path), f"{problem}; name a file of UTF-8 text, each text once")
        else:
            passed.append((name, problem))
    if not documents:
        example = f": {len(passed)} passed over, such as {passed[0][0]}, which {passed[0][1]}" if passed else ""
        raise refuse("data", str(path), f"no text was found in this folder{example}")
    skipped += passed
    return documents


def _builtin() -> list[Document]:
    found = [(domain, *named) for domain, texts in builtin.domains().items() for named in texts]
    return [
        Document(domain, *piece) for domain, name, text in found for piece in text_files.cut(name, text, builtin.DOCUMENT_BYTES)
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
