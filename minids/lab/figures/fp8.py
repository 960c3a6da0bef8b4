"""Figure 17: the numbers FP8 has, and what long sums of them cost by accumulator."""

import numpy as np

from minids.lab.figures.picture import Rows, column, distinct, only, picture
from minids.lab.figures.slide import LEFT, RIGHT, Slide
from minids.lab.figures.style import colour
from minids.lab.studies import fp8_errors
from minids.ops import float8

_FORMATS = {"E5M2": float8.E5M2, "E4M3": float8.E4M3, "E5M6": float8.E5M6}
_LENGTHS = (128, 512, 2048, 4096)


def _rows(lengths: tuple[int, ...] = _LENGTHS, seed: int = 0) -> Rows:
    """``lengths``: terms of a sum. Errors as in minids.lab.studies.fp8_errors."""
    rows: Rows = []
    for name, form in _FORMATS.items():
        values = float8.decode(np.arange(form.last + 1, dtype=form.dtype), form)
        rows += [{"group": "number", "format": name, "value": float(v)} for v in values if v > 0]
    rows += [{"group": "sum", **row} for row in fp8_errors.accumulation(lengths, seed, 8) if row["numbers"] == "positive"]
    return rows


@picture(17, _rows)
def fp8_numbers(slide: Slide, rows: Rows) -> None:
    """The numbers of FP8's formats, and the error of long sums of FP8 products by accumulator.

    Above, three strips of lines on a logarithmic number line: few for E5M2, more for E4M3 on a shorter stretch, dense for
    E5M6. Below, error of a sum against its length on logarithmic axes: it grows in a short accumulator and stays low if
    partial sums are promoted.
    """
    sums = only(rows, group="sum")
    longest = max(row["terms"] for row in sums)
    names = list(fp8_errors.ACCUMULATORS)
    worst = {name: only(sums, terms=longest, accumulator=name)[0]["max_relative"] for name in names}
    top = slide.title(
        f"A sum of {longest:,} FP8 products is {100 * worst[names[2]]:.1f} % wrong in 14 bits, "
        f"{100 * worst[names[1]]:.2f} % if promoted every 128",
        "random numbers, arithmetic",
        "Positive ones; V3's report has nearly 2 % for random matrices, without promotion",
    )
    numbers = only(rows, group="number")
    low, high = min(row["value"] for row in numbers) / 2, max(row["value"] for row in numbers) * 2
    line, strip = slide.line, 0.075 * (top - 0.5)
    right = RIGHT - slide.width_of("max 57,344", 16) - 0.15
    if top > 11.5 * line:  # else the letters are large and the slide flat
        slide.text(LEFT, top - 0.3, "every number that a format has is a line", 16, "muted")
        top -= line
    else:
        top += 0.3
    for i, name in enumerate(_FORMATS):
        y = top - 0.55 - (strip + 0.12) * i - strip / 2
        ax = slide.plot(2.4, y, right - 2.4, strip, frame=False, xscale="log", xlim=(low, high), ylim=(0, 1))
        mine = column(only(numbers, format=name), "value")
        ax.vlines(mine, 0.05, 0.95, color=colour("fp8"), linewidth=1.1 * slide.scale)
        ax.spines["bottom"].set_visible(True)
        ax.minorticks_off()
        ax.set_xticks([])
        slide.text(LEFT, y + strip / 2, name, 18, weight="bold")
        slide.text(right + 0.15, y + strip / 2, f"max {max(mine):,.0f}", 16)
    slide.powers_of_ten(ax.xaxis, 2)
    left, low = 1.3 + slide.width_of("0.001", 19), 0.3 + 2.4 * line
    right = RIGHT - slide.width_of(slide.language.say("kept in 14 bits"), 17) - 0.25
    ax = slide.plot(
        left, low, right - left, top - 0.43 - 3 * (strip + 0.12) - 1.6 * line - low, grid="y", xscale="log", yscale="log"
    )
    ax.set(xlabel="terms of a sum", ylabel="worst error, %")
    looks = (("float32", "muted", "o-"), ("promoted", "fp8", "o-"), ("kept in 14 bits", "ink", "o-"))
    curves = {name: only(sums, accumulator=name) for name in names}
    _curves(slide, ax, curves, "terms", "max_relative", dict(zip(names, looks, strict=True)))
    terms = distinct(sums, "terms")
    ax.set_xticks(terms, [f"{t:,}" for t in terms])
    if ax.get_position().height * slide.h < 1.2:  # flat, and the letters large
        ax.set_ylabel("")
        slide.powers_of_ten(ax.yaxis, 6)
    else:
        slide.powers_of_ten(ax.yaxis, 2)


def _curves(slide: Slide, ax, curves: dict[str, Rows], x: str, y: str, looks: dict[str, tuple[str, str, str]]) -> None:
    """Errors in percent, each curve with its words, kind and line."""
    ends = []
    for name, mine in curves.items():
        words, kind, line = looks[name]
        values = [max(100 * value, 1e-6) for value in column(mine, y)]
        ax.plot(column(mine, x), values, line, color=colour(kind), markersize=6 * slide.scale)
        ends.append((mine[-1][x], values[-1], words, {"color": colour(kind)}))
    ax.minorticks_off()
    slide.end_labels(ax, ends, 16, 8)
