"""Letters beyond Latin in pictures: a font of the system's that has them, else an escape; never a box.

DejaVu, which comes with matplotlib, has Latin, Greek, Cyrillic and Arabic. For the rest matplotlib goes through a list of fonts
glyph by glyph, so that a picture without such letters is the same on every machine.
"""

from functools import cache
from itertools import accumulate

from minids.lab.figures import mpl
from minids.terminal import cells

BEYOND = (  # with outlines: matplotlib draws no bitmaps, which colour emoji are
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Source Han Sans", "Hiragino Sans", "PingFang SC", "Yu Gothic", "MS Gothic",
    "Microsoft YaHei", "Malgun Gothic", "Apple SD Gothic Neo", "WenQuanYi Zen Hei", "Droid Sans Fallback", "Unifont",
    "Noto Emoji", "Symbola", "Segoe UI Symbol", "Apple Symbols",
)  # fmt: skip


@cache
def families(first: str = "DejaVu Sans") -> list[str]:
    """``first``, and those of ``BEYOND`` that this system has."""
    there = {font.name for font in mpl.font_manager.fontManager.ttflist}
    return [first, *(name for name in BEYOND if name in there)]


@cache
def _drawn(first: str) -> frozenset[int]:
    """Every character that one of the fonts has."""
    fonts = mpl.font_manager
    found = (fonts.get_font(fonts.findfont(fonts.FontProperties(family=name))) for name in families(first))
    return frozenset().union(*(font.get_charmap() for font in found))


def drawable(text: str, first: str = "DejaVu Sans") -> str:
    """``text`` with the code point of every character that no font has, U+65E5 say, in its place."""
    if text.isascii():
        return text
    return "".join(c if c in "\n\t" or not cells(c) or ord(c) in _drawn(first) else f"<U+{ord(c):04X}>" for c in text)


def letters(text: str) -> list[tuple[int, int, str]]:
    """(first column, columns, letter with what belongs to it) for every letter, in columns of a font with fixed width."""
    joined: list[str] = []
    for c in text:
        if joined and not cells(c):
            joined[-1] += c
        else:
            joined.append(c)
    widths = [max(cells(letter), 1) for letter in joined]
    return list(zip(accumulate(widths, initial=0), widths, joined))  # noqa: B905  the last place begins nothing
