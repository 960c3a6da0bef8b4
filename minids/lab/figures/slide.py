"""A slide to draw on: 16 units wide, 9 high, whatever its size in inches.

    slide = Slide()
    top = slide.title("MLA caches 57 times less", "DeepSeek-V3, arithmetic", "bytes of one token")
    a = slide.box(1, 2, 3, 1, "c_kv", "latent")              blocks, and arrows from side to side of them
    b = slide.box(1, 4, 3, 1, "k", "latent")
    slide.arrow(a.above, b.below)
    ax = slide.plot(2, 1, 12, 6)                             ordinary axes somewhere on it
    slide.end_labels(ax, [(1024, 7.5, "MLA", {})])           curves with their names behind them, none on another
    slide.bars(2, 1, 9, 6, [3, 2], ["MHA", "MLA"], …)        horizontal bars with names before and words behind them
    slide.heat(2, 1, 9, 6, grid, colours, 0, 1)              a map of coloured cells

Letters and lines are given for a slide of 12.8 inches and scale with it.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from minids.lab.figures.style import HEIGHT, WIDTH, colour, ink_on

LEFT, RIGHT = 0.55, 15.55  # where titles begin, and where they end at the latest


class Box(NamedTuple):
    """A block's place; the middles of its sides are where arrows begin and end."""

    x: float
    y: float
    w: float
    h: float

    @property
    def middle(self) -> tuple[float, float]:
        return self.x + self.w / 2, self.y + self.h / 2

    @property
    def above(self) -> tuple[float, float]:
        return self.x + self.w / 2, self.y + self.h

    @property
    def below(self) -> tuple[float, float]:
        return self.x + self.w / 2, self.y

    @property
    def behind(self) -> tuple[float, float]:
        return self.x + self.w, self.y + self.h / 2


