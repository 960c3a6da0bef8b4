"""What a slide is drawn on: words, blocks, arrows and builds, in units of a slide 16 wide, whatever its size in inches.

Letters and lines are given for a slide of 12.8 inches and scale with it; ``letters`` makes the letters alone larger. Words are
said in the slide's language.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from minids.lab.figures import mpl
from minids.lab.figures.language import Language
from minids.lab.figures.lettering import fitted, width_of
from minids.lab.figures.style import WIDTH, colour, ink_on


class Box(NamedTuple):
    """A block's place; the middles of its sides are where arrows begin and end."""

    x: float
    y: float
    w: float
    h: float

    middle = property(lambda box: (box.x + box.w / 2, box.y + box.h / 2))
    above = property(lambda box: (box.x + box.w / 2, box.y + box.h))
    below = property(lambda box: (box.x + box.w / 2, box.y))
    behind = property(lambda box: (box.x + box.w, box.y + box.h / 2))

    @property
    def corners(self) -> list[tuple[float, float]]:
        x, y, w, h = self
        return [(x, y), (x + w, y), (x + w, y + h), (x, y + h)]

    def piece(self, i: int, count: int, across: bool = True) -> "Box":
        """The i-th of ``count`` equal pieces, from the left or from above."""
        w, h = (self.w / count, self.h) if across else (self.w, self.h / count)
        return Box(self.x + i * w, self.y, w, h) if across else Box(self.x, self.y + self.h - (i + 1) * h, w, h)

    def inner(self, gap: float) -> "Box":
        """What is left inside a margin."""
        return Box(self.x + gap, self.y + gap, self.w - 2 * gap, self.h - 2 * gap)


