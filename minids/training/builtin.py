"""The built-in corpus: three domains that every CPython holds or can compute, so that training needs no download.

**prose** is the language reference that ``help()`` shows and the docstrings of the standard library, **code** the sources of
its other modules, **arithmetic** generated problems with worked answers (``arithmetic.py``). The first two differ a little
between Pythons.
"""

import ast
import hashlib
import importlib
import os
import re
import string
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from minids.errors import refuse
from minids.training import arithmetic

DOMAIN_BYTES = {"prose": 1_400_000, "code": 1_150_000, "arithmetic": 800_000}
"""Size up to which each domain is filled. CPython 3.11 to 3.13 hold 1.2 to 1.4 MB of prose, the slowest to learn."""
DOCUMENT_BYTES = 8_000
"""A longer module is cut into documents of at most this size: so the held-out tenth comes from many places."""
EXPLANATION = 0.15
"""A module of which this share or more is docstrings gives prose; one with less gives code. None gives both: prose kept for
validation is then not met again inside the code that is trained on."""
REPEATED = 0.3
"""A module that shares this part of its lines, or more, with modules before it is a near-duplicate and left out."""

Named = tuple[str, bytes]  # name and content


def domains() -> dict[str, list[Named]]:
    """The texts of each domain, sorted by name. Packed applications and minimal containers come without readable sources."""
    folder = Path(sysconfig.get_path("stdlib"))
    explaining: list[Named] = []
    code: list[Named] = []
    for name, source in _standard_library(folder):
        if sum(map(len, _TRIPLE_QUOTED.findall(source))) >= EXPLANATION * len(source):
            explaining.append((name, source))
        elif len(source) >= 500 and source.isascii() and _portion(source, _LETTERS_AND_SPACE) >= 0.65:  # no table of numbers
            code.append((name, _LICENCE.sub(b"", source)))
    texts = {"prose": _distinct(_prose(explaining)), "code": _distinct(code)}
    texts["arithmetic"] = arithmetic.pages(DOMAIN_BYTES["arithmetic"])
    found = {domain: _fill(some, DOMAIN_BYTES[domain]) for domain, some in texts.items()}
    if not (found["prose"] and found["code"]):
        raise refuse("data", "builtin", f"the standard library has no readable sources in {folder}; name a file or folder")
    return found


def _fill(texts: Iterable[Named], room: int) -> list[Named]:
    """Up to ``room`` bytes of texts, in the order of their names' hashes: the first by name would be a narrow choice."""
    kept = []
    for name, text in sorted(texts, key=lambda named: hashlib.sha256(named[0].encode()).digest()):
        if len(text) <= room:
            kept.append((name, text))
            room -= len(text)
    return sorted(kept)


def _distinct(texts: Iterable[Named]) -> Iterator[Named]:
    """Texts by name, without near-duplicates of those before. Lines of less than 20 bytes say little, and are not counted."""
    seen: set[bytes] = set()
    for name, text in sorted(texts):
        lines = [line for line in map(bytes.strip, text.split(b"\n")) if len(line) >= 20]
        if sum(line in seen for line in lines) < REPEATED * max(len(lines), 1):
            yield name, text
            seen.update(lines)


# Prose and code.

_OTHER_FOLDERS = frozenset(
    ("test", "tests", "idle_test", "turtledemo", "lib2to3", "encodings", "pydoc_data", "site-packages", "dist-packages")
)
_TRIPLE_QUOTED = re.compile(rb'"""(.*?)"""', re.DOTALL)
_LICENCE = re.compile(rb"\A(?=(?:#[^\n]*\n)*#[^\n]*(?:[Cc]opyright|[Ll]icen[sc]e))(?:#[^\n]*\n)+\s*")  # comments at the top
_SMALL_LETTERS_AND_SPACE = (string.ascii_lowercase + string.whitespace).encode()
_LETTERS_AND_SPACE = (string.ascii_letters + string.whitespace + "_").encode()


def _standard_library(folder: Path) -> Iterator[Named]:
    """Its modules without tests and tables, by path from ``folder``."""
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in _OTHER_FOLDERS]
        for file in (Path(here, name) for name in files if name.endswith(".py")):
            # _sysconfigdata holds the paths of the machine that Python was built on, locale little but a table.
            if not file.name.startswith(("_sysconfigdata", "locale")):
                with suppress(OSError):
                    yield file.relative_to(folder).as_posix(), file.read_bytes()


def _portion(text: bytes, characters: bytes) -> float:
    """How much of a text is made of these characters."""
    return 1 - len(text.translate(None, delete=characters)) / len(text)


def _prose(modules: Iterable[Named]) -> Iterator[Named]:
    """The language reference topic by topic and the docstrings module by module; paragraphs of English, each once."""
    passages: list[tuple[str, list[str]]] = []
    with suppress(ImportError):  # some distributions leave the topics out
        topics = importlib.import_module("pydoc_data.topics").topics
        passages += [(f"help/{topic}", [text]) for topic, text in sorted(topics.items())]
    for name, source in sorted(modules):
        with suppress(SyntaxError, ValueError):  # a template, or a broken encoding
            passages.append((f"modules/{name}", list(_docstrings(ast.parse(source)))))
    seen: set[str] = set()
    for name, texts in passages:
        blocks = (block.strip().split("\n") for text in texts for block in re.split(r"\n\s*\n", text))
        paragraphs = dict.fromkeys("\n".join(map(str.strip, block)) for block in blocks)  # in order, each once
        new = [paragraph for paragraph in paragraphs if paragraph not in seen and _is_english(paragraph)]
        seen.update(new)
        document = "\n\n".join(new) + "\n"
        if len(document) >= 200:
            yield name, document.encode()


def _docstrings(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """The docstrings of a module or class and of what it defines, in order."""
    if docstring := ast.get_docstring(node):  # as inspect.cleandoc leaves it
        yield docstring
    for child in node.body:
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _docstrings(child)


def _is_english(paragraph: str) -> bool:
    """Whether a paragraph is a sentence or more, and not a heading, a list of names, grammar or an interpreter session."""
    if len(paragraph) < 40 or paragraph.count(" ") < 6 or ">>>" in paragraph or "::=" in paragraph:
        return False
    return _portion(paragraph.encode(), _SMALL_LETTERS_AND_SPACE) >= 0.8
