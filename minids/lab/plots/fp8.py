"""Notebook 10: the staircase of E4M3, and what one scale for a matrix costs in a trained model."""

from collections.abc import Sequence

import numpy as np

from minids.lab import notebook
from minids.lab.analysis.operands import Operand
from minids.ops import float8

BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, BLACK = notebook.COLOURS


def staircase() -> None:
    """Left: what numbers become. Right: how far off, in relation to the number."""
    x = np.geomspace(2.0**-11, 900, 3000)
    figure, (left, right) = notebook.picture(1, 2, width=9, height=2.7)
    near = x[(x > 8) & (x < 40)]
    left.plot(near, float8.rounded(near), color=BLUE)
    left.plot(near, near, color="0.7", lw=1)
    left.set(xlabel="y", ylabel="E4M3(y)", title="steps of 1, then of 2, then of 4")
    right.semilogx(x, np.abs(float8.rounded(x) - x) / x, color=BLUE, lw=0.8, base=2)
    right.axhline(1 / 16, color=ORANGE, ls="--")
    right.set(xlabel="y", ylabel="relative error", ylim=(0, 0.3), title="at most 1/16, between 2⁻⁶ and 448")
    alt = (
        "Left: steps double at powers of two. Right: relative error below one sixteenth in the normal range, more at both ends."
    )
    notebook.show(figure, alt)


def lost(found: Sequence[Operand], width: int = 128) -> None:
    """Of every operand: how far its largest number stands out, and what is set to 0 with one scale, and with tiles."""
    figure, axes = notebook.picture(1, 2, width=9, height=2.8, sharey=True)
    for axis, kind in zip(axes, ("input", "gradient"), strict=True):
        these = [o for o in found if o.kind == kind]
        for shape, colour, mark, label in ((None, ORANGE, "x", "one scale"), ((1, width), BLUE, "o", f"1 × {width}")):
            axis.plot([o.outlier for o in these], [100 * o.lost(shape) for o in these], mark, color=colour, ms=5, label=label)
        axis.set_xscale("log")
        axis.set(xlabel="largest number / median", title=f"{kind}s of linear layers")
    axes[0].set(ylabel="set to 0, %")
    axes[0].legend()
    notebook.show(
        figure, "Inputs: hardly anything is lost. Gradients: up to half of the numbers with one scale, far fewer with tiles."
    )
