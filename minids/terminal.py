"""The one door to the terminal: whatever is printed goes through ``say``, and what it quotes cannot upset what shows it.

Texts, file names and what a model writes hold anything: escape sequences that recolour, rename or clear a terminal, overrides
that turn the rest of a line round, and bytes that are no text (half a surrogate pair: so Python reads a file's name that is not
UTF-8). ``clean`` puts a mark in their place. Joiners, no-break and wide spaces and tabs are none of these and stay.
"""

import os
import re
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import TextIO

CONTROL, UNKNOWN = "·", "\ufffd"  # what stands for a control character, and for a byte that is no text
_DIRECTIONS = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))  # embeddings, overrides, isolates
_COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")


def clean(text: str, keep: str = "\n\t") -> str:
    """``text`` with a mark in the place of every control character but those of ``keep``, and of what is no character. The
    returns of "\\r\\n", and those alone, which take a terminal back over the line, are left out where line ends are kept."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep else _mark(c, keep) for c in text)


def _mark(c: str, keep: str) -> str:
    kind = unicodedata.category(c)
    if kind == "Cs":
        return UNKNOWN
    if c == "\r" and "\n" in keep:
        return ""
    return CONTROL if kind == "Cc" or c in _DIRECTIONS else c


def name_of(path: object) -> str:
    """What a file or folder is called, as Unicode on one line: to be shown, hashed or written. Not to open it by."""
    return clean(str(path), keep="")


def quoted(text: str) -> str:
    """Like ``repr`` of a text, but an escape is written only for control characters."""
    quote = '"' if "'" in text and '"' not in text else "'"

    def shown(c: str) -> str:
        if c in (quote, "\\"):
            return "\\" + c
        mark = clean(c, keep="")
        return repr(c)[1:-1] if mark == CONTROL != c else mark

    return quote + "".join(map(shown, text)) + quote


_unsaid: list[list[str]] = []  # one for each ``quietly`` that is open


@contextmanager
def quietly(on: bool = True) -> Iterator[list[str]]:
    """With ``on`` nothing that ``say`` is given in the block is printed: another process says it. → the list of what was to go
    to standard error, in case it was this one's alone."""
    kept: list[str] = []
    if on:
        _unsaid.append(kept)
    try:
        yield kept
    finally:
        _unsaid[:] = [each for each in _unsaid if each is not kept]


def say(text: object = "", end: str = "\n", painted: bool = False, file: TextIO | None = None) -> None:
    """Print. ``painted``: sequences that set colours pass, as the caller has put them there around texts already cleaned."""
    if _unsaid:
        if file is not None and file is sys.stderr:
            _unsaid[-1].append(str(text))
        return
    pieces = _COLOUR.split(str(text)) if painted else [str(text)]  # every second one is a colour
    shown = "".join(piece if i % 2 else clean(piece) for i, piece in enumerate(pieces))
    print(shown, end=end, flush=not end.endswith("\n"), file=file)


def columns() -> int | None:
    """Those of the terminal that is printed to; None for a file, a pipe and a notebook, where nothing is cut."""
    return shutil.get_terminal_size((80, 24)).columns if sys.stdout is not None and sys.stdout.isatty() else None


def room(most: int) -> int:
    """Columns that a layout may take which is at its best with ``most``: fewer on a narrower terminal."""
    return min(most, columns() or most)


def wrapped(text: str) -> str:
    """Sentences for the terminal: its lines are broken between words where it is too narrow for them."""
    wide = columns()
    return text if wide is None else "\n".join(textwrap.fill(line, wide, break_long_words=False) for line in text.split("\n"))


def coloured() -> bool:
    """Whether what is printed may have colours."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and "NO_COLOR" not in os.environ


def fit(text: str, width: int | None = None) -> str:
    """A table for the terminal: lines that are longer than it is wide (or ``width``) end in "…"."""
    wide = columns() if width is None else width
    return text if wide is None else "\n".join(cut(line, wide) for line in text.split("\n"))


def cells(text: str) -> int:
    """Columns that a text takes on a terminal: two for each wide character (CJK, emoji), none for accents and joiners."""
    return len(text) if text.isascii() else sum(map(_cell, text))


def _cell(c: str) -> int:
    if unicodedata.category(c) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(c) in "WF" else 1


def cut(text: str, width: int) -> str:
    """``text`` in at most ``width`` columns, "…" in the place of what is left out."""
    if cells(text) <= width:
        return text
    fits = sum(1 for taken in accumulate(map(_cell, text)) if taken < width)
    return text[:fits] + "…" * (width > 0)


def padded(text: str, width: int, right: bool = False) -> str:
    """``text`` filled up with spaces to ``width`` columns."""
    space = " " * (width - cells(text))
    return space + text if right else text + space
