"""The last resort of a crowded slide: letters that have no room become smaller."""

import numpy as np


def settle(figure, slide) -> None:
    """Makes letters smaller until no text lies on another, leaves the ``slide`` (axes), or is wider than its block."""
    from matplotlib.axis import Axis
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.patches import FancyBboxPatch, Rectangle
    from matplotlib.text import Text

    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()  # ticks find their places
    renderer = canvas.get_renderer()
    edge = slide.get_window_extent(renderer)
    unseen = {label for axis in slide.findobj(Axis) for label in _out_of_view(axis)}
    texts = [t for t in slide.findobj(Text) if t.get_visible() and t.get_text().strip() and t not in unseen]
    texts = [t for t in texts if t.get_window_extent(renderer).width > 1]
    blocks = [p.get_window_extent() for p in slide.patches if isinstance(p, FancyBboxPatch | Rectangle)]
    for _ in range(30):
        boxes = [t.get_window_extent(renderer) for t in texts]
        low, high = np.array([box.min for box in boxes]), np.array([box.max for box in boxes])  # (texts, 2) corners
        overlap = np.minimum(high[:, None], high) - np.maximum(low[:, None], low) > np.array([2, 3]) * edge.width / 1920
        tight = (overlap.all(axis=-1).sum(axis=1) > 1) | (low < edge.min).any(axis=1) | (high > edge.max).any(axis=1)
        for i in np.flatnonzero(tight | [_too_wide(box, blocks) for box in boxes]):
            texts[i].set_fontsize(0.95 * texts[i].get_fontsize())
            tight[i] = True
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
