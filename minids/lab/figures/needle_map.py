"""Figure 28: whether a small model finds a fact again, by the length of the context and the fact's depth in it."""

import re

import numpy as np

from minids.lab.figures.picture import Rows, distinct, only, picture
from minids.lab.figures.slide import LEFT, RIGHT, Slide
from minids.lab.figures.style import colour, ink_on, sequential
from minids.lab.figures.words import size_of
from minids.lab.studies import long_context, results

MAPS = ((long_context.NONE, long_context.STAGES[0]), ("YaRN", long_context.STAGES[0]), ("YaRN", long_context.STAGES[1]))


def _rows(found: dict | None = None) -> Rows:
    """``found``: results of the study of long contexts, by default those kept with the package."""
    found = found or results("long-context")
    about = size_of(found["common"]["model"])
    rows: Rows = []
    for arm, stage in MAPS:
        for key, summary in found["arms"][arm]["summary"].items():
            if at := re.fullmatch(rf"{stage} needle (\d+) at ([\d.]+)", key):
                row = {"model": about, "arm": arm, "stage": stage, "length": int(at[1]), "depth": float(at[2])}
                rows.append(
                    row | {"found": summary["mean"], "trained_length": long_context.TRAINED, "seeds": len(found["seeds"])}
                )
    return rows


@picture(28, _rows, source="study long-context")
def needles(slide: Slide, rows: Rows) -> None:
    """Share of needles that a small model finds, by context and depth: without YaRN, with it, and tuned.

    Three maps, context length across and depth downwards. Without an extension the column of the length of training is
    dark; with YaRN more of it is; after tuning at the longer context nearly all of it.
    """
    from matplotlib.colors import to_hex

    longest, first = max(row["length"] for row in rows), rows[0]
    mean = {(a, s): np.mean([r["found"] for r in only(rows, arm=a, stage=s, length=longest)]) for a, s in MAPS}
    plain, zero, _ = (100 * mean[which] for which in MAPS)
    top = slide.title(
        f"At {longest / first['trained_length']:g} times the trained length {plain:.0f} % of the needles are found, "
        f"with YaRN {zero:.0f} %",
        f"a model of {first['model']}",
        f"Trained on {first['trained_length']} tokens; a fact said once is asked for at the end, one guess in eight is right",
    )
    line = slide.line
    names = {long_context.NONE: "no extension", "YaRN": "YaRN"}
    margin = 1.1 + 0.9 * line
    wide = (RIGHT - LEFT - margin - 0.8) / len(MAPS)
    low, high = 0.35 + 2.4 * line, top - 1.4 * line
    shades = sequential("rope")
    for i, (arm, stage) in enumerate(MAPS):
        mine = only(rows, arm=arm, stage=stage)
        lengths, depths = distinct(mine, "length"), distinct(mine, "depth")
        grid = np.array([[only(mine, length=n, depth=d)[0]["found"] for n in lengths] for d in depths])
        x = LEFT + margin + i * (wide + 0.4)
        down = [f"{100 * d:.0f} %" for d in depths] if i == 0 else ()
        ax = slide.heat(x, low, wide, high - low, grid, shades, 0, 1, [str(n) for n in lengths], down)
        words = names[arm] + (", tuned" if stage == long_context.STAGES[1] else "")
        slide.text(x + wide / 2, high + 0.6 * line, words, 19, ha="center", weight="bold")
        for (j, k), value in np.ndenumerate(np.where(grid < 0.995, grid, np.nan)):
            if np.isfinite(value):
                ax.text(k, j, f"{100 * value:.0f}", ha="center", va="center", color=ink_on(to_hex(shades(value))),
                        fontsize=16 * slide.scale * slide.letters)  # fmt: skip
        for edge in range(1, len(depths)):
            ax.axhline(edge - 0.5, color=colour("background"), linewidth=2 * slide.scale)
        for edge in range(1, len(lengths)):
            ax.axvline(edge - 0.5, color=colour("background"), linewidth=2 * slide.scale)
    slide.text(LEFT, high + 0.6 * line, "depth", 16, "muted")
    slide.text(LEFT + margin, 0.35 + 0.35 * line, "context in tokens; percentages found, empty: all", 16, "muted")
