"""Figure 11: the load of every expert while a model trains, by balance strategy."""

import numpy as np

from minids.lab.figures.film import Film
from minids.lab.figures.picture import Rows, distinct, only, picture
from minids.lab.figures.slide import LEFT, RIGHT, Box, Slide
from minids.lab.figures.style import colour, diverging
from minids.lab.figures.words import size_of
from minids.lab.studies import load, results
from minids.lab.studies.base import MODEL

STRATEGIES = {load.NO: "no balancing", load.BATCH: "loss per batch", load.SEQUENCE: "loss per sequence", load.BIAS: "V3's bias"}
"""Arms of the load study and what the picture calls them. The speed of the bias is three times V3's, for a run that is many
thousand times shorter."""


def _rows_load(found: dict | None = None, layer: int = 0) -> Rows:
    """``found``: results of the load study, by default those kept with the package; the load of every expert of the MoE layer
    ``layer``, in even shares."""
    arms = {STRATEGIES.get(arm, arm): held["details"] for arm, held in (found or results("load"))["arms"].items()}
    about = f"{size_of(MODEL)}, {MODEL['n_routed_experts']} experts"
    return [
        {"strategy": name, "step": step, "expert": expert, "times_even": float(share), "max_vio": float(max(shares) - 1)}
        | {"model": about}
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
    """Loads of the idlest and of the busiest expert of each moment, averaged over the last quarter, in even shares. Not of each
    expert's average: a load that jumps from expert to expert would look even."""
    loads = grid[:, -max(1, grid.shape[1] // 4) :]  # (experts, moments)
    return float(loads.min(axis=0).mean()), float(loads.max(axis=0).mean())


def _finding(rows: Rows) -> str:
    names = distinct(rows, "strategy")
    worst, best = (_last_quarter(_grid(rows, name))[1] for name in (names[0], names[-1]))
    return f"In the end the busiest expert gets {worst:.1f} times its share with {names[0]}, {best:.1f} times with {names[-1]}"


def _draw_frame(slide: Slide, rows: Rows, at: int) -> None:
    """Loads of one moment as bars."""
    names, step = distinct(rows, "strategy"), distinct(rows, "step")[at]
    top = slide.title(_finding(rows), rows[0]["model"], f"Load of every expert, in even shares, after {step} steps")
    across = -(-len(names) // (2 if slide.tall else 1))
    frame, line, number = Box(LEFT, 0.3, RIGHT - LEFT, top - 0.3), slide.line, slide.width_of("4", 16)
    for i, name in enumerate(names):
        x, y, wide, high = frame.piece(i // across, len(names) // across, across=False).piece(i % across, across)
        grid, x, wide = _grid(rows, name), x + number, wide - number - 0.2
        ax = slide.plot(x, y + 1.9 * line, wide, high - 3.4 * line, ylim=(0, 4), xlim=(-0.7, len(grid) - 0.3))
        ax.bar(range(len(grid)), np.minimum(grid[:, at], 4), 0.8, color=colour("routed"))
        slide.level(ax, 1)
        ax.set_yticks([0, 1, 2, 3, 4] if i % across == 0 else [])
        ax.set_xticks([0, len(grid) - 1])
        slide.text(x + wide / 2, y + high - 0.75 * line, name, 18, ha="center", weight="bold")
    slide.text(8.0, 0.3 + 0.3 * line, "expert", ha="center")


def _moments(rows: Rows) -> list[tuple[int, int]]:
    """All moments one after another."""
    count = len(distinct(rows, "step"))
    return [(at, 3000 if at + 1 == count else 100) for at in range(count)]


@picture(11, _rows_load, source="study load", film=Film(_moments, _draw_frame))
def expert_load_in_training(slide: Slide, rows: Rows) -> None:
    """Load of the experts of one layer while a small model trains: without balancing, with an auxiliary loss, with V3's
    bias.

    Four strips over training steps, experts downwards. Without balancing strong red and blue bands appear and stay; with an
    auxiliary loss, over the batch or within sequences, the bands fade; so they do with the bias. The animation shows the
    same as bars.
    """
    names, last = distinct(rows, "strategy"), distinct(rows, "step")[-1]
    about = "One layer; full red: four times an even share or more, full blue: a quarter or less"
    top = slide.title(_finding(rows), rows[0]["model"], about) + 0.1
    line, left, low = slide.line, LEFT + 0.8 * slide.letters, 0.2 + 1.9 * slide.line
    step = (top - low) / len(names)
    for i, name in enumerate(names):
        y, grid, extent = top - step * (i + 1), _grid(rows, name), (0, last, rows[-1]["expert"] + 1, 0)
        shown = np.log2(np.maximum(grid, 1 / 8))
        ax = slide.heat(left, y, RIGHT - left, step - 1.45 * line, shown, diverging(), -2, 2, extent=extent)
        ax.set_yticks([0.5, len(grid) - 0.5], ["0", str(len(grid) - 1)])
        idlest, busiest = _last_quarter(grid)
        slide.text(left, y + step - 0.7 * line, name, 18, weight="bold")
        slide.text(RIGHT, y + step - 0.7 * line, f"busiest {busiest:.2f}×, idlest {idlest:.2f}×", 16, ha="right")
    ax.set_xticks([last // 3, 2 * last // 3, last])
    slide.text((left + RIGHT) / 2, 0.15 + 0.5 * line, "step", ha="center")
    slide.text(LEFT, 0.15 + 0.5 * line, "expert", 16, "muted")
