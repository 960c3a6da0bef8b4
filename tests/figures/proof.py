"""What can be said of a picture without looking at it: the words on it, and whether they have room."""

from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text


def texts(figure) -> list:
    """(words, box in pixels, points) of every visible text."""
    canvas = FigureCanvasAgg(figure)
    renderer = canvas.get_renderer()
    figure.draw_without_rendering()
    unseen = _ticks_out_of_view(figure)
    found = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and t not in unseen]
    boxes = [(t.get_text(), t.get_window_extent(renderer), t.get_fontsize()) for t in found]
    return [entry for entry in boxes if entry[1].width > 1]


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
    """Texts outside the picture, on one another, or too small for the last row."""
    found, every = [], texts(figure)
    width, height = figure.bbox.width, figure.bbox.height
    for i, (text, box, points) in enumerate(every):
        if box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1 or box.y1 > height + 1:
            found.append(f"{text!r} is cut off")
        if points < smallest - 0.1:
            found.append(f"{text!r} has only {points:g} points")
        for other, second, _ in every[i + 1 :]:
            across = min(box.x1, second.x1) - max(box.x0, second.x0)
            up = min(box.y1, second.y1) - max(box.y0, second.y0)
            if across > 3 and up > 4:
                found.append(f"{text!r} lies on {other!r}")
    return found
