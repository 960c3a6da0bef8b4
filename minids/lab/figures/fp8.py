"""Figures 17 and 18: the numbers FP8 has, what it costs by granularity and by accumulator, and whether training notices."""

from __future__ import annotations

import numpy as np

from minids.lab.figures.picture import Picture, Rows, distinct, only
from minids.lab.figures.run_curves import apart
from minids.lab.figures.slide import Slide, powers_of_ten
from minids.lab.figures.style import colour
from minids.lab.studies import fp8_errors, results
from minids.ops import float8

_FORMATS = {"E5M2": float8.E5M2, "E4M3": float8.E4M3, "E5M6": float8.E5M6}
_MAGNITUDES = (1, 10, 100, 1e3, 1e4, 1e5, 1e6)
_LENGTHS = (128, 512, 2048, 4096)


def _rows_formats(magnitudes: tuple[float, ...] = _MAGNITUDES, lengths: tuple[int, ...] = _LENGTHS, seed: int = 0) -> Rows:
    """``magnitudes``: of planted outliers; ``lengths``: terms of a sum. Errors as in minids.lab.studies.fp8_errors."""
    rows: Rows = []
    for name, form in _FORMATS.items():
        values = float8.decode(np.arange(form.last + 1, dtype=form.dtype), form)
        rows += [{"group": "number", "format": name, "value": float(v)} for v in values if v > 0]
    rows += [{"group": "outliers", **row} for row in fp8_errors.outliers(magnitudes, seed)]
    rows += [{"group": "sum", **row} for row in fp8_errors.accumulation(lengths, seed, 8) if row["numbers"] == "positive"]
    return rows


def _draw_formats(slide: Slide, rows: Rows) -> None:
    outliers, sums = only(rows, group="outliers"), only(rows, group="sum")
    longest = max(row["terms"] for row in sums)
    names = list(fp8_errors.ACCUMULATORS)
    worst = {name: only(sums, terms=longest, accumulator=name)[0]["max_relative"] for name in names}
    top = slide.title(
        f"A sum of {longest:,} FP8 products is {100 * worst[names[2]]:.1f} % wrong in 14 bits, "
        f"{100 * worst[names[1]]:.2f} % if promoted every 128",
        "Positive numbers; each bar of the upper strip is one number that a format has",
    )
    numbers = only(rows, group="number")
    low, high = min(row["value"] for row in numbers) / 2, max(row["value"] for row in numbers) * 2
    strip = 0.52
    for i, name in enumerate(_FORMATS):
        y = top - 0.55 - (strip + 0.12) * i - strip / 2
        ax = slide.plot(2.4, y, 11.3, strip, xscale="log", xlim=(low, high), ylim=(0, 1), yticks=[])
        mine = [row["value"] for row in only(numbers, format=name)]
        ax.vlines(mine, 0.05, 0.95, color=colour("fp8"), linewidth=1.1 * slide.scale)
        ax.spines["left"].set_visible(False)
        ax.minorticks_off()
        ax.set_xticks([])
        slide.text(0.55, y + strip / 2, name, 18, weight="bold")
        slide.text(13.85, y + strip / 2, f"max {max(mine):,.0f}", 16)
    powers_of_ten(ax.xaxis, [e for e in range(-8, 6, 2) if low <= 10.0**e <= high], slide.scale)
    y, h = 1.2, top - 0.55 - 3 * (strip + 0.12) - 1.75
    left = slide.plot(2.0, y, 4.6, h, grid="y", xscale="log", xlabel="size of three outliers", ylabel="error, %")
    shades = {"1 × 128": ("fp8", "-"), "128 × 128": ("other1", "--"), "per tensor": ("ink", ":")}
    for name in distinct(outliers, "granularity"):
        mine = only(outliers, granularity=name)
        shade, line = shades[name]
        left.plot([r["magnitude"] for r in mine], [100 * r["error"] for r in mine], line, color=colour(shade))
        slide.label(left, mine[-1]["magnitude"], 100 * mine[-1]["error"], name, color=colour(shade))
    exponents = [int(np.floor(np.log10(r["magnitude"]))) for r in mine]
    powers_of_ten(left.xaxis, exponents[::2], slide.scale)
    right = slide.plot(10.0, y, 3.6, h, grid="y", xscale="log", yscale="log", xlabel="terms of a sum", ylabel="worst error, %")
    looks = dict(zip(names, (("other1", "float32"), ("fp8", "promoted"), ("ink", "never")), strict=True))
    for name in names:
        mine = only(sums, accumulator=name)
        shade, words = looks[name]
        values = [max(100 * r["max_relative"], 1e-6) for r in mine]
        right.plot([r["terms"] for r in mine], values, "o-", color=colour(shade), markersize=6 * slide.scale)
        slide.label(right, mine[-1]["terms"], values[-1], words, color=colour(shade))
    for ax in (left, right):
        ax.minorticks_off()
    terms = [r["terms"] for r in mine]
    right.set_xticks(terms[::2], [f"{t:,}" for t in terms[::2]])
    below, above = right.get_ylim()
    powers_of_ten(right.yaxis, [e for e in range(-8, 3) if below <= 10.0**e <= above][::2], slide.scale)


