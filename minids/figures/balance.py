"""Figures 11 and 12: the load of experts while a model trains, by balance strategy, and what evenness costs in loss."""

from __future__ import annotations

import io

import numpy as np

from minids.figures.picture import Picture, Rows, distinct, only
from minids.figures.slide import Slide
from minids.figures.style import colour, diverging, style
from minids.studies import base, results
from minids.studies.study import Job
from minids.studies.training import text, train
from minids.training.metrics import max_violation

STRATEGIES = {
    "no balancing": {"balance": "none"},
    "auxiliary loss": {"balance": "aux_loss", "seq_aux": False, "aux_loss_alpha": 0.1},
    "bias, as in V3": {"balance": "bias", "bias_update_speed": 0.01, "aux_loss_alpha": 0.0001},
}
"""What is compared; the speed of the bias is ten times V3's, for a run that is thousands of times shorter."""


def _rows_load(steps: int = 300, every: int = 5, seed: int = 0, strategies: dict[str, dict] | None = None) -> Rows:
    """Trains a small model of the studies once per strategy (name → settings of the configuration) for ``steps`` steps, and
    counts every ``every`` steps how many times its even share each expert of the first layer with experts got since."""
    rows: Rows = []
    for name, settings in (strategies or STRATEGIES).items():
        job = Job(name, seed, steps, ("builtin",))
        model_config, train_config = base.configs({"model": settings}, job)
        waiting: list[np.ndarray] = []

        def on_step(step, losses, model, name=name, waiting=waiting):
            waiting.append(losses.counts[0])
            if step % every == 0:
                counts = np.sum(waiting, axis=0)
                violation = float(max_violation(counts[None])[0])
                waiting.clear()
                rows.extend(
                    {"strategy": name, "step": step, "expert": e, "times_even": float(share), "max_vio": violation}
                    for e, share in enumerate(counts / counts.mean())
                )

        train(model_config, train_config, text(job.data), seed, on_step)
    return rows


def _grid(rows: Rows, strategy: str) -> np.ndarray:
    """(experts, times) load in even shares."""
    mine = only(rows, strategy=strategy)
    steps, experts = distinct(mine, "step"), distinct(mine, "expert")
    return np.array([row["times_even"] for row in mine]).reshape(len(steps), len(experts)).T


