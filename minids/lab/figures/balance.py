"""Figures 11 and 12: the load of experts while a model trains, by balance strategy, and what evenness costs in loss."""

from __future__ import annotations

import io

import numpy as np

from minids.lab.figures.picture import Picture, Rows, distinct, only
from minids.lab.figures.slide import Slide
from minids.lab.figures.style import colour, diverging, style
from minids.lab.studies import load, results
from minids.lab.studies.compare import paired
from minids.lab.studies.study import Job, Summary

STRATEGIES = {
    load.NO: "no balancing",
    load.BATCH: "loss per batch",
    load.SEQUENCE: "loss per sequence",
    load.BIAS: "V3's bias",
}
"""Arms of the load study and what the picture calls them. The speed of the bias is three times V3's, for a run that is many
thousand times shorter."""


def _rows_load(
    found: dict | None = None, strategies: dict[str, dict] | None = None, steps: int = 300, seed: int = 0, layer: int = 0
) -> Rows:
    """``found``: results of the load study, by default those kept with the package; the load of every expert of the MoE layer
    ``layer``, in even shares. With ``strategies`` (name → settings of the configuration) small models are trained here instead,
    ``steps`` steps each."""
    if strategies is None:
        arms = {STRATEGIES.get(arm, arm): held["details"] for arm, held in (found or results("load"))["arms"].items()}
    else:
        arms = {name: load.run({"model": settings}, Job(name, seed, steps)).details for name, settings in strategies.items()}
    return [
        {
            "strategy": name,
            "step": step,
            "expert": expert,
            "times_even": float(share),
            "max_vio": float(max(shares) - 1),
        }
        for name, details in arms.items()
        for step, shares in zip(details["step"], details["relative_load"][layer], strict=True)
        for expert, share in enumerate(shares)
    ]


def _grid(rows: Rows, strategy: str) -> np.ndarray:
    """(experts, times) load in even shares."""
    mine = only(rows, strategy=strategy)
    steps, experts = distinct(mine, "step"), distinct(mine, "expert")
    return np.array([row["times_even"] for row in mine]).reshape(len(steps), len(experts)).T


