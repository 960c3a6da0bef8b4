"""Pictures of notebook 0: what the lines of a file are for, how a small model learns, and how its experts are loaded."""

from collections.abc import Mapping, Sequence

import numpy as np

from minids.lab import notebook

Array = np.ndarray


def learning(losses: Array, busiest: Array, guessing: float) -> None:
    """Losses (steps, 2) of the next byte and the one after it; MaxVio (steps, layers), the MTP module's last."""
    figure, (left, right) = notebook.picture(1, 2, width=9.4, height=3.3)
    left.plot(losses[:, 0], label="next byte")
    left.plot(losses[:, 1], label="the byte after it (MTP)")
    left.axhline(guessing, color="black", linewidth=0.9, linestyle=":")
    left.text(len(losses) - 1, guessing - 0.08, "guessing", ha="right", va="top")
    left.set(xlabel="step", ylabel="nats per byte", ylim=(0, 5.9))
    left.set_title("The losses")
    left.legend(loc="lower left")
    for layer, values in enumerate(busiest.T[:-1], start=1):
        right.plot(values, label=f"block {layer}")
    right.plot(busiest[:, -1], label="MTP module")
    right.set(xlabel="step", ylabel="MaxVio", ylim=(0, 3.1))
    right.set_title("Busiest expert, above the mean")
    right.legend(loc="upper right")
    alt = "Left: both losses fall from guessing. Right: the excess load of the busiest expert rises, then falls."
    notebook.show(figure, alt)


def parts(lines: Mapping[str, Sequence[int]]) -> None:
    """Lines of each part of ``pico.py``: (forward, backward, use, text)."""
    names, total = list(lines), sum(map(sum, lines.values()))
    figure, axes = notebook.picture(width=9.0, height=3.5)
    counts = np.array([lines[name] for name in names])  # (parts, 4)
    ends = np.cumsum(counts, axis=1)
    looks = (("C0", "forward"), ("C1", "backward"), ("C2", "training and use"), ("#BBBBBB", "text"))
    for way, (colour, label) in enumerate(looks):
        axes.barh(names, counts[:, way], left=ends[:, way] - counts[:, way], color=colour, height=0.7, label=label)
    for row, kinds in enumerate(counts):
        axes.text(ends[row, -1] + 1.5, row, " + ".join(str(n) for n in kinds if n), va="center", fontsize=9.5)
    axes.legend(loc="upper right")
    axes.set(xlabel="lines", xlim=(0, 1.12 * ends.max()))
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_title(f"{total} lines: one file with all of DeepSeek-V3")
    told = "; ".join(f"{name} {sum(lines[name])}" for name in names)
    notebook.show(figure, f"Lines of pico.py by part: {told}.")
