"""Figure 22: a training run, its loss, what held-out text costs, and what the model writes in the end."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from minids.errors import refuse
from minids.lab.figures.picture import Picture, Rows, column, only
from minids.lab.figures.slide import LEFT, Slide, fitted, width_of
from minids.lab.figures.style import WIDTH, colour, encoded, style, write_bytes
from minids.training.metrics import read_metrics

_SPARE = ("query", "rope", "value", "shared", "mtp")  # colours of domains other than the built-in three


def _rows(run: str | Path = "runs/tiny", samples: bool = True) -> Rows:
    """``run``: a run's folder; ``samples``: let the trained model go on writing held-out documents."""
    run = Path(run)
    rows = rows_of(read_metrics(run / "metrics.jsonl"))
    if not only(rows, group="loss"):
        raise refuse("run", str(run), "has not logged a loss yet; let it train for some steps")
    if samples:
        from minids.lab.figures.trained import Trained

        rows += Trained.open(run).samples()
    return rows


def rows_of(lines: Sequence[dict]) -> Rows:
    """The rows of a metrics file's lines."""
    rows: Rows = []
    for line in lines:
        if "main_loss" in line:
            losses = [line["main_loss"], *line["mtp_loss"]]
            rows += [{"group": "loss", "step": line["step"], "depth": k, "nats": loss} for k, loss in enumerate(losses)]
        for domain, found in line.get("validation", {}).items():
            bits = found["bits_per_byte"]
            rows.append({"group": "validation", "step": line["step"], "domain": domain, "bits_per_byte": bits})
    for depth in sorted({row["depth"] for row in rows if "depth" in row}):
        mine = only(rows, group="loss", depth=depth)
        for row, value in zip(mine, _smoothed(np.array(column(mine, "nats"))), strict=True):
            row["smoothed"] = float(value)
    return rows


def draw(run: Path) -> Path | None:
    """Draw the run in the folder ``run`` into ``run/loss.png``, without samples; its path, or None before the first loss."""
    if not any("main_loss" in line for line in read_metrics(run / "metrics.jsonl")):
        return None
    figure = training_run(run=run, samples=False)
    with style():
        return write_bytes(run / "loss.png", encoded(figure, "png"))


def domains_of(rows: Rows) -> list[str]:
    """The domains, the hardest last first."""
    last = {row["domain"]: row["bits_per_byte"] for row in only(rows, group="validation")}
    return sorted(last, key=lambda domain: -last[domain])