fp8_numbers = Picture(
    17,
    "fp8_numbers",
    "The numbers of FP8's formats, the error of quantised activations by granularity, and of long sums by accumulator.",
    "Above, three strips of bars on a logarithmic number line: few bars for E5M2, more for E4M3 on a shorter stretch, dense "
    "ones for E5M6. Below left, error against the size of outliers: with one scale per tensor it climbs to all, with fine "
    "tiles it stays small. Below right, error of a sum against its length: it grows in a short accumulator and stays low if "
    "partial sums are promoted.",
    _rows_formats,
    _draw_formats,
)


def _rows_training(found: dict | None = None) -> Rows:
    """``found``: results of the fp8 study, by default those kept with the package. Smoothed losses of each seed and their mean.

    relative: to float32's run of the same seed, or to the mean of its runs.
    """
    found = found or results("fp8")
    curves = {
        arm: {run["seed"]: _to_the_end(run) for run in held["runs"] if "curves" in run} for arm, held in found["arms"].items()
    }
    rows: Rows = []
    for arm, of_seed in curves.items():
        shared = [seed for seed in of_seed if seed in curves["fp32"]]
        for seed, chosen in [*((seed, [seed]) for seed in shared), ("mean", shared)]:
            if not chosen:
                continue
            losses, base = (np.mean([of[c]["smoothed"] for c in chosen], axis=0) for of in (of_seed, curves["fp32"]))
            rows += [
                {"arm": arm, "seed": seed, "step": step, "loss": float(loss), "relative": float(loss / other - 1)}
                for step, loss, other in zip(of_seed[chosen[0]]["step"], losses, base, strict=True)
            ]
    return rows


def _to_the_end(run: dict) -> dict:
    """The curves of a run, whose kept points are means of some steps each; the last one is the end itself instead."""
    curves = run["curves"]
    return curves | {"smoothed": [*curves["smoothed"][:-1], run["numbers"]["loss"]]}


_ARMS = {
    "fp32": ("ink", "-"),
    "fp8": ("fp8", "-"),
    "fp8 per tensor": ("ink", ":"),
    "fp8 without promotion": ("other1", "-."),
    "fp32 again": ("other2", "--"),
}
_WITH_SEEDS = ("fp8", "fp32 again")


def _draw_training(slide: Slide, rows: Rows) -> None:
    means = only(rows, seed="mean")
    arms = distinct(means, "arm")
    ends = {arm: only(means, arm=arm)[-1]["relative"] for arm in arms}
    steps = max(row["step"] for row in rows)
    seeds = [seed for seed in distinct(rows, "seed") if seed != "mean"]

    def farthest(arm: str) -> float:
        return max(abs(row["relative"]) for row in rows if row["arm"] == arm and row["step"] == steps)

    side = "below" if ends["fp8"] < 0 else "above"
    finding = f"After {steps:,} steps FP8's loss is {100 * abs(ends['fp8']):.2f} % {side} float32's"
    finding += f"; single seeds differ by up to {100 * farthest('fp8'):.1f} %"
    if "fp32 again" in ends:
        finding += f", and two runs in float32 by {100 * farthest('fp32 again'):.1f} %"
    top = slide.title(
        finding,
        f"Smoothed loss, mean of {len(seeds)} seeds; thin: single seeds; band: the 0.25 % of V3's report",
    )
    left = slide.plot(1.6, 1.2, 3.6, top - 1.6, grid="y", xlabel="step", ylabel="smoothed loss")
    right = slide.plot(7.2, 1.2, 5.4, top - 1.6, grid="y", xlabel="step", ylabel="above float32, %")
    right.axhspan(-0.25, 0.25, color=colour("panel"))
    late = steps // 4  # before, the loss falls too fast for a ratio to mean much
    order = sorted((arm for arm in arms if arm != "fp32"), key=lambda arm: -ends[arm])
    for arm in arms:
        mine = only(means, arm=arm)
        shade, line = _ARMS.get(arm, ("other1", "-"))
        left.plot([r["step"] for r in mine], [r["loss"] for r in mine], line, color=colour(shade))
        if arm == "fp32":
            continue
        for seed in seeds if arm in _WITH_SEEDS else ():
            tail = [r for r in rows if (r["arm"], r["seed"]) == (arm, seed) and r["step"] >= late]
            right.plot(
                [r["step"] for r in tail],
                [100 * r["relative"] for r in tail],
                line,
                color=colour(shade),
                linewidth=1.1 * slide.scale,
                alpha=0.6,
            )
        tail = [r for r in mine if r["step"] >= late]
        right.plot([r["step"] for r in tail], [100 * r["relative"] for r in tail], line, color=colour(shade))
    low, high = right.get_ylim()
    for arm, y in zip(order, apart([100 * ends[a] for a in order], (high - low) * 0.095), strict=True):
        shade, _ = _ARMS.get(arm, ("other1", "-"))
        words = arm.removeprefix("fp8 ") if arm != "fp8" else "fp8, fine tiles"
        slide.label(right, steps, y, words, color=colour(shade))
    left.set(xlim=(0, steps), xticks=(0, steps // 2, steps))
    right.set(xlim=(late, steps), xticks=(late, (late + steps) // 2, steps))


fp8_training = Picture(
    18,
    "fp8_training",
    "Smoothed training loss in float32 and in FP8, and how far from each other runs end that began alike.",
    "Left, loss curves that lie on one another. Right, their distance from float32 in percent, with the paper's quarter "
    "percent as a band. The means of the three ways to train in FP8 rise above float32 half way; a second run in float32 stays "
    "near it. Thin lines show single seeds.",
    _rows_training,
    _draw_training,
    source="study fp8",
)
