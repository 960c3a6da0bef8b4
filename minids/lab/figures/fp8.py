"""Figure 17: the numbers FP8 has, and what long sums of them cost by accumulator."""

import numpy as np

from minids.lab.figures.picture import LEFT, RIGHT, Box, Rows, Slide, colour, column, distinct, only, picture
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
    return rows + [{"group": "sum", **row} for row in only(fp8_errors.accumulation(lengths, seed, 8), numbers="positive")]


@picture(17, _rows)
def fp8_numbers(slide: Slide, rows: Rows) -> None:
    """The numbers of FP8's formats, and the error of long sums of FP8 products by accumulator.

    Above, three strips of lines on a logarithmic number line: few for E5M2, more for E4M3 on a shorter stretch, dense for
    E5M6. Below, error of a sum against its length on logarithmic axes: it grows in a short accumulator and stays low if
    partial sums are promoted.
    """
    sums, numbers, names = only(rows, group="sum"), only(rows, group="number"), list(fp8_errors.ACCUMULATORS)
    longest = max(column(sums, "terms"))
    _, promoted, kept = (100 * only(sums, terms=longest, accumulator=name)[0]["max_relative"] for name in names)
    finding = f"A sum of {longest:,} FP8 products is {kept:.1f} % wrong in 14 bits, {promoted:.2f} % if promoted every 128"
    subtitle = "Positive ones; V3's report has nearly 2 % for random matrices, without promotion"
    top = slide.title(finding, "random numbers, arithmetic", subtitle)
    low, high = min(column(numbers, "value")) / 2, max(column(numbers, "value")) * 2
    line, strip = slide.line, 0.075 * (top - 0.5)
    right = RIGHT - slide.width_of("max 57,344", 16) - 0.15
    if top > 13 * line:  # else the letters are large and the slide flat
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
    frame = Box(LEFT, 0.3, RIGHT - LEFT, top - 0.73 - 3 * (strip + 0.12) - 1.5 * line)
    looks = (("float32", "muted"), ("promoted", "fp8"), ("kept in 14 bits", "ink"))
    said = dict(grid="y", xscale="log", yscale="log", xlabel="terms of a sum")
    ax = slide.within(frame, "10⁻²0", [words for words, _ in looks], "worst error, %", **said)
    for name, (words, kind) in zip(names, looks, strict=True):
        mine = only(sums, accumulator=name)
        errors = [max(100 * value, 1e-6) for value in column(mine, "max_relative")]
        slide.curve(ax, column(mine, "terms"), errors, words, kind, marker="o", color=colour(kind))
    ax.minorticks_off()
    terms = distinct(sums, "terms")
    ax.set_xticks(terms, [slide.language.say(f"{t:,}") for t in terms])
    slide.powers_of_ten(ax.yaxis, 6 if ax.get_position().height * slide.h < 1.2 else 2)
