"""Figure 21: pipeline schedules, simulated: who works when, and how long devices wait."""

from minids.lab.analysis.pipeline import USUAL, Times, simulate
from minids.lab.figures.picture import Picture, Rows, column, distinct, only
from minids.lab.figures.slide import LEFT, Slide
from minids.lab.figures.style import colour, ink_on

_COLOURS = {"F": "forward", "B": "backward", "I": "backward", "W": "weights"}
_SCHEDULES = ("1F1B", "ZB1P", "DualPipe")


def _rows(stages: int = 8, microbatches: int = 20, times: Times = USUAL, schedules: tuple[str, ...] = _SCHEDULES) -> Rows:
    """Every slot of every schedule: ``stages`` pipeline stages, ``microbatches`` in all, chunks that last ``times``."""
    rows: Rows = []
    for schedule in schedules:
        timeline = simulate(schedule, stages, microbatches, times)
        whole = {"F": times.forward, "B": times.backward, "W": times.weight, "F&B": times.overlapped}
        whole |= {"makespan": timeline.makespan, "bubble": timeline.bubble, "stages": stages, "microbatches": microbatches}
        rows += [{"schedule": schedule} | slot._asdict() | whole for slot in timeline.slots]
    return rows


def _draw(slide: Slide, rows: Rows) -> None:
    first = {row["schedule"]: row for row in reversed(rows)}
    schedules, one = distinct(rows, "schedule"), rows[0]
    waits = {name: row["bubble"] / row["makespan"] for name, row in first.items()}
    top = slide.title(
        f"{schedules[-1]} leaves a device idle {100 * waits[schedules[-1]]:.0f} % of the time, {schedules[0]} "
        f"{100 * waits[schedules[0]]:.0f} %",
        "simulated, no model",
        f"{one['stages']} stages, {one['microbatches']} micro-batches; F = {one['F']:g}, B = {one['B']:g}, W = {one['W']:g}, "
        f"overlapped pair {one['F&B']:g}; hatched: fed from the other end",
    )
    longest = max(row["makespan"] for row in first.values())
    height = (top - 1.25) / len(schedules)
    for i, (schedule, span, bubble) in enumerate((s, first[s]["makespan"], first[s]["bubble"]) for s in schedules):
        y, mine = top - 0.02 - height * (i + 1), only(rows, schedule=schedule)
        devices = 1 + max(column(mine, "device"))
        ax = slide.plot(2.9, y, 12.6, height - 0.3, frame=False, xlim=(0, longest), ylim=(devices - 0.5, -0.5))
        ax.barh(range(devices), span, 1.0, color=colour("ink"))
        for row in mine:
            _slot(ax, row, slide.scale)
        middle = y + (height - 0.3) / 2
        slide.text(LEFT, middle + 0.4, schedule, 19, weight="bold")
        slide.text(LEFT, middle, f"bubble {bubble:g}", 16)
        slide.text(LEFT, middle - 0.37, f"of {span:g}", 16)
    slide.arrow((2.9, 0.72), (4.3, 0.72))
    slide.text(4.45, 0.72, "time", 16, "muted")
    kinds = {"forward": "forward", "backward": "backward", "for the weights": "weights", "idle": "ink"}
    slide.legend(6.0, 0.72, list(kinds.items()))


def _slot(ax, row: dict, scale: float) -> None:
    """One chunk: full height, or half of it beside its overlapped partner; the second direction is hatched."""
    y, h = row["device"] - 0.5, 1.0
    if row["overlapped"]:
        h /= 2
        y += 0 if row["kind"] == "F" else h
    fill = colour(_COLOURS[row["kind"]])
    looks = dict(edgecolor=colour("background"), linewidth=0.7 * scale)
    if row["direction"]:
        looks = dict(edgecolor=ink_on(fill), linewidth=0.3 * scale, alpha=0.9, hatch="////")
    ax.barh(y + h / 2, row["end"] - row["start"], h, left=row["start"], color=fill, **looks)


pipeline_schedules = Picture(
    21,
    "pipeline_schedules",
    "Three pipeline schedules simulated on eight devices: 1F1B, the zero-bubble ZB1P, and DeepSeek's DualPipe.",
    "Three timelines, one row per device, forward chunks, backward chunks and weight-gradient chunks in three colours, idle "
    "time in that of the letters. In 1F1B idle triangles stand at both ends; in ZB1P they are smaller; in DualPipe, fed from"
    " both ends, little idle time remains and forward and backward run as overlapped pairs.",
    _rows,
    _draw,
)