class Canvas:
    """One frame. ``figure`` is what to save; ``ax`` the axes that span the slide in its own units."""

    def __init__(
        self, ax=None, height: float = 9.0, inches: float = WIDTH, letters: float = 1.0, titled: bool = True,
        language: Language | None = None, transparent: bool = False,
    ):  # fmt: skip
        given = ax is not None
        if not given:  # not pyplot: no window, no global state
            ax = mpl.figure.Figure(figsize=(inches, inches * height / 16), dpi=1920 / inches).add_axes((0, 0, 1, 1))
        self.ax, self.figure, self.h, self.letters, self.titled = ax, ax.figure, height, letters, titled
        self.scale = inches / WIDTH
        self.language = language or Language()
        self.steps: list[str] = []
        self._ends: dict[Any, list] = {}  # axes → what stands behind their curves
        self._before: list[set[int]] = []  # of each step, the artists that were there before it
        ax.set(xlim=(0, 16), ylim=(0, height))
        ax.axis("off")
        if given and not transparent:  # the figure is somebody else's, and may have another theme's colour
            self.rectangle(0, 0, 16, height, colour("background"), zorder=-10)

    @property
    def line(self) -> float:
        """Height of a line of small words."""
        return 0.36 * self.letters

    @property
    def tall(self) -> bool:
        """Whether two plots have more room one below the other."""
        return self.h > 12.5

    # Words.

    def text(self, x: float, y: float, words: str, size: float = 17, kind: str = "ink", ha="left", va="center", **more):
        """Words at a place; ``kind`` is a colour's name, or a colour. Returns the text."""
        return self.verbatim(x, y, self.language.say(words), size, kind, ha, va, **more)

    def math(self, x: float, y: float, formula: str, kind: str = "ink", ha="center", size: float = 21):
        """A formula between dollars."""
        return self.verbatim(x, y, formula, size, kind, ha=ha, parse_math=True)

    def verbatim(self, x: float, y: float, words: str, size: float = 17, kind: str = "ink", ha="left", va="center", **more):
        """Words of a text that a model read or wrote, or such as are said already: no language is theirs."""
        more.setdefault("parse_math", False)  # a dollar is a dollar
        text = self.ax.text(x, y, words, fontsize=size * self.scale * self.letters, ha=ha, va=va, color=shade_of(kind), **more)
        text.said = True
        return text

    def lines(self, x: float, y: float, *lines: tuple, ha: str = "left", down: float = 1.45) -> None:
        """Lines one below the other, their middle at y; each (words, size) or (words, size, kind, weight)."""
        heights = [down * line[1] * self.letters / 72 / WIDTH * 16 for line in lines]
        y += sum(heights) / 2
        for (words, size, *looks), high in zip(lines, heights, strict=True):
            kind, weight = (*looks, *("ink", "normal")[len(looks) :])
            self.text(x, y - high / 2, words, size, kind, ha=ha, weight=weight)
            y -= high

    def width_of(self, words: str | Iterable[str], size: float, bold: bool = False) -> float:
        """How wide words are in the slide's language, in units; of several, the widest."""
        said = [self.language.say(one) for one in ([words] if isinstance(words, str) else words)]
        lines = [line for one in said for line in one.split("\n")]
        return max((width_of(line, size * self.letters, bold) for line in lines), default=0.0)

    def mono(self, size: float) -> float:
        """How wide a letter of DejaVu Sans Mono is: 0.602 of its size."""
        return 0.602 * size * self.letters / 72 / WIDTH * 16

    def cut(self, name: str, size: float, room: float, bold: bool = False) -> str:
        """A name, cut with an ellipsis where it is wider than ``room`` units."""
        return fitted(name, size * self.letters, room, bold)

    def fit(self, words: str | Iterable[str], size: float, room: float, bold: bool = False) -> float:
        """The size, or the smaller one at which words (of several, the widest) have ``room`` units."""
        return size * min(1.0, room / max(self.width_of(words, size, bold), 1e-9))

    # Blocks and arrows.

    def box(
        self, x: float, y: float, w: float, h: float, words: str = "", kind: str = "hidden", size: float = 17,
        edge: str = "", fill: str = "", round: float = 0.12, linestyle="-", hatch: str = "", **more,
    ) -> Box:  # fmt: skip
        """A rounded block with its lower left corner at x, y, and words in its middle, smaller where there is no room for them;
        returns its place. ``fill`` and ``edge`` are both ``kind`` if they are not given."""
        fill = shade_of(fill or kind)
        style = f"round,pad=0,rounding_size={min(round, w / 2, h / 2)}"
        rim = ink_on(fill) if hatch else shade_of(edge or fill)  # hatches have the edge's colour
        looks = dict(facecolor=fill, edgecolor=rim, linestyle=linestyle, hatch=hatch or None)
        self.ax.add_patch(mpl.patches.FancyBboxPatch((x, y), w, h, boxstyle=style, linewidth=1.6 * self.scale, **looks, **more))
        if words:
            self.text(x + w / 2, y + h / 2, words, self.fit(words, size, w - 0.1), ink_on(fill), "center", linespacing=1.25)
        return Box(x, y, w, h)

    def rectangle(self, x: float, y: float, w: float, h: float, fill: str, edge: str = "none", linewidth: float = 1.0, **more):
        """A plain rectangle in slide units; returns its place."""
        looks = dict(facecolor=shade_of(fill), edgecolor=edge if edge == "none" else shade_of(edge))
        self.ax.add_patch(mpl.patches.Rectangle((x, y), w, h, linewidth=linewidth * self.scale, **looks, **more))
        return Box(x, y, w, h)

    def many(self, boxes: Sequence[Box], fills: str | Sequence[str], ax=None, **looks) -> None:
        """Plain rectangles by the thousand, of one kind or of a kind each, as one drawing, on the slide or on other axes."""
        shades = [shade_of(fill) for fill in ([fills] * len(boxes) if isinstance(fills, str) else fills)]
        looks = {"facecolors": shades, "edgecolors": "none"} | looks
        made = mpl.collections.PolyCollection([box.corners for box in boxes], **looks)
        (ax or self.ax).add_collection(made, autolim=False)

    def texture(self, place: Box, shown, kind: str, zorder: float = 0.5) -> None:
        """Small squares where ``shown`` (rows, columns) says so, as one image: for more of them than shapes can be drawn."""
        alpha = np.kron(shown, np.pad(np.ones((3, 3)), (0, 1)))  # a gap between them
        image = np.dstack([*(np.full(alpha.shape, c) for c in mpl.colors.to_rgb(shade_of(kind))), alpha])
        self.plot(*place, frame=False, zorder=zorder).imshow(image, aspect="auto", interpolation="antialiased")

    def squares(
        self, x: float, y: float, w: float, h: float, count: int, fills: Sequence[str], groups: int = 1, columns: int = 1
    ) -> list[Box]:  # fmt: skip
        """``count`` squares as large as there is room for, group by group in ``columns`` columns; returns their places."""
        each, lines = -(-count // groups), -(-groups // columns)
        wide, high = (w - 0.2 * (columns - 1)) / columns, (h - 0.16 * (lines - 1)) / lines
        whole = [n for n in range(1, each + 1) if each % n == 0]  # every row is full
        across = max(whole, key=lambda n: min(wide / n, high / (each // n)))
        size = min(wide / across, high / -(-each // across))
        found = []
        for i in range(count):
            group, place = divmod(i, each)
            left = x + group % columns * (wide + 0.2) + (wide - size * across) / 2 + size * (place % across)
            below = y + h - group // columns * (high + 0.16) - size * (1 + place // across)
            found.append(Box(left + 0.05 * size, below + 0.05 * size, 0.9 * size, 0.9 * size))
        self.many(found, fills)
        return found

    def arrow(self, *points: tuple[float, float], kind: str = "muted", width: float = 2.2, head: bool = True):
        """A line through points, with a head at its end."""
        shade, thick = shade_of(kind), width * self.scale
        if head:
            shape = dict(arrowstyle="-|>,head_width=0.28,head_length=0.55", mutation_scale=18 * self.scale)
            looks = dict(color=shade, linewidth=thick, shrinkA=0, shrinkB=0, **shape)
            self.ax.annotate("", points[-1], points[-2], arrowprops=looks)
            points = points[:-1]
        if len(points) > 1:
            ends = dict(solid_capstyle="butt", solid_joinstyle="miter")
            self.ax.plot(*zip(*points, strict=True), color=shade, linewidth=thick, **ends)

    def stack(
        self, x: float, y: float, w: float, h: float, blocks: Iterable[tuple[str, str, float]], size: float = 18
    ) -> dict[str, Box]:
        """Blocks (words, kind, height) from y upwards with arrows between, spread over a height h; a kind of "" is words alone,
        of this ``size``. Returns words → place."""
        blocks = [(words, kind, height if kind else max(height, 1.35 * self.line)) for words, kind, height in blocks]
        gap = (h - sum(height for *_, height in blocks)) / (len(blocks) - 1)
        places: dict[str, Box] = {}
        for words, kind, height in blocks:
            if kind:
                places[words] = self.box(x, y, w, height, words, kind)
            else:
                places[words] = Box(x, y, w, height)
                self.text(*places[words].middle, words, size, ha="center", weight="bold")
            if len(places) < len(blocks):
                self.arrow(places[words].above, (x + w / 2, y + height + gap))
            y += height + gap
        return places

    # Builds.

    def step(self, name: str) -> None:
        """What is drawn from here on appears with the next build of the slide, called ``name``."""
        self.steps.append(name)
        self._before.append({id(artist) for artist in self._artists()})

    def builds(self) -> list[list]:
        """The artists of each build, the first of what was there before any ``step``."""
        found: list[list] = [[] for _ in range(len(self.steps) + 1)]
        for artist in self._artists():
            later = [i for i, before in enumerate(self._before, 1) if id(artist) not in before]
            found[later[-1] if later else 0].append(artist)
        return found

    def _artists(self) -> list:
        """What lies on the slide: words, shapes, plots and what is in them."""
        inside = [artist for plot in self.ax.child_axes for artist in (plot, *plot.texts, *plot.patches, *plot.lines)]
        return [*self.ax.texts, *self.ax.patches, *self.ax.lines, *self.ax.collections, *inside]


def shade_of(kind: str) -> str:
    """A colour, by its name among the house colours or by its own."""
    return kind if kind == "none" or kind.startswith("#") else colour(kind)