class Slide:
    """One frame. ``figure`` is what to save; ``ax`` the axes that span the slide in its own units."""

    def __init__(self, ax=None, scale: float = 1.0):
        from matplotlib.figure import Figure  # not pyplot: no window, no global state

        given = ax is not None
        if not given:
            figure = Figure(figsize=(WIDTH, HEIGHT))
            ax = figure.add_axes((0, 0, 1, 1))
        self.ax, self.figure, self.scale = ax, ax.figure, scale
        ax.set(xlim=(0, 16), ylim=(0, 9))
        ax.axis("off")
        if given:  # the figure is somebody else's, and may have another theme's colour
            self.rectangle(0, 0, 16, 9, colour("background"), zorder=-10)

    def title(self, finding: str, about: str, subtitle: str = "") -> float:
        """The finding, over one or two lines; below it, in a frame, what the numbers are ``about``, so that a small model's
        are never taken for DeepSeek-V3's, and a quieter line. Returns the y under which there is room."""
        lines = wrapped(finding, 25, RIGHT - LEFT, bold=True)
        self.text(LEFT, 8.68, "\n".join(lines), 25, weight="bold", va="top", linespacing=1.15)
        top = 8.5 - 0.5 * len(lines)
        about = fitted(about, 16, 7.0)
        frame = self.box(LEFT, top - 0.44, width_of(about, 16) + 0.36, 0.44, about, size=16, fill="panel", edge="muted")
        rest = frame.x + frame.w + 0.25
        below = wrapped(subtitle, 17, RIGHT - rest) if subtitle else []
        self.text(rest, top - 0.02, "\n".join(below), 17, "muted", va="top", linespacing=1.2)
        return top - max(0.44, 0.36 * len(below)) - 0.15

    def text(self, x: float, y: float, words: str, size: float = 17, kind: str = "ink", ha="left", va="center", **more):
        """Words at a place; ``kind`` is a colour's name, or a colour."""
        more.setdefault("parse_math", False)  # a dollar is a dollar
        return self.ax.text(x, y, words, fontsize=size * self.scale, ha=ha, va=va, color=_shade(kind), **more)

    def math(self, x: float, y: float, formula: str, kind: str = "ink", ha="center"):
        """A formula between dollars."""
        return self.text(x, y, formula, 21, kind, ha=ha, parse_math=True)

    def box(
        self, x: float, y: float, w: float, h: float, words: str = "", kind: str = "hidden", size: float = 17,
        edge: str = "", fill: str = "", round: float = 0.12, linestyle="-",
    ) -> Box:  # fmt: skip
        """A rounded block with its lower left corner at x, y, and words in its middle; returns its place. ``fill`` and ``edge``
        are both ``kind`` if they are not given."""
        from matplotlib.patches import FancyBboxPatch

        fill = _shade(fill or kind)
        style = f"round,pad=0,rounding_size={min(round, w / 2, h / 2)}"
        looks = dict(facecolor=fill, edgecolor=_shade(edge) if edge else fill, linestyle=linestyle)
        self.ax.add_patch(FancyBboxPatch((x, y), w, h, boxstyle=style, linewidth=1.6 * self.scale, **looks))
        if words:
            self.text(x + w / 2, y + h / 2, words, size, ink_on(fill), ha="center", linespacing=1.25)
        return Box(x, y, w, h)

    def rectangle(self, x: float, y: float, w: float, h: float, fill: str, edge: str = "none", linewidth: float = 1.0, **more):
        """A plain rectangle in slide units; returns its place."""
        from matplotlib.patches import Rectangle

        looks = dict(facecolor=_shade(fill), edgecolor=edge, linewidth=linewidth * self.scale)
        self.ax.add_patch(Rectangle((x, y), w, h, **looks, **more))
        return Box(x, y, w, h)

    def arrow(self, *points: tuple[float, float], kind: str = "muted", width: float = 2.2, head: bool = True):
        """A line through points, with a head at its end."""
        shade, thick = _shade(kind), width * self.scale
        if head:
            shape = dict(arrowstyle="-|>,head_width=0.28,head_length=0.55", mutation_scale=18 * self.scale)
            looks = dict(color=shade, linewidth=thick, shrinkA=0, shrinkB=0, **shape)
            self.ax.annotate("", points[-1], points[-2], arrowprops=looks)
            points = points[:-1]
        if len(points) > 1:
            ends = dict(solid_capstyle="butt", solid_joinstyle="miter")
            self.ax.plot(*zip(*points, strict=True), color=shade, linewidth=thick, **ends)

    def stack(self, x: float, y: float, w: float, h: float, blocks: Iterable[tuple[str, str, float]]) -> dict[str, Box]:
        """Blocks (words, kind, height) from y upwards with arrows between, spread over a height h; a kind of "" is words alone.
        Returns words → place."""
        blocks = list(blocks)
        gap = (h - sum(height for *_, height in blocks)) / (len(blocks) - 1)
        places: dict[str, Box] = {}
        for words, kind, height in blocks:
            if kind:
                places[words] = self.box(x, y, w, height, words, kind)
            else:
                places[words] = Box(x, y, w, height)
                self.text(*places[words].middle, words, 18, ha="center", weight="bold")
            if len(places) < len(blocks):
                self.arrow(places[words].above, (x + w / 2, y + height + gap))
            y += height + gap
        return places

    def plot(self, x: float, y: float, w: float, h: float, grid: str | None = None, frame: bool = True, **settings):
        """Axes whose inside has its lower left corner at x, y; ``grid`` is "x", "y" or "both". Without a ``frame`` they have no
        lines and no marks, only the words that are put to them."""
        ax = self.ax.inset_axes((x / 16, y / 9, w / 16, h / 9))
        if grid:
            ax.grid(True, axis=grid)
        if not frame:
            ax.spines[:].set_visible(False)
            ax.tick_params(length=0)
            ax.set(xticks=[], yticks=[])
        ax.set(**settings)
        return ax

    def heat(self, x: float, y: float, w: float, h: float, grid, colours, low: float, high: float, across=(), down=(), **more):
        """A map of the numbers in ``grid`` (rows downwards), coloured from ``low`` to ``high``; ``across`` and ``down`` name
        columns and rows, ``more`` goes to ``imshow``. Returns its axes."""
        ax = self.plot(x, y, w, h, frame=False)
        ax.imshow(grid, cmap=colours, vmin=low, vmax=high, aspect="auto", interpolation="nearest", **more)
        if len(across):
            ax.set_xticks(range(len(across)), across)
        if len(down):
            ax.set_yticks(range(len(down)), down)
        return ax

    def bars(
        self, x: float, y: float, w: float, h: float, values: Sequence[float], names: Sequence[str], kinds: Sequence[str],
        words: Sequence[str] = (), bold: Sequence[bool] = (), most: float = 0.0, thick: float = 0.66, size: float = 17,
    ):  # fmt: skip
        """Horizontal bars downwards in this order, names before and ``words`` behind them; ``most`` is the value that fills w.
        Returns axes on which the places of the bars are 0, 1, …"""
        ax = self.plot(x, y, w, h, frame=False, xlim=(0, most or max(values)), ylim=(len(values) - 0.4, -0.6))
        ax.barh(range(len(values)), values, height=thick, color=[_shade(kind) for kind in kinds])
        ax.set_yticks(range(len(names)), [fitted(name, size, x - LEFT - 0.1) for name in names], fontsize=size * self.scale)
        for place, (value, said) in enumerate(zip(values, words, strict=False)):
            weight = "bold" if bold and bold[place] else "normal"
            self.label(ax, value, place, said, size, va="center_baseline", fontweight=weight)
        return ax

    def label(self, ax, x: float, y: float, words: str, size: float = 16, gap: float = 8, va: str = "center", **more):
        """Words ``gap`` typographic points to the right of a point of a plot, beyond its edge where need be."""
        place = dict(xytext=(gap * self.scale, 0), textcoords="offset points", annotation_clip=False)
        more.setdefault("parse_math", False)
        return ax.annotate(words, (x, y), va=va, fontsize=size * self.scale, **place, **more)

    def end_labels(self, ax, ends: Iterable[tuple[float, float, str, dict]], size: float = 17, gap: float = 10) -> None:
        """Words behind the ends (x, y) of curves, moved up and down until none lies on another; ``ax`` has its limits already.
        The dict is of the text's looks."""
        ax.get_ylim()  # matplotlib sets the limits when somebody asks
        to_share = ax.transScale + ax.transLimits  # data → share of the axes' height, logarithmic or not
        ends = sorted(((to_share.transform((x, y))[1], x, words, looks) for x, y, words, looks in ends), key=lambda e: -e[0])
        points_high = ax.get_position().height * self.figure.get_figheight() * 72
        shares = apart([share for share, *_ in ends], 1.3 * size * self.scale / points_high)
        for share, (_, x, words, looks) in zip(shares, ends, strict=True):
            self.label(ax, x, share, words, size, gap, xycoords=ax.get_xaxis_transform(), **looks)

    def legend(self, x: float, y: float, entries: list[tuple[str, str]], size: float = 16, down: float = 0.0) -> None:
        """Coloured squares with words behind them: a row, or a column with steps of ``down``."""
        for words, kind in entries:
            self.rectangle(x, y - 0.13, 0.26, 0.26, kind)
            self.text(x + 0.38, y, words, size)
            x, y = (x, y - down) if down else (x + 0.88 + width_of(words, size), y)


def _shade(kind: str) -> str:
    """A colour, by its name among the house colours or by its own."""
    return kind if kind == "none" or kind.startswith("#") else colour(kind)


@lru_cache(maxsize=4096)
def width_of(words: str, size: float, bold: bool = False) -> float:
    """How wide words are on a slide, in its units."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")
    words = words.replace("$", r"\$")  # a dollar is a dollar
    return float(TextPath((0, 0), words, size=size, prop=font).get_extents().width) / 72 / WIDTH * 16 if words.strip() else 0.0


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


def powers_of_ten(axis, scale: float, every: int = 1) -> None:
    """Ticks of a logarithmic axis at ``every`` so many powers; its letters are large enough for the exponents to be read."""
    low, high = np.log10(axis.get_view_interval())
    exponents = range(every * int(np.ceil(low / every)), int(np.floor(high)) + 1, every)
    axis.set_ticks([10.0**e for e in exponents], [rf"$10^{{{e}}}$" for e in exponents], fontsize=19 * scale)


def _filled(words: str, size: float, room: float, bold: bool) -> list[str]:
    lines = [""]
    for word in words.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and width_of(longer, size, bold) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


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