def _last_quarter(rows: Rows, strategy: str) -> float:
    """Load of the busiest expert over the last quarter, in even shares."""
    grid = _grid(rows, strategy)
    return float(grid[:, -max(1, grid.shape[1] // 4) :].mean(axis=1).max())


def _finding(rows: Rows) -> str:
    names = distinct(rows, "strategy")
    worst, best = _last_quarter(rows, names[0]), _last_quarter(rows, names[-1])
    return (
        f"In the end the busiest expert gets {worst:.1f} times its share with {names[0]}, {best:.1f} times with the {names[-1]}"
    )


def _draw_load(slide: Slide, rows: Rows) -> None:
    names = distinct(rows, "strategy")
    top = slide.title(_finding(rows), "One layer of a small model; red: more than an even share of the tokens, blue: less")
    step = (top - 1.05) / len(names)
    for i, name in enumerate(names):
        y = top - 0.1 - step * (i + 1)
        grid = _grid(rows, name)
        ax = slide.plot(4.1, y + 0.14, 9.9, step - 0.26)
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
        slide.text(14.2, y + step / 2 + 0.2, f"busiest {_last_quarter(rows, name):.1f}×", 16)
        slide.text(14.2, y + step / 2 - 0.18, f"idlest {_idlest(grid):.1f}×", 16)
    slide.text(9.05, 0.42, "step", 17, ha="center")
    slide.text(3.2, 0.42, "expert", 16, "muted")


def _idlest(grid: np.ndarray) -> float:
    return float(grid[:, -max(1, grid.shape[1] // 4) :].mean(axis=1).min())


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
    "Three strips over training steps, experts downwards. Without balancing strong red and blue bands appear and stay; with an "
    "auxiliary loss they are weaker; with the bias the strip turns pale after some steps. The animation shows the same as "
    "bars.",
    _rows_load,
    _draw_load,
    source="training",
    animate=_animate,
)


def _family(arm: str) -> str:
    """What an arm of the balance study is an example of."""
    if arm.startswith("bias"):
        return "bias and a loss" if "+" in arm else "bias"
    for words in ("batch", "sequence"):
        if arm.startswith(words):
            return f"loss per {words}"
    return "none" if arm == "none" else "auxiliary loss"


def _rows_dilemma(found: dict | None = None) -> Rows:
    """``found``: results of the balance study, by default those kept with the package."""
    found = found or results("balance")
    rows: Rows = []
    for arm, held in found["arms"].items():
        numbers = held["summary"]
        if not {"loss", "max_vio"} <= numbers.keys():
            continue  # every run of it failed
        rows.append(
            {
                "arm": arm,
                "family": _family(arm),
                "max_vio": numbers["max_vio"]["mean"],
                "max_vio_spread": numbers["max_vio"]["spread"],
                "loss": numbers["loss"]["mean"],
                "loss_spread": numbers["loss"]["spread"],
                "seeds": len(found["seeds"]),
                "steps": found["steps"],
            }
        )
    return rows


_LOOKS = {
    "none": ("ink", "X"),
    "loss per batch": ("other2", "o"),
    "loss per sequence": ("code", "s"),
    "auxiliary loss": ("other2", "o"),
    "bias": ("routed", "D"),
    "bias and a loss": ("query", "P"),
}


def _draw_dilemma(slide: Slide, rows: Rows) -> None:
    biased = [row for row in rows if row["family"].startswith("bias")]
    losses = [row for row in rows if "loss per" in row["family"] or row["family"] == "auxiliary loss"]
    ours = min(biased, key=lambda row: row["max_vio"])
    theirs = min(losses, key=lambda row: abs(np.log(row["max_vio"] / ours["max_vio"])))
    top = slide.title(
        f"Balanced by its bias to MaxVio {ours['max_vio']:.2f}: loss {ours['loss']:.3f}; "
        f"by an auxiliary loss to {theirs['max_vio']:.2f}: {theirs['loss']:.3f}",
        f"Balance study: {rows[0]['steps']} steps, mean and spread of {rows[0]['seeds']} seeds; lower left is better",
    )
    ax = slide.plot(
        1.9, 1.2, 9.6, top - 1.55, grid="both", xscale="log", xlabel="MaxVio on held-out text", ylabel="held-out loss"
    )
    for family in distinct(rows, "family"):
        shade, mark = _LOOKS[family]
        mine = sorted(only(rows, family=family), key=lambda row: row["max_vio"])
        xs, ys = [row["max_vio"] for row in mine], [row["loss"] for row in mine]
        if "loss per" in family:
            ax.plot(xs, ys, color=colour(shade), linewidth=2 * slide.scale, alpha=0.6)
        ax.errorbar(
            xs,
            ys,
            [row["loss_spread"] for row in mine],
            [row["max_vio_spread"] for row in mine],
            fmt=mark,
            color=colour(shade),
            markersize=12 * slide.scale,
            elinewidth=1.5 * slide.scale,
            linestyle="none",
        )
    ax.minorticks_off()
    low, high = ax.get_xlim()
    ticks = [t for t in (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5) if low <= t <= high]
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    for i, family in enumerate(distinct(rows, "family")):
        shade, mark = _LOOKS[family]
        y = top - 0.8 - 0.62 * i
        slide.ax.plot([12.1], [y], mark, color=colour(shade), markersize=12 * slide.scale)
        slide.text(12.45, y, family, 17)


balance_dilemma = Picture(
    12,
    "balance_dilemma",
    "Held-out loss against the imbalance of experts for auxiliary losses of several weights, biases of several speeds, and "
    "neither.",
    "Points with error bars, loss upwards, imbalance to the right. Those of auxiliary losses lie on a curve: the more even "
    "the load, the "
    "higher the loss. Those of the bias lie below it at the left.",
    _rows_dilemma,
    _draw_dilemma,
    source="study balance",
)
