"""A slide to draw on: 16 units wide, ``h`` high (9 at 16:9), whatever its size in inches.

    slide = Slide()
    top = slide.title("MLA caches 57 times less", "DeepSeek-V3, arithmetic", "bytes of one token")
    a = slide.box(1, 2, 3, 1, "c_kv", "latent")              blocks, and arrows from side to side of them
    b = slide.box(1, 4, 3, 1, "k", "latent")
    slide.step("up-projection")                              what follows appears with the next build of the slide
    slide.arrow(a.above, b.below)
    ax = slide.plot(2, 1, 12, 6)                             ordinary axes somewhere on it
    slide.curve(ax, [0, 1024], [0, 7.5], "MLA", "latent")    curves with their names behind them, none on another
    slide.bars(2, 1, 9, 6, [3, 2], ["MHA", "MLA"], …)        horizontal bars with names before and words behind them
    slide.heat(2, 1, 9, 6, grid, colours, 0, 1)              a map of coloured cells
    slide.squares(2, 1, 9, 6, 256, fills, groups=8)          so many equal squares, in groups
    left, right = slide.parts(1, 7, 2, 1)                    frames, side by side or one below the other, and axes that
    ax = slide.within(left, "0.00", xlabel="step")           fill one together with their numbers and names

Letters and lines are given for a slide of 12.8 inches and scale with it; ``letters`` makes the letters alone larger. Words are
said in the slide's language.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from minids.lab.figures.language import Language
from minids.lab.figures.lettering import apart, fitted, width_of, wrapped
from minids.lab.figures.settle import settle
from minids.lab.figures.style import WIDTH, colour, ink_on

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

    def piece(self, i: int, count: int, across: bool = True) -> "Box":
        """The i-th of ``count`` equal pieces, from the left or from above."""
        w, h = (self.w / count, self.h) if across else (self.w, self.h / count)
        return Box(self.x + i * w, self.y, w, h) if across else Box(self.x, self.y + self.h - (i + 1) * h, w, h)


class Slide:
    """One frame. ``figure`` is what to save; ``ax`` the axes that span the slide in its own units."""

    def __init__(
        self, ax=None, height: float = 9.0, inches: float = WIDTH, letters: float = 1.0, titled: bool = True,
        language: Language | None = None, transparent: bool = False,
    ):  # fmt: skip
        from matplotlib.figure import Figure  # not pyplot: no window, no global state

        given = ax is not None
        if not given:
            figure = Figure(figsize=(inches, inches * height / 16), dpi=1920 / inches)
            ax = figure.add_axes((0, 0, 1, 1))
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

    # Words.

    def title(self, finding: str, about: str, subtitle: str = "") -> float:
        """The finding, over one or two lines; below it, in a frame, what the numbers are ``about``, so that a small model's
        are never taken for DeepSeek-V3's, and a quieter line. Returns the y under which there is room."""
        if not self.titled:
            return self.h - 0.2
        big, grown = self.big, self.letters
        if not self.tall:  # large letters are for what is below
            self.letters, big = min(grown, 1.2), big * grown / min(grown, 1.2)
        finding, about, subtitle = (self.language.say(words) for words in (finding, about, subtitle))
        lines, (edge, ha) = wrapped(finding, big * self.letters, RIGHT - LEFT, bold=True), self.begin
        self.verbatim(edge, self.h - 0.32, "\n".join(lines), big, weight="bold", va="top", linespacing=1.15, ha=ha)
        top, high = self.h - 0.5 - 0.0199 * big * self.letters * len(lines), 0.44 * self.letters
        about = self.cut(about, 16, RIGHT - LEFT - 0.4)
        wide = width_of(about, 16 * self.letters) + 0.36
        frame = self.box(edge if ha == "left" else edge - wide, top - high, wide, high, fill="panel", edge="muted")
        self.verbatim(*frame.middle, about, 16, ink_on(colour("panel")), ha="center")
        below = top - high
        if subtitle:  # beside the frame, or below it where that takes less room
            beside, under = (wrapped(subtitle, 17 * self.letters, RIGHT - LEFT - taken) for taken in (wide + 0.25, 0))
            if wide > 11 or self.line * len(beside) > high + 0.12 + self.line * len(under):
                top, beside, wide = top - high - 0.12, under, -0.25
            at = edge + (wide + 0.25) * (1 if ha == "left" else -1)
            self.verbatim(at, top - 0.02, "\n".join(beside), 17, "muted", va="top", linespacing=1.2, ha=ha)
            below = min(below, top - self.line * len(beside))
        self.letters = grown
        return below - 0.15

    @property
    def begin(self) -> tuple[float, str]:
        """Where lines of the slide's language begin, and how they are aligned there."""
        return (RIGHT, "right") if self.language.right_to_left else (LEFT, "left")

    @property
    def big(self) -> float:
        """Size of the finding's letters."""
        return 25 if self.letters <= 1 else max(25 / self.letters, 18.5)

    def short(self, name: str) -> str:
        """A name for the finding, cut where it is longer than a third of a line."""
        return self.cut(name, self.big, 5, bold=True)

    @property
    def line(self) -> float:
        """Height of a line of small words."""
        return 0.36 * self.letters

    def note(self, words: str, y: float = 0.12, size: float = 16, kind: str = "muted", va: str = "bottom", **looks) -> float:
        """A remark over the slide's width, on the lines it needs above y, or below it (``va`` "top"); returns where it ends."""
        (at, ha), bold = self.begin, looks.get("weight") == "bold"
        lines = wrapped(self.language.say(words), size * self.letters, RIGHT - LEFT, bold)
        self.verbatim(at, y, "\n".join(lines), size, kind, ha=ha, va=va, linespacing=1.2, **looks)
        return y + self.line * size / 16 * len(lines) * (1 if va == "bottom" else -1)

    def text(self, x: float, y: float, words: str, size: float = 17, kind: str = "ink", ha="left", va="center", **more):
        """Words at a place; ``kind`` is a colour's name, or a colour. Returns the text."""
        return self.verbatim(x, y, self.language.say(words), size, kind, ha, va, **more)

    def math(self, x: float, y: float, formula: str, kind: str = "ink", ha="center", size: float = 21):
        """A formula between dollars."""
        return self.verbatim(x, y, formula, size, kind, ha=ha, parse_math=True)

    def verbatim(self, x: float, y: float, words: str, size: float = 17, kind: str = "ink", ha="left", va="center", **more):
        """Words of a text that a model read or wrote, or such as are said already: no language is theirs."""
        more.setdefault("parse_math", False)  # a dollar is a dollar
        text = self.ax.text(x, y, words, fontsize=size * self.scale * self.letters, ha=ha, va=va, color=_shade(kind), **more)
        text.said = True
        return text

    def lines(self, x: float, y: float, *lines: tuple, ha: str = "left", down: float = 1.45) -> None:
        """Lines one below the other, their middle at y; each (words, size, kind, weight), of which the last two may be left
        out."""
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

    def cut(self, name: str, size: float, room: float, bold: bool = False) -> str:
        """A name, cut with an ellipsis where it is wider than ``room`` units."""
        return fitted(name, size * self.letters, room, bold)

    def legend(self, x: float, y: float, entries: list[tuple[str, str]], size: float = 16) -> float:
        """Coloured squares with words behind them: a row, or several above y where the slide ends. Returns the middle of the
        highest."""
        side, rows, at = 0.26 * self.letters, [[]], x
        for words, kind in entries:
            wide = self.width_of(words, size) + side + 0.12
            if rows[-1] and at + wide > RIGHT + 0.2:
                rows.append([])
                at = x
            rows[-1].append((at, words, kind))
            at += wide + 0.5
        for i, row in enumerate(reversed(rows)):
            for at, words, kind in row:
                middle = y + 0.42 * self.letters * i
                self.rectangle(at, middle - side / 2, side, side, kind)
                self.text(at + side + 0.12, middle, words, size)
        return y + 0.42 * self.letters * (len(rows) - 1)

    # Blocks and arrows.

    def box(
        self, x: float, y: float, w: float, h: float, words: str = "", kind: str = "hidden", size: float = 17,
        edge: str = "", fill: str = "", round: float = 0.12, linestyle="-", hatch: str = "", **more,
    ) -> Box:  # fmt: skip
        """A rounded block with its lower left corner at x, y, and words in its middle, smaller where there is no room for them;
        returns its place. ``fill`` and ``edge`` are both ``kind`` if they are not given."""
        from matplotlib.patches import FancyBboxPatch

        fill = _shade(fill or kind)
        style = f"round,pad=0,rounding_size={min(round, w / 2, h / 2)}"
        looks = dict(facecolor=fill, edgecolor=_shade(edge) if edge else fill, linestyle=linestyle, hatch=hatch or None)
        self.ax.add_patch(FancyBboxPatch((x, y), w, h, boxstyle=style, linewidth=1.6 * self.scale, **looks, **more))
        if words:
            said = self.language.say(words)
            widest = max(width_of(line, size * self.letters) for line in said.split("\n"))
            size *= min(1.0, (w - 0.1) / max(widest, 1e-9))
            self.verbatim(x + w / 2, y + h / 2, said, size, ink_on(fill), ha="center", linespacing=1.25)
        return Box(x, y, w, h)

    def rectangle(self, x: float, y: float, w: float, h: float, fill: str, edge: str = "none", linewidth: float = 1.0, **more):
        """A plain rectangle in slide units; returns its place."""
        from matplotlib.patches import Rectangle

        looks = dict(facecolor=_shade(fill), edgecolor=edge if edge == "none" else _shade(edge))
        self.ax.add_patch(Rectangle((x, y), w, h, linewidth=linewidth * self.scale, **looks, **more))
        return Box(x, y, w, h)

    def many(self, boxes: Sequence[Box], fills: Sequence[str], **looks) -> None:
        """Plain rectangles by the thousand, as one drawing."""
        from matplotlib.collections import PolyCollection

        corners = [[(x, y), (x + w, y), (x + w, y + h), (x, y + h)] for x, y, w, h in boxes]
        self.ax.add_collection(PolyCollection(corners, facecolors=[_shade(fill) for fill in fills], edgecolors="none", **looks))

    def texture(self, place: Box, shown, kind: str, zorder: float = 0.5) -> None:
        """Small squares where ``shown`` (rows, columns) says so, as one image: for more of them than shapes can be drawn."""
        from matplotlib.colors import to_rgb

        alpha = np.kron(shown, np.pad(np.ones((3, 3)), (0, 1)))  # a gap between them
        image = np.concatenate([np.broadcast_to(to_rgb(_shade(kind)), (*alpha.shape, 3)), alpha[..., None]], axis=-1)
        ax = self.plot(*place, frame=False, zorder=zorder)
        ax.imshow(image, aspect="auto", interpolation="antialiased")

    def squares(
        self, x: float, y: float, w: float, h: float, count: int, fills: Sequence[str], groups: int = 1, columns: int = 1
    ) -> list[Box]:  # fmt: skip
        """``count`` squares as large as there is room for, group by group in ``columns`` columns, with a small gap between;
        returns their places."""
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
        blocks = [(words, kind, height if kind else max(height, 1.35 * self.line)) for words, kind, height in blocks]
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

    def parts(self, low: float, high: float, *shares: float, tall: bool | None = None, gap: float = 0.5) -> list[Box]:
        """Frames for the parts of a picture, sized by ``shares``: side by side, or one below the other where it is ``tall``."""
        tall = self.tall if tall is None else tall
        room, frames, at = (high - low if tall else RIGHT - LEFT) - gap * (len(shares) - 1), [], 0.0
        for size in (room * share / sum(shares) for share in shares):
            frames.append(Box(LEFT, high - at - size, RIGHT - LEFT, size) if tall else Box(LEFT + at, low, size, high - low))
            at += size + gap
        return frames

    @property
    def tall(self) -> bool:
        """Whether two plots have more room one below the other."""
        return self.h > 12.5

    # Plots.

    def within(self, frame: Box, tick: str, names: Iterable[str] = (), ylabel: str = "", **settings):
        """Axes that fill a frame together with their numbers, up to ``tick`` wide, and names behind curves; ``ylabel`` stands
        above them: nobody in a hall tilts their head."""
        if ylabel:
            self.text(frame.x, frame.y + frame.h - 0.45 * self.line, ylabel, 16, "muted")
        x = frame.x + self.width_of(tick, 16) + 0.15
        y = frame.y + (2.35 if settings.get("xlabel") else 1.2) * self.line
        behind = self.width_of(names, 17, True) + 0.25
        high = frame.y + frame.h - y - (1.2 * self.line if ylabel else 0)
        return self.plot(x, y, frame.x + frame.w - behind - x, high, **settings)

    def plot(self, x: float, y: float, w: float, h: float, grid: str | None = None, frame: bool = True, **settings):
        """Axes whose inside has its lower left corner at x, y; ``grid`` is "x", "y" or "both". Without a ``frame`` they have no
        lines and no marks, only the words that are put to them."""
        ax = self.ax.inset_axes((x / 16, y / self.h, w / 16, h / self.h))
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
            ax.set_yticks(range(len(down)), [self.language.say(name) for name in down])
        return ax

    def bars(
        self, x: float, y: float, w: float, h: float, values: Sequence[float], names: Sequence[str], kinds: Sequence[str],
        words: Sequence[str] = (), bold: Sequence[bool] = (), most: float = 0.0, thick: float = 0.66, size: float = 17,
        give: bool = True,
    ):  # fmt: skip
        """Horizontal bars downwards in this order, names before and ``words`` behind them; ``most`` is the value that fills w.
        Where names or words need more room than there is beside x and w, the bars ``give`` way. Returns axes on which the
        places of the bars are 0, 1, …"""
        need, behind = self.width_of(names, size) + 0.25, self.width_of(words, size, True) + 0.3
        if give and (self.letters > 1 or self.language.words):
            right = min(x + w, RIGHT + 0.2 - behind)
            x = max(x, min(LEFT + need, 7.0))
            w = right - x
        size = min(size, h / (len(values) + 0.2) * 72 * WIDTH / 16 / 1.1 / self.letters)  # lines of words need room
        ax = self.plot(x, y, w, h, frame=False, xlim=(0, most or max(values)), ylim=(len(values) - 0.4, -0.6))
        ax.barh(range(len(values)), values, height=thick, color=[_shade(kind) for kind in kinds])
        ticks = [self.cut(self.language.say(name), size, x - LEFT - 0.1) for name in names]
        ax.set_yticks(range(len(names)), ticks, fontsize=size * self.scale * self.letters)
        for place, (value, said) in enumerate(zip(values, words, strict=False)):
            weight = "bold" if bold and bold[place] else "normal"
            self.label(ax, value, place, said, size, va="center_baseline", fontweight=weight)
        return ax

    def label(self, ax, x: float, y: float, words: str, size: float = 16, gap: float = 8, va: str = "center", **more):
        """Words ``gap`` typographic points to the right of a point of a plot, beyond its edge where need be."""
        place = dict(xytext=(gap * self.scale, 0), textcoords="offset points", annotation_clip=False)
        looks = {"va": va, "fontsize": size * self.scale * self.letters, "parse_math": False} | place | more
        text = ax.annotate(self.language.say(words), (x, y), **looks)
        text.said = True
        return text

    def curve(
        self, ax, xs: Sequence[float], ys: Sequence[float], words: str = "", kind: str = "ink", width: float = 3.0, marker="",
        linestyle="-", **looks,
    ):  # fmt: skip
        """A curve, and ``words`` that will stand behind its end: ``looks`` are theirs."""
        lines = dict(linewidth=width * self.scale, markersize=6 * self.scale, clip_on=False)
        ax.plot(xs, ys, color=_shade(kind), marker=marker, linestyle=linestyle, **lines)
        if words:
            self._ends.setdefault(ax, []).append((xs[-1], ys[-1], words, looks))

    def end_labels(self, ax, ends: Iterable[tuple[float, float, str, dict]], size: float = 17, gap: float = 10) -> None:
        """Words behind the ends (x, y) of curves, moved up and down until none lies on another; ``ax`` has its limits already.
        The dict is of the text's looks."""
        ax.get_ylim()  # matplotlib sets the limits when somebody asks
        to_share = ax.transScale + ax.transLimits  # data → share of the axes' height, logarithmic or not
        ends = sorted(((to_share.transform((x, y))[1], words, looks) for x, y, words, looks in ends), key=lambda e: -e[0])
        points_high = ax.get_position().height * self.figure.get_figheight() * 72
        high = 1.3 * size * self.scale * self.letters / points_high  # of a line of words
        shares = apart([min(share, 1.0) for share, *_ in ends], high)
        shares = [share - max(0.0, shares[0] - 1) for share in shares]  # none above the axes
        for i in reversed(range(len(shares))):  # none so low that it meets the numbers of the axis
            least = shares[i + 1] + high if i + 1 < len(shares) else 0.45 * high * (1 + ends[i][1].count("\n"))
            shares[i] = max(shares[i], least)
        where, edge = ax.get_xaxis_transform(), ax.get_xlim()[1]
        if far := any(abs(share - end[0]) > 0.6 * high for share, end in zip(shares, ends, strict=True)):
            gap += 12
        for share, (end, words, looks) in zip(shares, ends, strict=True):
            if far:  # a thin line leads from the curve to its name
                line = dict(arrowstyle="-", color=colour("muted"), linewidth=1.2 * self.scale, shrinkA=0, shrinkB=0)
                lead = ((gap - 3) * self.scale, (share - end) * points_high)
                ax.annotate("", (edge, end), lead, where, "offset points", arrowprops=line, annotation_clip=False)
            self.label(ax, edge, share, words, size, gap, xycoords=where, **looks)

    def powers_of_ten(self, axis, every: int = 1) -> None:
        """Ticks of a logarithmic axis at ``every`` so many powers; the letters are large, so that exponents can be read."""
        low, high = np.log10(axis.get_view_interval())
        exponents = range(every * int(np.ceil(low / every)), int(np.floor(high)) + 1, every)
        marks = [rf"$10^{{{e}}}$" for e in exponents]
        axis.set_ticks([10.0**e for e in exponents], marks, fontsize=19 * self.scale * self.letters)

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

    def finished(self, crowded: bool) -> None:
        """Says in the slide's language what matplotlib wrote, gives everything an id that tells its build and its words, and
        where it may be ``crowded`` makes those letters smaller that lie on others."""
        from matplotlib.text import Text

        for ax, ends in self._ends.items():
            self.end_labels(ax, ends)
        for plot in self.ax.child_axes:
            for axis in (plot.xaxis, plot.yaxis):
                axis.label.set_text(self.language.say(axis.label.get_text()))
            for text in plot.texts:
                if not getattr(text, "said", False):
                    text.set_text(self.language.say(text.get_text()))
        for build, artists in enumerate(self.builds()):
            for i, artist in enumerate(artists):
                words = artist.get_text() if isinstance(artist, Text) else type(artist).__name__
                artist.set_gid(f"step{build}-{i}-{re.sub('[^a-z0-9]+', '-', words.lower()).strip('-')[:40]}")
        if crowded:
            settle(self.figure, self.ax)


def _shade(kind: str) -> str:
    """A colour, by its name among the house colours or by its own."""
    return kind if kind == "none" or kind.startswith("#") else colour(kind)
