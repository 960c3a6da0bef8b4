"""How much room words take, in units of a slide 16 wide, and how to make them fit."""

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from minids.lab.figures import mpl
from minids.lab.figures.glyphs import families
from minids.lab.figures.style import WIDTH


@lru_cache(maxsize=4096)
def width_of(words: str, size: float, bold: bool = False) -> float:
    """How wide words are on a slide, in its units."""
    font = mpl.font_manager.FontProperties(family=families(), weight="bold" if bold else "normal", size=size)
    return mpl.textpath.text_to_path.get_text_width_height_descent(words, font, ismath=False)[0] / 72 / WIDTH * 16


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
        lines = [""]
        for word in re.sub(" (?=[%=])|(?<==) ", "\N{NO-BREAK SPACE}", words).split(" "):  # 40 % and F = 1 stay together
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and width_of(longer, size, bold) > room * narrower:
                lines.append(word)
            else:
                lines[-1] = longer
        if len(lines) <= count:
            break
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def apart(values: Sequence[float], least: float) -> list[float]:
    """Falling values moved as little as needed to stand at least ``least`` from one another: places for labels."""
    places = list(values)
    for _ in range(200):
        for i in range(len(places) - 1):
            short = max(least - (places[i] - places[i + 1]), 0.0)
            places[i], places[i + 1] = places[i] + short / 2, places[i + 1] - short / 2
    return places


def settle(figure, slide) -> None:
    """The last resort: makes letters smaller until no text lies on another, leaves the ``slide`` (axes), or its block."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()  # ticks find their places
    edge = slide.get_window_extent(renderer)
    unseen = {label for axis in slide.findobj(mpl.axis.Axis) for label in _out_of_view(axis)}
    texts = [t for t in slide.findobj(mpl.text.Text) if t.get_visible() and t.get_text().strip() and t not in unseen]
    texts = [t for t in texts if t.get_window_extent(renderer).width > 1]
    kinds = (mpl.patches.FancyBboxPatch, mpl.patches.Rectangle)
    blocks = [p.get_window_extent() for p in slide.patches if isinstance(p, kinds)]
    for _ in range(30):
        boxes = [t.get_window_extent(renderer) for t in texts]
        low, high = np.array([box.min for box in boxes]), np.array([box.max for box in boxes])  # (texts, 2) corners
        overlap = np.minimum(high[:, None], high) - np.maximum(low[:, None], low) > np.array([2, 3]) * edge.width / 1920
        tight = (overlap.all(axis=-1).sum(axis=1) > 1) | (low < edge.min).any(axis=1) | (high > edge.max).any(axis=1)
        tight |= [_too_wide(box, blocks) for box in boxes]
        for i in np.flatnonzero(tight):
            texts[i].set_fontsize(0.95 * texts[i].get_fontsize())
        if not tight.any():
            return


def _too_wide(box, blocks: list) -> bool:
    """Whether a text is wider than the smallest block that its middle lies in."""
    middle = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
    under = [b for b in blocks if b.contains(*middle) and b.height > 0.8 * box.height and b.width > 0.5 * box.width]
    return bool(under) and box.width > min(under, key=lambda b: b.width * b.height).width


def _out_of_view(axis) -> list:
    """Labels of an axis that exist but are not drawn, beyond its end."""
    low, high = sorted(axis.get_view_interval())
    slack = 1e-6 * (high - low)
    ticks = [t for t in (*axis.get_major_ticks(), *axis.get_minor_ticks()) if not low - slack <= t.get_loc() <= high + slack]
    return [label for tick in ticks for label in (tick.label1, tick.label2)]
