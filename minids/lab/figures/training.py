"""Figures 22 and 27: a training run here, its loss and what the model writes; and DeepSeek-V3's own, over 14.8T tokens."""

import textwrap
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path

import numpy as np

from minids.config import ModelConfig, TrainConfig
from minids.errors import refuse
from minids.files import write
from minids.lab.analysis.cost import V3_TOKENS
from minids.lab.figures.picture import LEFT, RIGHT, Box, Rows, Slide, column, distinct, only, picture, token_count
from minids.lab.figures.style import DOMAINS, MONO, colour, encoded, ink_on, style
from minids.lab.figures.trained import Trained, about
from minids.training.metrics import read_metrics
from minids.training.schedule import settings

_SPARE = ("query", "shared", "latent", "fp8", "backward")  # colours of domains other than the built-in three
PEAK, WARM_UP = 2.2e-4, 2000  # learning rate, and steps until it is reached (V3 report, section 4.2)
BATCH, FIRST_BATCH, RAMP = 15360, 3072, 469e9  # sequences a step, at first, and tokens until they are that many
CONTEXT = 4096
EXTENSIONS = ((32768, 1920, 1000), (131072, 480, 1000))  # context, batch and steps of each stage (section 4.3)
POINTS = 740  # every 20 billion tokens


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
        losses = [line["main_loss"], *line["mtp_loss"]] if "main_loss" in line else ()
        rows += [{"group": "loss", "step": line["step"], "depth": k, "nats": loss} for k, loss in enumerate(losses)]
        bits = {domain: found["bits_per_byte"] for domain, found in line.get("validation", {}).items()}
        rows += [{"group": "validation", "step": line["step"], "domain": d, "bits_per_byte": b} for d, b in bits.items()]
    for depth in distinct(rows, "depth"):
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
    checks, losses, line = only(rows, group="validation"), only(rows, group="loss"), slide.line
    ends = {row["domain"]: row["bits_per_byte"] for row in checks}
    domains = sorted(ends, key=lambda domain: -ends[domain])  # the hardest first
    shades, best, steps = domain_colours(domains), domains[-1], max(column([*checks, *losses], "step"))
    begin, digits = only(checks, domain=best)[0]["bits_per_byte"], 1 if ends[best] >= 1 else 2
    top = slide.headed(
        f"In {steps:,} steps a byte of held-out {slide.short(best)} falls from {begin:.1f} to {ends[best]:.{digits}f} bits",
        "Training losses averaged over up to nine entries of the log; pale: the next token's as they were",
    )
    # where large letters leave room for them
    texts = only(rows, group="sample")[:3] if top - (16 if slide.tall else 9.2) * line >= 2.2 else []
    foot = 0.3 + 6.4 * line if texts else 0.0
    frames = slide.parts(foot + 0.3, top - 0.1, 1, 1 if slide.tall else 1.25 * max(1, slide.letters))
    left = slide.within(frames[0], "0.0", ["MTP 1"], "training loss", grid="y", xlabel="step")
    raw = only(losses, depth=0)
    slide.curve(left, column(raw, "step"), column(raw, "nats"), kind="faint", width=1.8)
    for k in distinct(losses, "depth"):
        mine, kind = only(losses, depth=k), "mtp" if k else "ink"
        looks = dict(linestyle=("-", "-", "--", ":")[min(k, 3)], color=colour(kind), fontweight="bold")
        slide.curve(left, column(mine, "step"), column(mine, "smoothed"), f"MTP {k}" if k else "next", kind, **looks)
    names = {d: f"{slide.cut(d, 17, 2.2 * slide.letters, bold=True)} {ends[d]:.2f}" for d in domains}
    right = slide.within(frames[1], "0.0", names.values(), "bits per byte", grid="y", xlabel="step")
    for d in domains:
        mine, looks = only(checks, domain=d), dict(marker="o", color=shades[d], fontweight="bold")
        slide.curve(right, column(mine, "step"), column(mine, "bits_per_byte"), names[d], shades[d], **looks)
    for ax, highest in ((left, max(column(losses, "nats"))), (right, max(column(checks, "bits_per_byte")))):
        ax.set(xlim=(0, steps), ylim=(0, 1.04 * highest))
        ax.locator_params(axis="y", nbins=5, integer=True)
        places = [0, steps // 2, steps] if ax.get_position().width > 0.2 * slide.letters else [0, steps]
        ax.set_xticks(places, [slide.language.say(f"{step:,}") for step in places])
    if texts:
        slide.text(LEFT, foot - 0.4 * line, "held-out beginnings in grey, and how the model goes on", 16, "muted")
    for i, row in enumerate(texts):
        x, y = LEFT + 5.1 * i, foot - 1.5 * line
        slide.text(x, y, row["domain"], 16, shades[row["domain"]], weight="bold")
        given, text = len(" ".join(row["prompt"].split())), " ".join((row["prompt"] + row["text"]).split())
        for said in textwrap.wrap(text, int(4.8 / slide.mono(16)))[:4]:  # letters of one width, line by line
            y, told = y - 1.05 * line, max(0, min(given, len(said)))
            slide.verbatim(x, y, said[:told], 16, "muted", family=MONO)
            slide.verbatim(x + slide.mono(16) * told, y, said[told:], 16, family=MONO)
            given -= len(said) + 1


def _smoothed(values: np.ndarray, reach: int = 4) -> np.ndarray:
    """Mean over the neighbours on both sides, fewer at the ends: unlike a running average it does not lag behind."""
    last = len(values) - 1
    sides = [min(i, reach, last - i) for i in range(len(values))]
    return np.array([values[i - side : i + side + 1].mean() for i, side in enumerate(sides)])


def _rows_timeline(points: int = POINTS) -> Rows:
    """V3's schedule at ``points`` moments, by the functions that train here, and its two stages of context extension."""
    model, train = ModelConfig.preset("deepseek-v3"), TrainConfig(steps=points, learning_rate=PEAK, warmup_steps=0)
    rate_of_warm_up = WARM_UP * FIRST_BATCH * CONTEXT / V3_TOKENS  # share of the tokens: the batch is small at first
    rows: Rows = []
    for i in range(points + 1):
        at, tokens = settings(min(i, points - 1), model, train), V3_TOKENS * i / points
        batch = FIRST_BATCH + (BATCH - FIRST_BATCH) * min(1.0, tokens / RAMP)
        row = {"tokens": tokens, "learning_rate": at.learning_rate * min(1.0, i / points / rate_of_warm_up)}
        row |= {"mtp_weight": at.mtp_loss_weight, "bias_speed": at.bias_update_speed, "batch": batch}
        rows.append(row | {"context": CONTEXT, "stage": "pre-training"})
    end = V3_TOKENS
    for context, batch, steps in EXTENSIONS:
        used = context * batch * steps
        rows.append({"tokens": end, "context": context, "batch": batch, "stage": "extension", "stage_tokens": used})
        end += used
    return rows


@picture(27, _rows_timeline)
def v3_timeline(slide: Slide, rows: Rows) -> None:
    """DeepSeek-V3's training over 14.8 trillion tokens: learning rate, batch, weight of MTP, speed of the bias, context.

    Five lanes over one axis of tokens. The learning rate is a block that is flat to ten trillion and then falls like a wave
    to a tenth and a thirtieth; the batch grows at the very beginning; the weight of the MTP loss falls to a third at ten
    trillion; the speed of the bias falls to nothing at 14.3 trillion; the context is short throughout and grows in two
    steps behind the end.
    """
    trained, extensions = only(rows, stage="pre-training"), only(rows, stage="extension")
    first, end, grown, line = trained[0], trained[-1], extensions[-1]["context"], slide.line
    whole, stopped = end["tokens"], next(row["tokens"] for row in trained if not row["bias_speed"])
    decays = next(row["tokens"] for row in trained if row["mtp_weight"] < first["mtp_weight"])
    still = f"in the last {100 * (1 - stopped / whole):.0f} % the bias stands still"
    finding = f"{100 * decays / whole:.0f} % of the tokens are read at the full learning rate; {still}"
    subtitle = f"{whole / 1e12:g} trillion tokens in one run; the shape of the batch's ramp is not reported"
    top = slide.title(finding, "DeepSeek-V3, its report", subtitle)
    peak, least = (f"{rate:.1e}".replace("e-0", "e−") for rate in (PEAK, end["learning_rate"]))
    lanes = {  # column → its name, its kind, what it begins and what it ends with
        "learning_rate": ("learning rate", "query", peak, least),
        "batch": ("batch, sequences", "routed", f"{FIRST_BATCH:,} → {BATCH:,}", f"{BATCH:,}"),
        "mtp_weight": ("weight of MTP, λ", "mtp", f"{first['mtp_weight']:g}", f"{end['mtp_weight']:g}"),
        "bias_speed": ("speed of bias, γ", "rope", f"{first['bias_speed']:g}", f"{end['bias_speed']:g}"),
        "context": ("context, tokens", "latent", token_count(CONTEXT), token_count(grown)),
    }
    x, right = LEFT + slide.width_of([name for name, *_ in lanes.values()], 17, True) + 0.3, RIGHT - 1.35 * slide.letters
    extra = 0.09 * (right - x)  # for the extensions, which would be too thin to see: they are not to scale
    told = " and ".join(f"{row['stage_tokens'] / 1e9:.1f}B at {token_count(row['context'])}" for row in extensions)
    foot = slide.note(f"Then {told}, tokens of context extension (wider than to scale)")
    wide, low = right - x - extra, foot + 1.4 * line
    frame = Box(x, low, wide, top - 0.25 - low)
    for i, (key, (name, kind, begins, ends)) in enumerate(lanes.items()):
        _, y, _, step = frame.piece(i, len(lanes), across=False)
        high, longer = 0.62 * step, key == "context"
        slide.text(LEFT, y + high / 2, name, 17, weight="bold")
        most = 1.1 * (grown if longer else max(column(trained, key)))
        ax = slide.plot(x, y, wide, high, xlim=(0, whole), ylim=(0, most), xticks=[], yticks=[], zorder=0.5)
        ax.fill_between(column(trained, "tokens"), column(trained, key), color=colour(kind), linewidth=0)
        for j, row in enumerate(extensions if longer else ()):
            slide.rectangle(x + wide + 0.06 + j * extra / 2, y, extra / 2 - 0.06, high * row[key] / most, kind)
        slide.text(x + wide + extra * longer + 0.15, y + high / 2, ends, 16)
        inside, ink = (0.2 * high + 0.5 * line, "ink") if longer else (high / 2, ink_on(colour(kind)))
        slide.text(x + 0.15 + wide * RAMP / whole, y + inside, begins, 16, ink, weight="bold")
    slide.text(LEFT, low - 0.6 * line, "tokens", 16, "muted")
    for tokens, ha in ((0, "center"), (RAMP, ""), (decays, "center"), (stopped, "right"), (whole, "left")):
        at = x + wide * tokens / whole
        slide.arrow((at, low - 0.1), (at, top - 0.2), kind="faint", width=1.2, head=False)
        if ha:
            slide.text(at + 0.1 * (ha == "left"), low - 0.6 * line, f"{tokens / 1e12:.3g}T", 16, ha=ha)
