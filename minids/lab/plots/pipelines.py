"""Notebook 15: who works when in a pipeline, and what an overlapped pair saves."""

import numpy as np

from minids.lab import notebook
from minids.lab.analysis import pipeline

BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, BLACK = notebook.COLOURS
SHADES = {"F": SKY, "B": ORANGE, "I": YELLOW, "W": GREEN}
KINDS = ("forward", "backward", "its input part", "its weight part")
SCHEDULES = ("1F1B", "ZB1P", "DualPipe")


def timelines(stages: int = 4, microbatches: int = 10, overlapped: float = 3.0) -> None:
    """One row per device, one box per instruction; overlapped pairs are two half-height boxes. At least 2 · stages
    micro-batches: with fewer DualPipe is not filled."""
    from matplotlib.patches import Rectangle

    microbatches = max(microbatches, 2 * stages)
    times = pipeline.Times(overlapped=overlapped)
    figure, axes = notebook.picture(3, 1, width=10, height=1.6 + 1.1 * stages, sharex=True)
    for axis, schedule in zip(axes, SCHEDULES, strict=True):
        line = pipeline.simulate(schedule, stages, microbatches, times)
        for s in line.slots:
            half = s.overlapped
            bottom = s.device + (0.0 if half and s.kind == "F" else 0.4 if half else 0.0)
            place, height = [(s.start, s.end - s.start)], (bottom - 0.4, 0.4 if half else 0.8)
            axis.broken_barh(place, height, facecolor=SHADES[s.kind], edgecolor="white", lw=0.4)
        axis.set(ylim=(stages - 0.5, -0.5), yticks=range(stages), xlim=(0, None), ylabel="device")
        title = f"{schedule}: {line.makespan:g} units, of them a device waits {line.bubble:g}"
        axis.set_title(title, fontsize=11)
        axis.grid(False)
    axes[-1].set_xlabel(
        f"{microbatches} micro-batches; time in units of one forward chunk (F = W = 1, B = 2, F&B = {overlapped:g})"
    )
    handles = [Rectangle((0, 0), 1, 1, color=SHADES[kind]) for kind in "FBIW"]
    axes[0].legend(handles, KINDS, ncols=4, loc="lower right", bbox_to_anchor=(1, 1), frameon=False)
    notebook.show(
        figure, f"Timelines of 1F1B, ZB1P and DualPipe on {stages} devices; the white gaps shrink from the first to the last."
    )


def bubbles(stages: int = 16) -> None:
    """The bubble against the time of an overlapped pair."""
    share = np.linspace(2.0, 3.0, 11)
    figure, axis = notebook.picture(1, 1, width=8, height=2.8)
    times = [pipeline.Times(overlapped=s) for s in share]
    axis.plot(share, [pipeline.closed_form("DualPipe", stages, t).bubble for t in times], color=BLUE, label="DualPipe")
    for schedule, colour in (("1F1B", BLACK), ("ZB1P", ORANGE)):
        axis.axhline(pipeline.closed_form(schedule, stages).bubble, color=colour, label=schedule)
    axis.set(xlabel="time of an overlapped pair F&B (F + B = 3)", ylabel="bubble", ylim=(0, None))
    axis.set_title(f"{stages} stages")
    axis.legend(frameon=False)
    notebook.show(figure, "Bubble of DualPipe against the time of an overlapped pair, below ZB1P's and far below 1F1B's.")