def _last_quarter(grid: np.ndarray) -> tuple[float, float]:
    """Loads of the idlest and the busiest expert over the last quarter, in even shares."""
    loads = grid[:, -max(1, grid.shape[1] // 4) :].mean(axis=1)
    return float(loads.min()), float(loads.max())


def _finding(rows: Rows) -> str:
    names = distinct(rows, "strategy")
    worst, best = (_last_quarter(_grid(rows, name))[1] for name in (names[0], names[-1]))
    return f"In the end the busiest expert gets {worst:.1f} times its share with {names[0]}, {best:.1f} times with {names[-1]}"


def _draw_load(slide: Slide, rows: Rows) -> None:
    names = distinct(rows, "strategy")
    top = slide.title(
        _finding(rows), "One layer of a small model; full red: four times an even share or more, full blue: a quarter or less"
    )
    step = (top - 1.05) / len(names)
    for i, name in enumerate(names):
        y = top - 0.1 - step * (i + 1)
        grid = _grid(rows, name)
        ax = slide.plot(4.1, y + 0.14, 9.6, step - 0.26)
        last = distinct(rows, "step")[-1]
        shown = np.log2(np.maximum(grid, 1 / 8))
        ax.imshow(
            shown, cmap=diverging(), vmin=-2, vmax=2, aspect="auto", interpolation="nearest", extent=(0, last, len(grid), 0)
        )
        ax.set_yticks([0.5, len(grid) - 0.5], ["0", str(len(grid) - 1)])
        ax.tick_params(axis="y", length=0)
        if i + 1 < len(names):
            ax.set_xticks([])
        slide.text(0.55, y + step / 2 + 0.05, name, 18, weight="bold")
        idlest, busiest = _last_quarter(grid)
        slide.text(13.9, y + step / 2 + 0.2, f"busiest {busiest:.1f}×", 16)
        slide.text(13.9, y + step / 2 - 0.18, f"idlest {idlest:.1f}×", 16)
    slide.text(8.9, 0.42, "step", 17, ha="center")
    slide.text(3.2, 0.42, "expert", 16, "muted")


def _draw_frame(slide: Slide, rows: Rows, at: int) -> None:
    """Loads of one moment as bars."""
    names = distinct(rows, "strategy")
    step = distinct(rows, "step")[at]
    top = slide.title(_finding(rows), f"Load of every expert, in even shares, after {step} steps")
    wide = (14.9 - 0.5 * (len(names) - 1)) / len(names)
    for i, name in enumerate(names):
        grid = _grid(rows, name)
        ax = slide.plot(0.95 + (wide + 0.35) * i, 1.2, wide, top - 2.2, ylim=(0, 4), xlim=(-0.7, len(grid) - 0.3))
        ax.bar(range(len(grid)), np.minimum(grid[:, at], 4), 0.8, color=colour("routed"))
        ax.axhline(1, color=colour("ink"), linewidth=2 * slide.scale, linestyle=(0, (4, 2)))
        ax.set_yticks([0, 1, 2, 3, 4] if i == 0 else [])
        ax.set_xticks([0, len(grid) - 1])
        slide.text(0.95 + (wide + 0.35) * i + wide / 2, top - 0.6, name, 19, ha="center", weight="bold")
    slide.text(8.0, 0.4, "expert", 17, ha="center")


def _animate(rows: Rows, theme: str, dots: int = 75, milliseconds: int = 100) -> bytes:
    """All moments one after another as a GIF of 960 × 540 that starts again."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    frames = []
    for at in range(len(distinct(rows, "step"))):
        with style(theme):
            slide = Slide()
            _draw_frame(slide, rows, at)
            slide.figure.set_dpi(dots)
            canvas = FigureCanvasAgg(slide.figure)
            canvas.draw()
            image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
        palette = frames[0] if frames else None  # one palette for all: colours do not flicker
        frames.append(image.quantize(64, dither=Image.Dither.NONE, palette=palette))
    out = io.BytesIO()
    durations = [milliseconds] * (len(frames) - 1) + [3000]
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=False)
    return out.getvalue()


expert_load_in_training = Picture(
    11,
    "expert_load_in_training",
    "Load of the experts of one layer while a small model trains: without balancing, with an auxiliary loss, with V3's bias.",
    "Four strips over training steps, experts downwards. Without balancing strong red and blue bands appear and stay; with an "
    "auxiliary loss, over the batch or within sequences, the bands fade; so they do with the bias. The animation shows "
    "the same as bars.",
    _rows_load,
    _draw_load,
    source="study load",
    animate=_animate,
)


def _family(arm: str) -> str:
    """What an arm of the balance study is an example of."""
    if arm.startswith("bias"):
        return "bias and a loss" if "+" in arm else "bias"
    for words in ("batch", "sequence"):
        if arm.startswith(words):
            return f"loss per {words}"
    return arm


def _rows_dilemma(found: dict | None = None) -> Rows:
    """``found``: results of the balance study, by default those kept with the package. Seeds are paired: the same text in the
    same order, so that what a strategy costs is the difference from no balancing, seed by seed."""
    found = found or results("balance")
    none = found["arms"]["none"]["summary"]["loss"]
    rows: Rows = []
    for arm, held in found["arms"].items():
        numbers = held["summary"]
        if not {"loss", "max_vio"} <= numbers.keys() or len(numbers["loss"]["values"]) < len(none["values"]):
            continue  # some run of it failed
        cost = paired(Summary(**numbers["loss"]), Summary(**none))
        rows.append(
            {
                "arm": arm,
                "family": _family(arm),
                "max_vio": numbers["max_vio"]["mean"],
                "max_vio_spread": numbers["max_vio"]["spread"],
                "loss": numbers["loss"]["mean"],
                "cost": cost.mean,
                "cost_spread": cost.spread,
                "seeds": len(found["seeds"]),
                "steps": found["steps"],
            }
        )
    return rows


_LOOKS = {
    "none": ("ink", "X"),
    "loss per batch": ("other1", "o"),
    "loss per sequence": ("other3", "s"),
    "bias": ("routed", "D"),
    "bias and a loss": ("query", "P"),
}


def _draw_dilemma(slide: Slide, rows: Rows) -> None:
    none = only(rows, family="none")[0]
    ours = min((row for row in rows if row["family"].startswith("bias")), key=lambda row: row["max_vio"])
    theirs = min(
        (row for row in rows if row["family"].startswith("loss")), key=lambda row: abs(np.log(row["max_vio"] / ours["max_vio"]))
    )
    top = slide.title(
        f"A bias takes MaxVio from {none['max_vio']:.1f} to {ours['max_vio']:.2f} and the loss by "
        f"{_signed(ours)}, a loss as even by {_signed(theirs)}",
        f"Balance study: {none['steps']} steps; mean and spread of {none['seeds']} seeds, paired; lower left is better",
    )
    ax = slide.plot(
        2.2,
        1.2,
        9.3,
        top - 1.55,
        grid="both",
        xscale="log",
        xlabel="MaxVio on held-out text",
        ylabel="held-out loss − that of none",
    )
    ax.axhline(0, color=colour("ink"), linewidth=1.5 * slide.scale, linestyle=(0, (4, 2)))
    families = distinct(rows, "family")
    for family in families:
        shade, mark = _LOOKS[family]
        mine = only(rows, family=family)
        ax.errorbar(
            [row["max_vio"] for row in mine],
            [row["cost"] for row in mine],
            [row["cost_spread"] for row in mine],
            [row["max_vio_spread"] for row in mine],
            fmt=mark,
            color=colour(shade),
            markeredgecolor=colour("background"),
            markersize=14 * slide.scale,
            elinewidth=1.3 * slide.scale,
            linestyle="none",
            zorder=4 if family.startswith("bias") else 3,
        )
    ax.minorticks_off()
    low, high = ax.get_xlim()
    ticks = [t for t in (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5) if low <= t <= high]
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    for i, family in enumerate(families):
        shade, mark = _LOOKS[family]
        y = top - 0.6 - 0.62 * i
        slide.ax.plot([12.1], [y], mark, color=colour(shade), markersize=14 * slide.scale)
        slide.text(12.45, y, family, 17)


def _signed(row: dict) -> str:
    return f"{row['cost']:+.3f} ± {row['cost_spread']:.3f}".replace("-", "−")


balance_dilemma = Picture(
    12,
    "balance_dilemma",
    "What evenness costs in held-out loss, for auxiliary losses of several weights and biases of several speeds, against none.",
    "Points with error bars, change of the loss upwards, imbalance to the right on a logarithmic axis. No balancing stands "
    "alone at the far right; auxiliary losses and biases stand at the left, mostly within each other's error bars, the "
    "best biases lower than auxiliary losses that are as even.",
    _rows_dilemma,
    _draw_dilemma,
    source="study balance",
)
