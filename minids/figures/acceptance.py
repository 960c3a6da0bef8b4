"""Figure 16: how often the MTP module's guess is what the model itself would have written, and what that is worth."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from minids.errors import refuse
from minids.figures.picture import Picture, Rows
from minids.figures.run_curves import domain_colours
from minids.figures.slide import Slide
from minids.figures.style import colour, ink_on
from minids.figures.trained import Trained


def _rows(run: str | Path = "runs/tiny", length: int = 256, windows: int = 8) -> Rows:
    """``run``: a run's folder; ``windows`` windows of ``length`` tokens of every domain's held-out text are read.

    At position i the module is shown the true t_{i+1} and guesses t_{i+2}; the guess is accepted where the main model, having
    read up to t_{i+1}, puts the same token first. A chain of guesses counts as long as all before were accepted.
    """
    trained = Trained.open(run)
    model = trained.model
    if not model.mtp:
        raise refuse("run", str(run), "its model has no MTP module, which this picture is about")
    rows: Rows = []
    for domain in trained.held_out.domains:
        tokens = trained.window(domain, length, windows)
        own = model.logits(tokens).argmax(-1)  # (B, T): what the model itself puts at i + 1
        good = np.ones((windows, length - len(model.mtp)), bool)
        right = float(np.mean(own[:, :-1] == tokens[:, 1:]))
        passes = 1.0
        for depth, logits in enumerate(model.mtp_logits(tokens), start=1):
            guess = logits.argmax(-1)[:, : good.shape[1]]
            good &= guess == own[:, depth : depth + good.shape[1]]
            passes += float(good.mean())
            rows.append(
                {
                    "domain": domain,
                    "depth": depth,
                    "accepted": float(good.mean()),
                    "tokens_per_pass": passes,
                    "main_model_right": right,
                    "positions": int(good.size),
                }
            )
    return rows


def _draw(slide: Slide, rows: Rows) -> None:
    last = {row["domain"]: row for row in rows}  # the deepest of each
    mean = float(np.mean([row["tokens_per_pass"] for row in last.values()]))
    first = [row["accepted"] for row in rows if row["depth"] == 1]
    top = slide.title(
        f"The MTP module guesses what the model would write in {100 * min(first):.0f} to {100 * max(first):.0f} % of cases: "
        f"{mean:.2f} tokens a pass",
        f"Trained model, greedy, {rows[0]['positions']:,} held-out positions a domain",
    )
    shades = domain_colours(list(last))
    ax = slide.plot(2.9, 1.2, 9.2, top - 1.6, grid="x")
    places = list(range(len(rows), 0, -1))
    for place, row in zip(places, rows, strict=True):
        ax.barh(place, 100 * row["accepted"], height=0.56, color=colour("mtp"))
        ax.plot([100 * row["main_model_right"]] * 2, [place - 0.4, place + 0.4], color=colour("ink"), linewidth=3 * slide.scale)
        ax.annotate(
            f"{100 * row['accepted']:.0f} %",
            (0, place),
            xytext=(14 * slide.scale, 0),
            textcoords="offset points",
            va="center_baseline",
            fontsize=19 * slide.scale,
            color=ink_on(colour("mtp")),
            fontweight="bold",
        )
    deep = len({row["depth"] for row in rows}) > 1
    ax.set(xlim=(0, 100), ylim=(0.4, len(rows) + 0.6), xlabel="guesses accepted, %  (line: next token of the text right)")
    ax.set_yticks(places, [row["domain"] + (f", {row['depth']}" if deep else "") for row in rows])
    ax.tick_params(axis="y", length=0, labelsize=18 * slide.scale)
    for label, row in zip(ax.get_yticklabels(), rows, strict=True):
        label.set_color(shades[row["domain"]])
    slide.text(13.9, top - 0.35, "tokens a pass", 18, ha="center", weight="bold")
    for place, row in zip(places, rows, strict=True):
        y = 1.2 + (top - 1.6) * (place - 0.4) / (len(rows) + 0.2)
        slide.text(13.9, y, f"{row['tokens_per_pass']:.2f}", 24, "mtp", ha="center", weight="bold")


guesses_accepted = Picture(
    16,
    "guesses_accepted",
    "Share of the MTP module's guesses that agree with the model's own choice, by domain, and tokens written per pass.",
    "One horizontal bar per domain, the percentage of guesses accepted, with a mark for how often the model itself is right; "
    "numbers "
    "beside it give the tokens per forward pass, between one and two.",
    _rows,
    _draw,
    source="run",
)
