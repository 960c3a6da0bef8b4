"""Figure 21: pipeline schedules, simulated: who works when, and how long devices wait."""

from __future__ import annotations

from minids.lab.analysis.pipeline import USUAL, Times, simulate
from minids.lab.figures.picture import Picture, Rows, only
from minids.lab.figures.slide import Slide
from minids.lab.figures.style import colour, ink_on

_COLOURS = {"F": "forward", "B": "backward", "I": "backward", "W": "weights"}
_SCHEDULES = ("1F1B", "ZB1P", "DualPipe")


def _rows(stages: int = 8, microbatches: int = 20, times: Times = USUAL, schedules: tuple[str, ...] = _SCHEDULES) -> Rows:
    """Every slot of every schedule: ``stages`` pipeline stages, ``microbatches`` in all, chunks that last ``times``."""
    rows: Rows = []
    for schedule in schedules:
        timeline = simulate(schedule, stages, microbatches, times)
        for slot in timeline.slots:
            rows.append(
                {
                    "schedule": schedule,
                    "device": slot.device,
                    "start": slot.start,
                    "end": slot.end,
                    "kind": slot.kind,
                    "microbatch": slot.microbatch,
                    "direction": slot.direction,
                    "overlapped": slot.overlapped,
                    "makespan": timeline.makespan,
                    "bubble": timeline.bubble,
                    "stages": stages,
                    "microbatches": microbatches,
                }
            )
    return rows


def _draw(slide: Slide, rows: Rows) -> None:
    schedules = list(dict.fromkeys(row["schedule"] for row in rows))
    share = {s: (only(rows, schedule=s)[0]["bubble"], only(rows, schedule=s)[0]["makespan"]) for s in schedules}
    first, last = schedules[0], schedules[-1]
    waits = {s: bubble / span for s, (bubble, span) in share.items()}
    top = slide.title(
        f"{last} leaves a device idle {100 * waits[last]:.0f} % of the time, {first} {100 * waits[first]:.0f} %",
        f"{rows[0]['stages']} stages, {rows[0]['microbatches']} micro-batches; F = W = 1, B = 2, overlapped pair 3; hatched: "
        f"fed from the other end",
    )
    longest = max(span for _, span in share.values())
    height = (top - 1.25) / len(schedules)
    for i, schedule in enumerate(schedules):
        y = top - 0.2 - height * (i + 1) + 0.18
        ax = slide.plot(2.9, y, 12.6, height - 0.3)
        mine = only(rows, schedule=schedule)
        bubble, span = share[schedule]
        devices = 1 + max(row["device"] for row in mine)
        ax.add_patch(_patch(0, -0.5, span, devices, colour("panel")))
        for row in mine:
            _slot(ax, row, slide.scale)
        ax.set(xlim=(0, longest), ylim=(devices - 0.5, -0.5), xticks=[], yticks=[])
        for side in ("bottom", "left"):
            ax.spines[side].set_visible(False)
        middle = y + (height - 0.3) / 2
        slide.text(0.55, middle + 0.35, schedule, 19, weight="bold")
        slide.text(0.55, middle - 0.05, f"bubble {bubble:g}", 16)
        slide.text(0.55, middle - 0.42, f"of {span:g}", 16)
    slide.arrow((2.9, 0.72), (4.3, 0.72))
    slide.text(4.45, 0.72, "time", 16, "muted")
    slide.legend(
        6.0,
        0.72,
        [("forward", "forward"), ("backward", "backward"), ("for the weights", "weights"), ("idle", "panel")],
        gap=0.45,
    )


def _slot(ax, row: dict, scale: float) -> None:
    """One chunk: full height, or half of it beside its overlapped partner; the second direction is darker."""
    y, h = row["device"] - 0.46, 0.92
    if row["overlapped"]:
        h /= 2
        y += 0 if row["kind"] == "F" else h
    fill = colour(_COLOURS[row["kind"]])
    patch = _patch(row["start"], y, row["end"] - row["start"], h, fill)
    patch.set(edgecolor=colour("background"), linewidth=0.7 * scale)
    if row["direction"]:
        patch.set_hatch("////")
        patch.set(edgecolor=ink_on(fill), linewidth=0.3 * scale, alpha=0.9)
    ax.add_patch(patch)


def _patch(x, y, w, h, fill):
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), w, h, facecolor=fill)


pipeline_schedules = Picture(
    21,
    "pipeline_schedules",
    "Three pipeline schedules simulated on eight devices: 1F1B, the zero-bubble ZB1P, and DeepSeek's DualPipe.",
    "Three timelines, one row per device, forward chunks, backward chunks and weight-gradient chunks in three colours, idle "
    "time "
    "grey. In 1F1B grey triangles stand at both ends; in ZB1P they are smaller; in DualPipe, fed from both ends, hardly any "
    "grey "
    "remains and forward and backward run as overlapped pairs.",
    _rows,
    _draw,
)
