"""A slide to draw on: 16 units wide, 9 high, whatever its size in inches.

    slide = Slide("MLA caches 57 times less", subtitle)      a whole picture, or inside an ``ax`` of the reader's
    slide.box(1, 2, 3, 1, "c_kv", "latent")                  blocks and arrows in slide units
    ax = slide.plot(2, 1, 12, 6)                             ordinary axes somewhere on it

Letters and lines are given for a slide of 12.8 inches and scale with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from minids.lab.figures.style import HEIGHT, WIDTH, colour, ink_on

LEFT = 0.55  # where titles begin


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

    def title(self, finding: str, subtitle: str = "") -> float:
        """The finding, over one or two lines, and a quieter line below; returns the y under which there is room."""
        lines = wrapped(finding, 25, 15.0, bold=True)
        top = 8.68
        self.text(LEFT, top, "\n".join(lines), 25, weight="bold", va="top", linespacing=1.15)
        top -= 0.5 * len(lines) + 0.12
        if subtitle:
            below = wrapped(subtitle, 17, 15.0)
            self.text(LEFT, top, "\n".join(below), 17, "muted", va="top", linespacing=1.2)
            top -= 0.36 * len(below)
        return top - 0.15

    def text(self, x: float, y: float, words: str, size: float = 17, kind: str = "ink", ha="left", va="center", **more):
        """Words at a place; ``kind`` is a colour's name, or a colour."""
        more.setdefault("parse_math", False)  # a dollar is a dollar
        more.setdefault("color", kind if kind.startswith("#") else colour(kind))
        return self.ax.text(x, y, words, fontsize=size * self.scale, ha=ha, va=va, **more)

    def box(
        self,
        x: float,
        y: float,
        w: float,
        h: float,
        words: str = "",
        kind: str = "hidden",
        size: float = 17,
        edge: str | None = None,
        fill: str | None = None,
        round: float = 0.12,
        text_colour: str | None = None,
        linewidth: float = 1.6,
        linestyle: str = "-",
        **more,
    ):
        """A rounded block with its lower left corner at x, y, and words in its middle."""
        from matplotlib.patches import FancyBboxPatch

        fill = colour(kind) if fill is None else fill
        shape = FancyBboxPatch(
            (x, y),
            w,
            h,
            boxstyle=f"round,pad=0,rounding_size={min(round, w / 2, h / 2)}",
            facecolor=fill,
            edgecolor=edge or fill,
            linewidth=linewidth * self.scale,
            linestyle=linestyle,
        )
        self.ax.add_patch(shape)
        if words:
            ink = text_colour or (ink_on(fill) if fill != "none" else colour("ink"))
            self.text(x + w / 2, y + h / 2, words, size, ink, ha="center", va="center", linespacing=1.25, **more)
        return shape

    def rectangle(self, x: float, y: float, w: float, h: float, fill: str, edge: str = "none", linewidth: float = 1.0, **more):
        """A plain rectangle in slide units."""
        from matplotlib.patches import Rectangle

        self.ax.add_patch(Rectangle((x, y), w, h, facecolor=fill, edgecolor=edge, linewidth=linewidth * self.scale, **more))

    def arrow(self, *points: tuple[float, float], kind: str = "muted", width: float = 2.2, head: bool = True, style: str = "-"):
        """A line through points, with a head at its end."""
        shade = kind if kind.startswith("#") else colour(kind)
        xs, ys = zip(*points, strict=True)
        if head:
            self.ax.annotate(
                "",
                xy=points[-1],
                xytext=points[-2],
                arrowprops=dict(
                    arrowstyle="-|>,head_width=0.28,head_length=0.55",
                    color=shade,
                    linewidth=width * self.scale,
                    linestyle=style,
                    shrinkA=0,
                    shrinkB=0,
                    mutation_scale=18 * self.scale,
                ),
            )
            xs, ys = xs[:-1], ys[:-1]
        if len(xs) > 1:
            self.ax.plot(
                xs,
                ys,
                color=shade,
                linewidth=width * self.scale,
                linestyle=style,
                solid_capstyle="butt",
                solid_joinstyle="miter",
            )

    def plot(self, x: float, y: float, w: float, h: float, grid: str | None = None, **settings):
        """Axes whose inside has its lower left corner at x, y; ``grid`` is "x", "y" or "both"."""
        ax = self.ax.inset_axes((x / 16, y / 9, w / 16, h / 9))
        if grid:
            ax.grid(True, axis=grid)
        ax.set(**settings)
        return ax

    def label(self, ax, x: float, y: float, words: str, size: float = 16, gap: float = 8, va: str = "center", **more):
        """Words ``gap`` typographic points to the right of a point of a plot, beyond its edge where need be."""
        size, gap = size * self.scale, gap * self.scale
        place = dict(xytext=(gap, 0), textcoords="offset points", annotation_clip=False)
        more.setdefault("parse_math", False)
        return ax.annotate(words, (x, y), va=va, fontsize=size, **place, **more)

    def legend(self, x: float, y: float, entries: list[tuple[str, str]], size: float = 16, gap: float = 0.5) -> float:
        """A row of coloured squares with words behind them; returns where it ends."""
        for words, kind in entries:
            fill = kind if kind.startswith("#") else colour(kind)
            self.rectangle(x, y - 0.13, 0.26, 0.26, fill)
            self.text(x + 0.38, y, words, size)
            x += 0.38 + width_of(words, size) + gap
        return x


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
        lines = _filled(words, size, room * narrower, bold)
        if len(lines) <= count:
            return lines
    return _filled(words, size, room, bold)


def powers_of_ten(axis, exponents: Sequence[int], scale: float) -> None:
    """Ticks of a logarithmic axis, its letters large enough for the exponents to be read as well."""
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
