"""The built-in corpus: three domains that every CPython holds or can compute, so that training needs no download.

**prose** is the language reference that ``help()`` shows and the docstrings of the standard library, **code** the sources of
its other modules, **arithmetic** generated problems with worked answers. The first two differ a little between Pythons.
"""

import ast
import hashlib
import importlib
import os
import random
import re
import string
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from minids.errors import refuse

DOMAIN_BYTES = 1_400_000
"""Size up to which a domain is filled. CPython 3.11 to 3.13 hold 1.2 to 1.4 MB of prose, so the three are alike."""
EXPLANATION = 0.15
"""A module of which this share or more is docstrings gives prose; one with less gives code. None gives both: prose kept for
validation is then not met again inside the code that is trained on."""
SEED, KINDS = 1729, 8
"""Of the arithmetic problems: what they are drawn by, and how many kinds there are."""

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
            code.append((name, source))
    found = {"prose": _fill(_prose(explaining)), "code": _fill(code), "arithmetic": _fill(_arithmetic())}
    if not (found["prose"] and found["code"]):
        raise refuse("data", "builtin", f"the standard library has no readable sources in {folder}; name a file or folder")
    return found


def _fill(texts: Iterable[Named]) -> list[Named]:
    """Up to ``DOMAIN_BYTES`` of texts, in the order of their names' hashes: the first by name would be a narrow choice."""
    kept, room = [], DOMAIN_BYTES
    for name, text in sorted(texts, key=lambda named: hashlib.sha256(named[0].encode()).digest()):
        if len(text) <= room:
            kept.append((name, text))
            room -= len(text)
    return sorted(kept)


# Prose and code.

_OTHER_FOLDERS = frozenset(
    ("test", "tests", "idle_test", "turtledemo", "lib2to3", "encodings", "pydoc_data", "site-packages", "dist-packages")
)
_TRIPLE_QUOTED = re.compile(rb'"""(.*?)"""', re.DOTALL)
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


# Arithmetic. An answer is reached by chains of equal terms, each one small step: what a small model can learn to write.

_PEOPLE = ("Ann", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana", "Ida", "Jon", "Kim", "Lena", "Max", "Nora", "Omar", "Pia")
_THINGS = ("apple", "book", "button", "card", "coin", "cup", "marble", "pencil", "shell", "stamp", "stone", "ticket")


def _arithmetic() -> Iterator[Named]:
    """Pages of drill and pages of problems; half of all numbers have one digit, so that small sums come back often."""
    draw = random.Random(SEED).random  # the one method whose sequence Python promises to keep

    def number(low: int, high: int) -> int:
        return low + int(draw() * (high - low + 1))

    size, page = 0, 0
    while size < DOMAIN_BYTES:
        page += 1
        if page % 3 == 0:
            text = "Drill\n\n" + "".join(_drill(number(0, 3), number(0, 9), number(1, 9)) + "\n" for _ in range(150))
        else:
            problems = []
            for _ in range(20):
                kind = number(0, KINDS - 1)
                who, thing = (names[number(0, len(names) - 1)] for names in (_PEOPLE, _THINGS))
                problems.append(_problem(kind, who, thing, *(number(1, 9 if draw() < 0.5 else 99) for _ in range(2))))
            text = "Problems\n\n" + "\n\n".join(problems) + "\n"
        size += len(text)
        yield f"page {page:04}", text.encode()


def _drill(operation: int, a: int, b: int) -> str:
    return (f"{a} + {b} = {a + b}", f"{a + b} - {b} = {a}", f"{a} * {b} = {a * b}", f"{a * b} / {b} = {a}")[operation]


def _problem(kind: int, who: str, thing: str, a: int, b: int) -> str:
    """One of ``KINDS`` kinds of question about two numbers from 1 to 99, and its answer on the next line."""
    low, high, small, step = min(a, b), max(a, b), 2 + b % 8, 1 + b % 10
    match kind:
        case 0:
            return f"What is {a} + {b}?\n{_sum(a, b)}."
        case 1:
            question = f"{who} has {_count(a, thing)} and gets {b} more. How many {thing}s does {who} have now?"
            return f"{question}\n{_sum(a, b)}. {who} has {_count(a + b, thing)} now."
        case 2:
            question = f"{who} had {_count(high, thing)} and gave away {low}. How many {thing}s does {who} have now?"
            return f"{question}\n{_difference(high, low)}. {who} has {_count(high - low, thing)} now."
        case 3:
            other = _PEOPLE[_PEOPLE.index(who) - 1]
            question = f"{who} has {_count(a, thing)} and {other} has {b}. Who has more?"
            if a == b:
                return f"{question}\n{a} = {b}. They have the same."
            return f"{question}\n{_difference(high, low)}. {who if a > b else other} has {high - low} more."
        case 4:
            question = f"One {thing} costs {a} cents. {who} buys {small} {thing}s. How much is that?"
            return f"{question}\n{_product(a, small)}. That is {_count(a * small, 'cent')}."
        case 5:
            question = f"{who} shares {a * small} {thing}s among {small} friends. How many does each friend get?"
            return f"{question}\n{a * small} / {small} = {a}. Each friend gets {_count(a, thing)}."
        case 6:
            full, over = divmod(a, small)
            question = f"How many boxes are full, and how many {thing}s are over?"
            answer = f"{full} * {small} = {full * small}. {a} - {full * small} = {over}. Full: {full}. Over: {over}."
            return f"{who} packs {_count(a, thing)} in boxes of {small}. {question}\n{answer}"
        case _:
            row = ", ".join(str(a + i * step) for i in range(4))
            return f"{who} counts {row}. What comes next?\nThe step is {step}. {a + 3 * step} + {step} = {a + 4 * step}."


def _sum(a: int, b: int) -> str:
    """47 + 25 = 60 + 12 = 72: tens and ones apart."""
    steps = f"{a - a % 10 + b - b % 10} + {a % 10 + b % 10} = " if a > 9 and b > 9 else ""
    return f"{a} + {b} = {steps}{a + b}"


def _difference(a: int, b: int) -> str:
    """52 - 27 = 32 - 7 = 25: the tens first."""
    steps = f"{a - b + b % 10} - {b % 10} = " if b > 9 and b % 10 else ""
    return f"{a} - {b} = {steps}{a - b}"


def _product(a: int, b: int) -> str:
    """14 * 6 = 60 + 24 = 84: tens and ones of the first factor apart."""
    steps = f"{(a - a % 10) * b} + {a % 10 * b} = " if a > 9 and a % 10 else ""
    return f"{a} * {b} = {steps}{a * b}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
