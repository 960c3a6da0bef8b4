"""Figure 22: a training run, its loss, what held-out text costs, and what the model writes in the end."""

import textwrap
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path

import numpy as np

from minids.errors import refuse
from minids.files import write
from minids.lab.figures.picture import Rows, column, distinct, only, picture
from minids.lab.figures.slide import LEFT, Slide
from minids.lab.figures.style import DOMAINS, WIDTH, colour, encoded, style
from minids.lab.figures.trained import Trained, about
from minids.training.metrics import read_metrics

_SPARE = ("query", "shared", "latent", "fp8", "backward")  # colours of domains other than the built-in three


def _rows(run: str | Path = "runs/tiny", samples: bool = True) -> Rows:
    """``run``: a run's folder; ``samples``: let the trained model go on writing held-out documents."""
    run = Path(run)
    rows = rows_of(read_metrics(run / "metrics.jsonl"))
    if not only(rows, group="loss"):
        raise refuse("run", str(run), "has not logged a loss yet; let it train for some steps")
    if samples:
        rows += Trained.open(run).samples()
    return [{"model": about(run), **row} for row in rows]


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
    """Draw the run in the folder ``run`` into ``run/loss.png``, without samples; its path, or None before the first loss and
    where there is nothing to draw with."""
    if find_spec("matplotlib") is None or not any("main_loss" in line for line in read_metrics(run / "metrics.jsonl")):
        return None
    figure = training_run(run=run, samples=False)
    with style():
        write(run / "loss.png", encoded(figure, "png"))
    return run / "loss.png"


def domains_of(rows: Rows) -> list[str]:
    """The domains, the hardest last first."""
    last = {row["domain"]: row["bits_per_byte"] for row in only(rows, group="validation")}
    return sorted(last, key=lambda domain: -last[domain])


def domain_colours(domains: Sequence[str]) -> dict[str, str]:
    """The built-in domains have colours of their own; others get them in turn."""
    spare = cycle(_SPARE)
    return {d: colour(DOMAINS[d] if d in DOMAINS else next(spare)) for d in domains}


@picture(22, _rows, source="run")
def training_run(slide: Slide, rows: Rows) -> None:
    """The training run: loss of the next token and of the MTP module, bits per byte of held-out text, and what the model
    writes.

    Left: falling training losses, of the next token (pale as it was, strong averaged over up to nine entries) and of the
    multi-token-prediction module, averaged. Right: held-out bits per byte by domain, falling from eight. Below: the trained
    model continues a held-out beginning in each domain.
    """
    checks, losses, domains = only(rows, group="validation"), only(rows, group="loss"), domains_of(rows)
    shades = domain_colours(domains)
    steps = max(row["step"] for row in [*checks, *losses])
    ends = {d: only(checks, domain=d)[-1]["bits_per_byte"] for d in domains}
    best, line = domains[-1], slide.line
    begin = only(checks, domain=best)[0]["bits_per_byte"]
    top = slide.title(
        f"In {steps:,} steps a byte of held-out {slide.short(best)} falls from {begin:.1f} to {ends[best]:.1f} bits",
        rows[0]["model"],
        "Training losses averaged over up to nine entries of the log; pale: the next token's as they were",
    )
    texts = only(rows, group="sample")[:3]
    if top - (16 if slide.tall else 9.2) * line < 2.2:
        texts = []  # large letters leave no room for them
    foot = 0.3 + 6.4 * line if texts else 0.0
    frames, curves = slide.parts(foot + 0.3, top - 0.1, 1, 1 if slide.tall else 1.25 * max(1, slide.letters)), []
    left = slide.within(frames[0], "0.0", ["MTP 1"], grid="y", xlabel="step", ylabel="training loss")
    raw = only(losses, depth=0)
    left.plot(column(raw, "step"), column(raw, "nats"), color=colour("faint"), linewidth=1.8 * slide.scale)
    for k in distinct(losses, "depth"):
        mine, shade = only(losses, depth=k), colour("mtp" if k else "ink")
        xs, ys = column(mine, "step"), column(mine, "smoothed")
        left.plot(xs, ys, color=shade, linestyle=("-", "-", "--", ":")[min(k, 3)])
        curves.append((xs[-1], ys[-1], f"MTP {k}" if k else "next", {"color": shade, "fontweight": "bold"}))
    _from_zero(slide, left, max(column(losses, "step")), max(column(losses, "smoothed")), curves)
    names = {d: f"{slide.cut(d, 17, 2.2 * slide.letters, bold=True)} {ends[d]:.2f}" for d in domains}
    right, curves = slide.within(frames[1], "0.0", names.values(), grid="y", xlabel="step", ylabel="bits per byte"), []
    for domain in domains:
        mine, shade = only(checks, domain=domain), shades[domain]
        looks = dict(color=shade, markersize=7 * slide.scale, clip_on=False)
        right.plot(column(mine, "step"), column(mine, "bits_per_byte"), "o-", **looks)
        curves.append((steps, ends[domain], names[domain], {"color": shade, "fontweight": "bold"}))
    _from_zero(slide, right, steps, max(column(checks, "bits_per_byte")), curves)
    if texts:
        slide.text(LEFT, foot - 0.4 * line, "held-out beginnings in grey, and how the model goes on", 16, "muted")
    for i, row in enumerate(texts):
        _sample(slide, row, LEFT + 5.1 * i, foot - 1.5 * line, shades)


def _from_zero(slide: Slide, ax, steps: int, highest: float, ends: list[tuple[float, float, str, dict]]) -> None:
    """Axes from zero to the last step and the highest number, whole steps, and names behind the curves."""
    from matplotlib.ticker import MaxNLocator

    ax.set(xlim=(0, steps), ylim=(0, 1.04 * highest))
    ax.xaxis.set_major_locator(MaxNLocator(4 if ax.get_position().width > 0.2 * slide.letters else 2, integer=True))
    slide.end_labels(ax, ends)


def _sample(slide: Slide, row: dict, x: float, y: float, shades: dict[str, str]) -> None:
    """A held-out beginning in grey, what the model makes of it in ink: letters of one width, line by line."""
    letter = 0.602 * 16 / 72 / WIDTH * 16 * slide.letters  # letters of DejaVu Sans Mono are 0.602 of their size wide
    slide.text(x, y, row["domain"], 16, shades.get(row["domain"], colour("ink")), weight="bold")
    given = len("".join(row["prompt"].split()))
    seen = 0  # letters that are no blanks
    for line in textwrap.wrap(row["prompt"] + row["text"], int(4.95 / letter))[:4]:
        y, told = y - 1.05 * slide.line, 0
        while told < len(line) and seen < given:
            seen += not line[told].isspace()
            told += 1
        slide.verbatim(x, y, line[:told], 16, "muted", family="DejaVu Sans Mono")
        rest = line[told:].lstrip()
        slide.verbatim(x + letter * (len(line) - len(rest)), y, rest, 16, family="DejaVu Sans Mono")


def _smoothed(values: np.ndarray, reach: int = 4) -> np.ndarray:
    """Mean over the neighbours on both sides, fewer at the ends: unlike a running average it does not lag behind."""
    last = len(values) - 1
    sides = [min(i, reach, last - i) for i in range(len(values))]
    return np.array([values[i - side : i + side + 1].mean() for i, side in enumerate(sides)])
