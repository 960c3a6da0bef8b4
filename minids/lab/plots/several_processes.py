"""Pictures of notebook 16: what ranks sent each other, when devices worked, and what copies of busy experts even out."""

from collections.abc import Mapping

import numpy as np

from minids.lab import notebook
from minids.lab.analysis.pipeline import Timeline
from minids.parallel import eplb

Array = np.ndarray

BLUE, ORANGE, GREEN, _, YELLOW, SKY, _ = notebook.COLOURS
SHADES = {"F": SKY, "B": ORANGE, "I": YELLOW, "W": GREEN}


def sent(tables: Mapping[str, Array]) -> None:
    """Bytes from each rank (row) to each other one (column), a table for each name."""
    figure, axes = notebook.picture(1, len(tables), width=10, height=3.3)
    most = max(table.max() for table in tables.values())
    for axis, (title, table) in zip(axes, tables.items(), strict=True):
        axis.imshow(table / 1e6, cmap="viridis", vmin=0, vmax=most / 1e6)
        for (sender, receiver), n in np.ndenumerate(table):
            ink = "black" if n > 0.6 * most else "white"
            axis.text(receiver, sender, f"{n / 1e6:.1f}" if n else "–", ha="center", va="center", color=ink)
        ranks = range(len(table))
        axis.set(title=f"{title}, MB", xlabel="to rank", ylabel="from rank", xticks=ranks, yticks=ranks)
        axis.grid(False)
    notebook.show(figure, "Three 4 × 4 tables of megabytes sent from rank to rank")


def timelines(found: Mapping[str, Timeline]) -> None:
    """When each device worked, one below another; half-height boxes are pairs that run as one."""
    figure, axes = notebook.picture(len(found), 1, width=10, height=1.9 * len(found))
    for axis, (name, timeline) in zip(axes, found.items(), strict=True):
        for s in timeline.slots:
            bottom = s.device + (0.4 if s.overlapped and s.kind != "F" else 0.0)
            place = [(1e3 * s.start, 1e3 * (s.end - s.start))]
            height = 0.4 if s.overlapped else 0.8
            axis.broken_barh(place, (bottom - 0.4, height), facecolor=SHADES[s.kind], edgecolor="white", lw=0.4)
        axis.set(ylim=(3.5, -0.5), yticks=range(4), xlim=(0, 1e3 * timeline.makespan), ylabel="device")
        axis.set_title(f"{name}: {1e3 * timeline.makespan:.0f} ms, idle {timeline.bubble_share:.0%}", fontsize=11)
        axis.grid(False)
    axes[-1].set_xlabel("ms; blue forward, orange backward, yellow its input part, green its weight part")
    notebook.show(figure, "DualPipe on four devices: measured, replayed and simulated timelines")


def redundant(load: Array, gpus: int = 4, spare: tuple[int, ...] = (0, 4, 8, 16, 32)) -> None:
    """Rows of each GPU with the experts dealt out in blocks and with copies; the busiest over the mean by copies. load (E,)."""
    before = load.reshape(gpus, -1).sum(axis=1)
    plans = {n: eplb.place(load[None], len(load) + n, gpus=gpus) for n in {*spare, gpus}}
    figure, (left, right) = notebook.picture(1, 2, width=10, height=3)
    left.bar(np.arange(gpus) - 0.2, before, 0.4, color=ORANGE, label="dealt out in blocks")
    left.bar(np.arange(gpus) + 0.2, plans[gpus].loads[0], 0.4, color=BLUE, label="one redundant expert each")
    left.set(xlabel="GPU", ylabel="rows", xticks=range(gpus), title="four experts and a copy on a GPU")
    left.legend()
    right.plot(spare, [plans[n].imbalance[0] for n in spare], color=BLUE, marker="o")
    right.set(xlabel="redundant experts", ylabel="busiest over mean", title="more copies, more even", ylim=(0.95, None))
    notebook.show(figure, "Load of four GPUs without and with copies; imbalance against redundant experts")
