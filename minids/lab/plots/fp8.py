"""Pictures of notebook 10: the staircase of E4M3, what outliers and short sums cost, and four runs of training."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from minids.lab import notebook
from minids.lab.analysis.operands import Operand
from minids.lab.lessons.fp8 import NUMBERS, error_of_sums
from minids.ops import float8, quantise
from minids.ops.fp8_accumulation import Accumulator

Array = np.ndarray

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
    said = [
        f"{kind}s, up to {max(o.lost(None) for o in found if o.kind == kind):.0%} with one scale and "
        f"{max(o.lost((1, width)) for o in found if o.kind == kind):.0%} with tiles"
        for kind in ("input", "gradient")
    ]
    notebook.show(figure, f"What is set to 0: of {'; of '.join(said)}.")


class Outliers:
    """A matrix with a few outliers, made by ``matrix(size)``, and the error of all other numbers, for each tiling and size."""

    def __init__(
        self,
        matrix: Callable[[float], Array],
        sizes: Array,
        errors: Mapping[str, Sequence[float]],
        tiles: Mapping[str, tuple[int, int] | None],
    ):
        self.matrix, self.sizes, self.errors, self.tiles = matrix, sizes, errors, tiles
        self.finest = next(iter(tiles))

    def of(self, size: float = 1e6, coarse: str = "128 × 128") -> None:
        """Left: the error over all sizes. Right: what is set to 0 by outliers of one size."""
        figure, (left, right) = notebook.picture(1, 2, width=9, height=3.0, width_ratios=[1.2, 1])
        for (name, values), colour in zip(self.errors.items(), (BLUE, GREEN, ORANGE), strict=True):
            left.loglog(self.sizes, 100 * np.array(values), "o-", color=colour, label=name)
        left.axvline(size, color="0.5", ls=":")
        left.set(xlabel="size of the three outliers", ylabel="error of all other numbers, %", ylim=(1, 130))
        left.set_yticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
        left.minorticks_off()
        left.legend()
        planted = self.matrix(size)
        fine, rough = (quantise.rounded(planted, self.tiles[name]) == 0 for name in (self.finest, coarse))
        right.imshow(fine + 0.35 * (rough & ~fine), cmap="Blues", aspect="auto", vmin=0, vmax=1.4)
        right.set(xlabel="channel", ylabel="token", xticks=range(0, planted.shape[1], 128))
        right.set_title(f"set to 0: dark {self.finest}, pale {coarse}")
        right.grid(False)
        alt = "Left: with large tiles the error grows to 1, with small ones to a tenth. Right: what is set to 0."
        notebook.show(figure, alt)


def sums(bits: int = 14, promoted_every: int = 128) -> None:
    """Error of matrix products of numbers between 0 and 1, and of both signs, over the length of their sums."""
    lengths = 2 ** np.arange(7, 13)
    figure, axes = notebook.picture(1, 2, width=9, height=3.0, sharey=True)
    lines = {"never promoted": (None, ORANGE), f"promoted every {promoted_every}": (promoted_every, BLUE)}
    for axis, (title, numbers) in zip(axes, NUMBERS.items(), strict=True):
        for name, (interval, colour) in lines.items():
            off = [100 * error_of_sums(numbers, int(K), Accumulator(bits, interval)) for K in lengths]
            axis.plot(lengths, off, "o-", color=colour, label=name)
        axis.set_xscale("log", base=2)
        axis.set_xticks(lengths, [f"{K:,}" for K in lengths])
        axis.set(xlabel="K, products in a sum", title=f"{title}, {bits} bits", ylim=(0, None))
    axes[0].set(ylabel="largest error / largest result, %")
    axes[0].legend()
    notebook.show(figure, "Without promotion the error of positive sums grows with their length, to 7 %; with it, it stays.")


def runs(losses: Mapping[str, Array]) -> None:
    """Loss of every step of some runs, and how far each is from the first one, in per cent, smoothed."""
    figure, (left, right) = notebook.picture(1, 2, width=9, height=2.9)
    reference = next(iter(losses.values()))
    for (name, values), colour in zip(losses.items(), (BLACK, "0.6", BLUE, ORANGE), strict=True):
        left.plot(values, color=colour, label=name, lw=1.3)
        if values is not reference:
            right.plot(np.convolve(100 * (values / reference - 1), np.ones(7) / 7, "valid"), color=colour)
    left.set(xlabel="step", ylabel="nats per token", ylim=(0, None))
    left.legend()
    right.axhline(0, color="0.5", lw=1)
    right.set(xlabel="step", ylabel=f"difference to {next(iter(losses))}, %")
    notebook.show(
        figure,
        "Left: four loss curves fall together. Right: how far each is from the first, near 0 % at first, some per cent later.",
    )