def domain_colours(domains: Sequence[str]) -> dict[str, str]:
    """The built-in domains have colours of their own; others get them in turn."""
    spare = iter(_SPARE * (1 + len(domains) // len(_SPARE)))
    return {d: colour(d) if d in ("prose", "code", "arithmetic") else colour(next(spare)) for d in domains}


def _draw(slide: Slide, rows: Rows) -> None:
    checks, domains = only(rows, group="validation"), domains_of(rows)
    shades = domain_colours(domains)
    steps = max(row["step"] for row in rows if "step" in row)
    ends = {d: only(checks, domain=d)[-1]["bits_per_byte"] for d in domains}
    shown = ", ".join(f"{ends[d]:.2f} ({fitted(d, 25, 4, bold=True)})" for d in domains[:3])
    top = slide.title(
        f"After {steps:,} steps, held-out text costs {shown} bits per byte",
        "Training losses averaged over up to nine entries of the log; pale: the next token's as they were",
    )
    texts = only(rows, group="sample")[:3]
    if texts:
        slide.text(LEFT, 2.38, "held-out beginnings in grey, and how the model goes on", 16, "muted")
    low = 3.75 if texts else 1.15
    high = top - 0.3
    _losses(slide, only(rows, group="loss"), low, high)
    ax = slide.plot(8.7, low, 4.25, high - low, grid="y", xlabel="step", ylabel="bits per byte")
    ax.set(xlim=(0, steps), ylim=(0, 1.04 * max(row["bits_per_byte"] for row in checks)))
    for domain, y in zip(domains, apart([ends[d] for d in domains], 0.09 * ax.get_ylim()[1] * 3.7 / (high - low)), strict=True):
        mine = only(checks, domain=domain)
        ax.plot(
            column(mine, "step"),
            column(mine, "bits_per_byte"),
            "o-",
            color=shades[domain],
            markersize=7 * slide.scale,
            clip_on=False,
        )
        ending = f" {ends[domain]:.2f}"
        name = fitted(domain, 17, 2.75 - width_of("0.00 ", 17, bold=True), bold=True)
        slide.label(ax, steps, y, name + ending, 17, 10, color=shades[domain], fontweight="bold")
    _whole_steps(ax)
    for i, row in enumerate(texts):
        _sample(slide, row, 0.55 + 5.1 * i, shades)


def _whole_steps(ax) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def _losses(slide: Slide, losses: Rows, low: float, high: float) -> None:
    ax = slide.plot(1.55, low, 4.8, high - low, grid="y", xlabel="step", ylabel="training loss, nats")
    _whole_steps(ax)
    depths = sorted({row["depth"] for row in losses})
    raw = only(losses, depth=0)
    ax.plot(column(raw, "step"), column(raw, "nats"), color=colour("faint"), linewidth=1.8 * slide.scale)
    ax.set(xlim=(0, max(column(losses, "step"))), ylim=(0, 1.04 * max(row["smoothed"] for row in losses)))
    ends = [only(losses, depth=k)[-1]["smoothed"] for k in depths]
    order = sorted(depths, key=lambda k: -ends[k])
    places = dict(zip(order, apart([ends[k] for k in order], 0.09 * ax.get_ylim()[1] * 3.7 / (high - low)), strict=True))
    for k in depths:
        mine = only(losses, depth=k)
        shade = colour("mtp") if k else colour("ink")
        ax.plot(column(mine, "step"), column(mine, "smoothed"), color=shade, linestyle=("-", "-", "--", ":")[min(k, 3)])
        slide.label(ax, mine[-1]["step"], places[k], f"MTP {k}" if k else "next", 17, 10, color=shade, fontweight="bold")


def apart(values: Sequence[float], least: float) -> list[float]:
    """Falling values moved as little as needed to stand at least ``least`` from one another: places for labels."""
    places = list(values)
    for _ in range(200):
        moved = False
        for i in range(len(places) - 1):
            short = least - (places[i] - places[i + 1])
            if short > 1e-9:
                places[i], places[i + 1] = places[i] + short / 2, places[i + 1] - short / 2
                moved = True
        if not moved:
            break
    return places


def _sample(slide: Slide, row: dict, x: float, shades: dict[str, str]) -> None:
    """A held-out beginning in grey, what the model makes of it in ink: letters of one width, line by line."""
    across, down, letter = 29, 4, 0.602 * 16 / 72 / WIDTH * 16  # letters of DejaVu Sans Mono are 0.602 of their size wide
    slide.text(x, 1.98, row["domain"], 16, shades.get(row["domain"], colour("ink")), weight="bold")
    given = len("".join(row["prompt"].split()))
    seen = 0  # letters that are no blanks
    for i, line in enumerate(textwrap.wrap(row["prompt"] + row["text"], across)[:down]):
        y, told = 1.58 - 0.38 * i, 0
        while told < len(line) and seen < given:
            seen += not line[told].isspace()
            told += 1
        slide.text(x, y, line[:told], 16, "muted", family="DejaVu Sans Mono")
        rest = line[told:].lstrip()
        slide.text(x + letter * (len(line) - len(rest)), y, rest, 16, family="DejaVu Sans Mono")


def _smoothed(values: np.ndarray, reach: int = 4) -> np.ndarray:
    """Mean over the neighbours on both sides, fewer at the ends: unlike a running average it does not lag behind."""
    last = len(values) - 1
    sides = [min(i, reach, last - i) for i in range(len(values))]
    return np.array([values[i - side : i + side + 1].mean() for i, side in enumerate(sides)])


training_run = Picture(
    22,
    "training_run",
    "The training run: loss of the next token and of the MTP module, bits per byte of held-out text, and what the model "
    "writes.",
    "Left: falling training losses, of the next token (pale as it was, strong averaged over up to nine entries) and of the "
    "multi-token-prediction module, averaged. Right: held-out bits per byte "
    "by domain, falling from eight. Below: the trained model continues a held-out beginning in each domain.",
    _rows,
    _draw,
    source="run",
)
