"""What can be said of a picture without looking at it: the words on it, whether they have room, and whether they stand out."""

from weakref import WeakKeyDictionary

import numpy as np
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.text import Text

CONTRAST = 2.9
"""Of letters against what is behind them, as the WCAG counts it: 3 for large ones, less the blur of their edges."""

_canvases: WeakKeyDictionary = WeakKeyDictionary()


def texts(figure) -> list:
    """(words, box in pixels, points, colour) of every visible text."""
    renderer = _drawn(figure).get_renderer()
    unseen = _ticks_out_of_view(figure)
    found = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and t not in unseen]
    boxes = [(t.get_text(), t.get_window_extent(renderer), t.get_fontsize(), t.get_color()) for t in found]
    return [entry for entry in boxes if entry[1].width > 1]


def _drawn(figure) -> FigureCanvasAgg:
    """The figure's pixels; drawn once, however often it is asked about."""
    if figure not in _canvases:
        _canvases[figure] = FigureCanvasAgg(figure)
        _canvases[figure].draw()
    return _canvases[figure]


def _ticks_out_of_view(figure) -> set:
    """Labels of ticks beyond an axis' end: they exist, but are not drawn."""
    unseen = set()
    for axis in figure.findobj(Axis):
        low, high = sorted(axis.get_view_interval())
        slack = 1e-6 * (high - low)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if not low - slack <= tick.get_loc() <= high + slack:
                unseen |= {tick.label1, tick.label2}
    return unseen


def words(figure) -> str:
    """All words of a picture, one text a line."""
    return "\n".join(entry[0].replace("\n", " ") for entry in texts(figure))


def faults(figure, smallest: float = 16.0) -> list[str]:
    """Texts outside the picture, on one another, beyond the block they stand in, too small for the last row, or too pale."""
    found, every = [], texts(figure)
    width, height = figure.bbox.width, figure.bbox.height
    for i, (text, box, points, _) in enumerate(every):
        if box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1 or box.y1 > height + 1:
            found.append(f"{text!r} is cut off")
        if points < smallest - 0.1 or ("^{" in text and points < 1.18 * smallest):  # exponents are 0.7 of the rest
            found.append(f"{text!r} has only {points:g} points")
        for other, second, *_ in every[i + 1 :]:
            across = min(box.x1, second.x1) - max(box.x0, second.x0)
            up = min(box.y1, second.y1) - max(box.y0, second.y0)
            if across > 3 and up > 4:
                found.append(f"{text!r} lies on {other!r}")
    return found + _out_of_blocks(figure, every) + _pale(figure, every)


def crossed(figure, most: float = 0.1) -> list[str]:
    """Words on lines, curves or edges of blocks: where more than ``most`` of what is behind them is not of one colour. Single
    letters and digits stand in cells smaller than they are."""
    every, hidden = texts(figure), [t for t in figure.findobj(Text) if t.get_visible()]
    for text in hidden:
        text.set_visible(False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    for text in hidden:
        text.set_visible(True)
    pixels = np.asarray(canvas.buffer_rgba())[::-1].view(np.uint32)[..., 0]  # from below, a colour each
    found = []
    for words, box, *_ in every:
        x0, y0, x1, y1 = (int(v) for v in (box.x0 + 2, box.y0 + 2, box.x1 - 1, box.y1 - 1))
        behind = pixels[max(y0, 0) : y1, max(x0, 0) : x1]
        if behind.size and len(words) > 1:
            share = 1 - np.unique(behind, return_counts=True)[1].max() / behind.size
            if share > most:
                found.append(f"{words!r} lies on something drawn ({100 * share:.0f} %)")
    return found


def _out_of_blocks(figure, every: list) -> list[str]:
    """Texts that reach beyond the smallest block of the slide that their middle lies in (the uppermost of a stack)."""
    blocks = [p.get_window_extent() for p in figure.axes[0].patches if isinstance(p, FancyBboxPatch | Rectangle)]
    found = []
    for text, box, *_ in every:
        middle = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
        under = [
            b for b in reversed(blocks) if b.contains(*middle) and b.height > 0.8 * box.height and b.width > 0.5 * box.width
        ]
        if under:
            block = min(under, key=lambda b: round(b.width * b.height))
            beyond = max(block.x0 - box.x0, box.x1 - block.x1)
            if beyond > 1:
                found.append(f"{text!r} is {beyond:.0f} pixels wider than its block")
    return found


def _pale(figure, every: list) -> list[str]:
    """Texts that hardly differ from what is behind them, as it is drawn."""
    pixels = np.asarray(_drawn(figure).buffer_rgba())[::-1].view(np.uint32)[..., 0]  # from below, a colour each
    found = []
    for text, box, _, ink in every:
        x0, y0, x1, y1 = (int(v) for v in (box.x0, box.y0, box.x1 + 1, box.y1 + 1))
        behind = pixels[max(y0, 0) : y1, max(x0, 0) : x1]
        if not behind.size:
            continue
        values, counts = np.unique(behind, return_counts=True)
        commonest = values[counts.argmax() : counts.argmax() + 1].view(np.uint8)[:3] / 255
        bright = sorted((_luminance(to_rgb(ink)), _luminance(commonest)))
        if (contrast := (bright[1] + 0.05) / (bright[0] + 0.05)) < CONTRAST:
            found.append(f"{text!r} has a contrast of only {contrast:.1f}")
    return found


def _luminance(colour) -> float:
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
