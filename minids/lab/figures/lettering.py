"""How much room words take, in units of a slide 16 wide, and how to make them fit."""

import re
from collections.abc import Sequence
from functools import lru_cache

from minids.lab.figures.glyphs import families
from minids.lab.figures.style import WIDTH


@lru_cache(maxsize=4096)
def width_of(words: str, size: float, bold: bool = False) -> float:
    """How wide words are on a slide, in its units."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=families(), weight="bold" if bold else "normal", size=size)
    return text_to_path.get_text_width_height_descent(words, font, ismath=False)[0] / 72 / WIDTH * 16


def fitted(words: str, size: float, room: float, bold: bool = False) -> str:
    """Words, cut with an ellipsis where they are wider than ``room`` units."""
    if width_of(words, size, bold) <= room:
        return words
    while words and width_of(words + "…", size, bold) > room:
        words = words[:-1]
    return words.rstrip() + "…"


def wrapped(words: str, size: float, room: float, bold: bool = False) -> list[str]:
    """Words in lines that fit into ``room`` units, of about equal length."""
    if width_of(words, size, bold) <= room:
        return [words]
    count = int(width_of(words, size, bold) / room) + 1
    for narrower in (0.55, 0.65, 0.75, 0.85, 0.95, 1.0):  # even lines look better than a full one and a rest
        if len(lines := _filled(words, size, room * narrower, bold)) <= count:
            break
    return lines


def _filled(words: str, size: float, room: float, bold: bool) -> list[str]:
    lines = [""]
    for word in re.sub(" (?=[%=])|(?<==) ", "\N{NO-BREAK SPACE}", words).split(" "):  # 40 % and F = 1 stay together
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and width_of(longer, size, bold) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def apart(values: Sequence[float], least: float) -> list[float]:
    """Falling values moved as little as needed to stand at least ``least`` from one another: places for labels."""
    places = list(values)
    for _ in range(200):
        moved = False
        for i in range(len(places) - 1):
            short = least - (places[i] - places[i + 1])
            if short > 1e-9:
                places[i], places[i + 1] = places[i] + short / 2, places[i + 1] - short / 2
                moved = True
        if not moved:
            break
    return places
