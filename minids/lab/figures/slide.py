"""A slide to draw on: 16 units wide, ``h`` high (9 at 16:9), whatever its size in inches.

    slide = Slide()
    top = slide.title("MLA caches 57 times less", "DeepSeek-V3, arithmetic", "bytes of one token")
    a = slide.box(1, 2, 3, 1, "c_kv", "latent")              blocks, and arrows from side to side of them
    b = slide.box(1, 4, 3, 1, "k", "latent")
    slide.step("up-projection")                              what follows appears with the next build of the slide
    slide.arrow(a.above, b.below)
    ax = slide.plot(2, 1, 12, 6)                             ordinary axes somewhere on it
    slide.curve(ax, [0, 1024], [0, 7.5], "MLA", "latent")    curves with their names behind them, none on another
    slide.bars(frame, [3, 2], ["MHA", "MLA"], …)             horizontal bars with names before and words behind them
    slide.heat(2, 1, 9, 6, grid, colours, 0, 1)              a map of coloured cells
    slide.squares(2, 1, 9, 6, 256, fills, groups=8)          so many equal squares, in groups
    left, right = slide.parts(1, 7, 2, 1)                    frames, side by side or one below the other, and axes that
    ax = slide.within(left, "0.00", xlabel="step")           fill one together with their numbers and names

Where nothing else is said, places are in the slide's units and sizes in points.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np

from minids.lab.figures import mpl
from minids.lab.figures.canvas import Box, Canvas, shade_of
from minids.lab.figures.lettering import apart, settle, width_of, wrapped
from minids.lab.figures.style import WIDTH, colour, ink_on

LEFT, RIGHT = 0.55, 15.55  # where titles begin, and where they end at the latest
BOLD, THIN = dict(width=6.0, fontweight="bold"), dict(width=3.5)  # the curve that a picture is about, and the others


class Slide(Canvas):
    """A canvas with a title above and plots on it."""

    about = ""  # what the numbers of its picture are about

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

    def headed(self, finding: str, subtitle: str = "") -> float:
        """A title about what the numbers of the slide's picture are about."""
        return self.title(finding, self.about, subtitle)

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

    def note(self, words: str, y: float = 0.12, size: float = 16, kind: str = "muted", va: str = "bottom", **looks) -> float:
        """A remark over the slide's width, on the lines it needs above y, or below it (``va`` "top"); returns where it ends."""
        (at, ha), bold = self.begin, looks.get("weight") == "bold"
        lines = wrapped(self.language.say(words), size * self.letters, RIGHT - LEFT, bold)
        self.verbatim(at, y, "\n".join(lines), size, kind, ha=ha, va=va, linespacing=1.2, **looks)
        return y + self.line * size / 16 * len(lines) * (1 if va == "bottom" else -1)

    def legend(self, x: float, y: float, entries: list[tuple[str, str]], size: float = 16) -> float:
        """Coloured squares with words behind them, in as many rows as needed, upwards; returns the middle of the highest."""
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

    def parts(self, low: float, high: float, *shares: float, tall: bool | None = None, gap: float = 0.5) -> list[Box]:
        """Frames for the parts of a picture, sized by ``shares``: side by side, or one below the other where it is ``tall``."""
        tall = self.tall if tall is None else tall
        room, frames, at = (high - low if tall else RIGHT - LEFT) - gap * (len(shares) - 1), [], 0.0
        for size in (room * share / sum(shares) for share in shares):
            frames.append(Box(LEFT, high - at - size, RIGHT - LEFT, size) if tall else Box(LEFT + at, low, size, high - low))
            at += size + gap
        return frames

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
        self, frame: Box, values: Sequence[float], names: Sequence[str], kinds: Sequence[str], words: Sequence[str] = (),
        bold: Sequence[bool] = (), notes: Sequence[str] = (), most: float = 0.0, thick: float = 0.66, size: float = 17,
    ):  # fmt: skip
        """Horizontal bars downwards in a frame, in this order: names before them, ``words`` and quiet ``notes`` behind, the
        note of the longest in it. ``most`` is the value that fills the room. Returns axes on which their places are 0, 1, …"""
        size = min(size, frame.h / (len(values) + 0.2) * 72 * WIDTH / 16 / 1.1 / self.letters)  # lines of words need room
        x, longest = frame.x + min(self.width_of(names, size) + 0.25, 0.45 * frame.w), max(values)
        behind = [self.width_of(said, size, bold=True) + 0.3 for said in words] or [0.0] * len(values)
        room = [(frame.x + frame.w - x - taken) * longest / value for value, taken in zip(values, behind, strict=True) if value]
        limits = dict(xlim=(0, most or longest), ylim=(len(values) - 0.4, -0.6))
        ax = self.plot(x, frame.y, min(room), frame.h, frame=False, **limits)
        ax.barh(range(len(values)), values, height=thick, color=[shade_of(kind) for kind in kinds])
        ticks = [self.cut(self.language.say(name), size, x - frame.x - 0.1) for name in names]
        ax.set_yticks(range(len(names)), ticks, fontsize=size * self.scale * self.letters)
        for place, (value, said) in enumerate(zip(values, words, strict=False)):
            weight = "bold" if bold and bold[place] else "normal"
            self.label(ax, value, place, said, size, va="center_baseline", fontweight=weight)
        for place, (value, said) in enumerate(zip(values, notes, strict=False)):
            at = (0, 10) if value == longest else (value, 26 + 57.6 * self.width_of(words[place], size, bold=True))
            ink = ink_on(shade_of(kinds[place])) if value == longest else colour("muted")
            self.label(ax, at[0], place, said, size, at[1], "center_baseline", color=ink)
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
        ax.plot(xs, ys, color=shade_of(kind), marker=marker, linestyle=linestyle, **lines)
        if words:
            self._ends.setdefault(ax, []).append((xs[-1], ys[-1], words, looks))

    def level(self, ax, y: float) -> None:
        """A dashed line across a plot."""
        ax.axhline(y, color=colour("ink"), linewidth=2 * self.scale, linestyle=(0, (5, 3)))

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

    def finished(self, crowded: bool) -> None:
        """Says in the slide's language what matplotlib wrote, gives everything an id that tells its build and its words, and
        where it may be ``crowded`` makes those letters smaller that lie on others."""
        for ax, ends in self._ends.items():
            self.end_labels(ax, ends)
        for plot in self.ax.child_axes:
            for axis in (plot.xaxis, plot.yaxis):
                axis.label.set_text(self.language.say(axis.label.get_text()))
                if self.language.words and isinstance(numbers := axis.get_major_formatter(), mpl.ticker.ScalarFormatter):
                    low, high = sorted(axis.get_view_interval())
                    places = [at for at in axis.get_majorticklocs() if low <= at <= high]
                    axis.set_ticks(places, [self.language.say(number) for number in numbers.format_ticks(places)])
            for text in plot.texts:
                if not getattr(text, "said", False):
                    text.set_text(self.language.say(text.get_text()))
        for build, artists in enumerate(self.builds()):
            for i, artist in enumerate(artists):
                words = artist.get_text() if isinstance(artist, mpl.text.Text) else type(artist).__name__
                artist.set_gid(f"step{build}-{i}-{re.sub('[^a-z0-9]+', '-', words.lower()).strip('-')[:40]}")
        if crowded:
            settle(self.figure, self.ax)
