"""Figure 17: the numbers FP8 has, and what it costs by granularity and by accumulator."""

import numpy as np

from minids.lab.figures.picture import Picture, Rows, column, distinct, only
from minids.lab.figures.slide import LEFT, Slide
from minids.lab.figures.style import colour
from minids.lab.studies import fp8_errors
from minids.ops import float8

_FORMATS = {"E5M2": float8.E5M2, "E4M3": float8.E4M3, "E5M6": float8.E5M6}
_MAGNITUDES = (1, 10, 100, 1e3, 1e4, 1e5, 1e6)
_LENGTHS = (128, 512, 2048, 4096)


def _rows(magnitudes: tuple[float, ...] = _MAGNITUDES, lengths: tuple[int, ...] = _LENGTHS, seed: int = 0) -> Rows:
    """``magnitudes``: of planted outliers; ``lengths``: terms of a sum. Errors as in minids.lab.studies.fp8_errors."""
    rows: Rows = []
    for name, form in _FORMATS.items():
        values = float8.decode(np.arange(form.last + 1, dtype=form.dtype), form)
        rows += [{"group": "number", "format": name, "value": float(v)} for v in values if v > 0]
    rows += [{"group": "outliers", **row} for row in fp8_errors.outliers(magnitudes, seed)]
    rows += [{"group": "sum", **row} for row in fp8_errors.accumulation(lengths, seed, 8) if row["numbers"] == "positive"]
    return rows


def _draw(slide: Slide, rows: Rows) -> None:
    outliers, sums = only(rows, group="outliers"), only(rows, group="sum")
    longest = max(row["terms"] for row in sums)
    names = list(fp8_errors.ACCUMULATORS)
    worst = {name: only(sums, terms=longest, accumulator=name)[0]["max_relative"] for name in names}
    top = slide.title(
        f"A sum of {longest:,} FP8 products is {100 * worst[names[2]]:.1f} % wrong in 14 bits, "
        f"{100 * worst[names[1]]:.2f} % if promoted every 128",
        "random numbers, arithmetic",
        "Positive ones; each bar of the upper strip is a number that a format has",
    )
    numbers = only(rows, group="number")
    low, high = min(row["value"] for row in numbers) / 2, max(row["value"] for row in numbers) * 2
    strip = 0.52
    for i, name in enumerate(_FORMATS):
        y = top - 0.55 - (strip + 0.12) * i - strip / 2
        ax = slide.plot(2.4, y, 11.3, strip, frame=False, xscale="log", xlim=(low, high), ylim=(0, 1))
        mine = column(only(numbers, format=name), "value")
        ax.vlines(mine, 0.05, 0.95, color=colour("fp8"), linewidth=1.1 * slide.scale)
        ax.spines["bottom"].set_visible(True)
        ax.minorticks_off()
        ax.set_xticks([])
        slide.text(LEFT, y + strip / 2, name, 18, weight="bold")
        slide.text(13.85, y + strip / 2, f"max {max(mine):,.0f}", 16)
    slide.powers_of_ten(ax.xaxis, 2)
    y, h = 1.2, top - 0.55 - 3 * (strip + 0.12) - 1.75
    left = slide.plot(2.0, y, 4.6, h, grid="y", xscale="log", xlabel="size of three outliers", ylabel="error, %")
    looks = {"1 × 128": ("fp8", "-"), "128 × 128": ("muted", "--"), "per tensor": ("ink", ":")}
    curves = {name: only(outliers, granularity=name) for name in distinct(outliers, "granularity")}
    _curves(slide, left, curves, "magnitude", "error", {name: (name, *look) for name, look in looks.items()})
    slide.powers_of_ten(left.xaxis, 2)
    right = slide.plot(10.0, y, 3.6, h, grid="y", xscale="log", yscale="log", xlabel="terms of a sum", ylabel="worst error, %")
    looks = (("float32", "muted", "o-"), ("promoted", "fp8", "o-"), ("never", "ink", "o-"))
    curves = {name: only(sums, accumulator=name) for name in names}
    _curves(slide, right, curves, "terms", "max_relative", dict(zip(names, looks, strict=True)))
    terms = distinct(sums, "terms")
    right.set_xticks(terms[::2], [f"{t:,}" for t in terms[::2]])
    slide.powers_of_ten(right.yaxis, 2)


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


fp8_numbers = Picture(
    17,
    "fp8_numbers",
    "The numbers of FP8's formats, the error of quantised activations by granularity, and of long sums by accumulator.",
    "Above, three strips of bars on a logarithmic number line: few bars for E5M2, more for E4M3 on a shorter stretch, dense "
    "ones for E5M6. Below left, error against the size of outliers: with one scale per tensor it climbs to all, with fine "
    "tiles it stays small. Below right, error of a sum against its length: it grows in a short accumulator and stays low if "
    "partial sums are promoted.",
    _rows,
    _draw,
)
