"""Figure 21: pipeline schedules, simulated: who works when, and how long devices wait."""

from math import inf
from pathlib import Path

from minids import files
from minids.lab.analysis.pipeline import Times, simulate
from minids.lab.analysis.pipeline_measured import compared
from minids.lab.figures.film import in_turn
from minids.lab.figures.picture import LEFT, RIGHT, Box, Film, Rows, Slide, column, distinct, only, picture
from minids.lab.figures.style import colour, encoded, ink_on
from minids.parallel.timeline import Recording

_COLOURS = {"F": "forward", "B": "backward", "I": "backward", "W": "weights"}
_SCHEDULES = ("1F1B", "ZB1P", "DualPipe")
HIDDEN = Times(overlapped=2.2)
"""V3's aim: half of a chunk is communication, which a pair hides in each other's computation. With 3, forward plus backward, a
pair hides nothing and DualPipe only fills the gaps as well as ZB1P does."""
FRAMES = 40


def _rows(stages: int = 8, microbatches: int = 20, times: Times = HIDDEN, schedules: tuple[str, ...] = _SCHEDULES) -> Rows:
    """Every slot of every schedule: ``stages`` pipeline stages, ``microbatches`` in all, chunks that last ``times``."""
    rows: Rows = []
    for schedule in schedules:
        timeline = simulate(schedule, stages, microbatches, times)
        whole = {"F": times.forward, "B": times.backward, "W": times.weight, "F&B": times.overlapped}
        whole |= {"makespan": timeline.makespan, "bubble": timeline.bubble, "stages": stages, "microbatches": microbatches}
        rows += [{"schedule": schedule} | slot._asdict() | whole for slot in timeline.slots]
    return rows


def _lanes(slide: Slide, rows: Rows, top: float, now: float, unit: str = "") -> None:
    """A lane for each schedule, a row in it for each device, up to the time ``now``. With a ``unit`` each has its own scale."""
    # all slots of a schedule share them
    spans, waits = ({row["schedule"]: row[name] for row in rows} for name in ("makespan", "bubble"))
    ends = [f"{span:.3g}{unit}" if unit else f"done at {span:g}" for span in spans.values()]
    line, longest = slide.line, max(spans.values())
    left = LEFT + max(slide.width_of(spans, 19, True), slide.width_of(ends, 16)) + 0.2
    kinds = [("forward", "forward"), ("backward", "backward"), ("for the weights", "weights"), ("idle", "ink")]
    low = slide.legend(left, 0.35 * slide.letters, kinds) + 0.15 + 0.7 * line
    frame, scale = Box(left, low, RIGHT - left, top - low), slide.scale
    for i, (schedule, span) in enumerate(spans.items()):
        (x, y, wide, height), mine = frame.piece(i, len(spans), across=False), only(rows, schedule=schedule)
        devices = 1 + max(column(mine, "device"))
        limits = dict(xlim=(0, span if unit else longest), ylim=(devices - 0.5, -0.5))
        ax = slide.plot(x, y, wide, height - 0.25, frame=False, zorder=0.5, **limits)
        ax.barh(range(devices), min(span, now), 1.0, color=colour("ink"))
        started = [row for row in mine if row["start"] < now]
        for direction in distinct(started, "direction"):
            slots = only(started, direction=direction)
            fills = [colour(_COLOURS[row["kind"]]) for row in slots]
            looks = dict(edgecolors=colour("background"), linewidths=0.7 * scale)
            if direction:
                looks = dict(edgecolors=ink_on(fills[0]), linewidths=0.3 * scale, hatch="////")
            slide.many([_place(row, now) for row in slots], fills, ax, **looks)
        so_far = f"{now:.1f} of {span:g}" if now < span else ends[i]
        words = [(schedule, 19, "ink", "bold"), (f"idle {100 * waits[schedule] / span:.0f} %", 16), (so_far, 16, "muted")]
        slide.lines(LEFT, y + (height - 0.25) / 2, *words[: 3 if height > 4.2 * line else 2])
        if now < longest:
            ax.axvline(now, color=colour("shared"), linewidth=4 * scale)


def _place(row: dict, now: float) -> Box:
    """Of a chunk, up to the cursor: of full height, or half of it beside an overlapped partner."""
    half = row["overlapped"]
    y = row["device"] - 0.5 + (0.5 if half and row["kind"] != "F" else 0)
    return Box(row["start"], y, min(row["end"], now) - row["start"], 0.5 if half else 1.0)


def measured_rows(recording: Recording) -> Rows:
    """Every slot of a recording and of its two simulations (``pipeline_measured``), in milliseconds."""
    facts = {"order": recording.schedule, "stages": recording.stages, "microbatches": recording.microbatches}
    facts |= {"processes": recording.processes, "cores": recording.cores, "model": recording.model}
    return [
        {"schedule": name, "makespan": 1e3 * timeline.makespan, "bubble": 1e3 * timeline.bubble}
        | {**facts, **slot._asdict(), "start": 1e3 * slot.start, "end": 1e3 * slot.end}
        for name, timeline in compared(recording)._asdict().items()
        for slot in timeline.slots
    ]


@picture(29, measured_rows, source="run, measured")
def pipeline_measured(slide: Slide, rows: Rows) -> None:
    """A pipeline schedule as it was executed, and what the simulator makes of the same order.

    Three timelines, one row per device: measured by the clock; replayed with each chunk's own processor time; simulated
    with the mean of each kind of chunk. Forward, backward and weight-gradient chunks in three colours, idle time in that of
    the letters.
    """
    one, spans = rows[0], {row["schedule"]: row["makespan"] for row in rows}
    cores = f"cores for {one['processes']} processes: {one['cores']}; each on its own scale"
    finding = f"{one['order']} took {spans['measured']:.3g} ms; with a core for each device it would be {spans['replayed']:.3g}"
    subtitle = f"{one['stages']} stages, {one['microbatches']} micro-batches, {cores}; hatched: fed from the other end"
    top = slide.title(finding, f"{one['model']}, measured", subtitle)
    _lanes(slide, rows, top, inf, " ms")


def write_measured(recording: Recording, path: Path) -> None:
    """A PNG of a recording."""
    files.write(path, encoded(pipeline_measured(recording=recording), "png"))


def _moments(rows: Rows) -> list[tuple[float, int]]:
    return in_turn([max(column(rows, "makespan")) * i / FRAMES for i in range(1, FRAMES + 1)], 200, 2500)


@picture(21, _rows, film=Film(_moments))
def pipeline_schedules(slide: Slide, rows: Rows, now: float = inf) -> None:
    """Three pipeline schedules simulated on eight devices: 1F1B, the zero-bubble ZB1P, and DeepSeek's DualPipe.

    Three timelines, one row per device, forward chunks, backward chunks and weight-gradient chunks in three colours, idle
    time in that of the letters. In 1F1B idle triangles stand at both ends; in ZB1P they are smaller; in DualPipe, fed from
    both ends, forward and backward run as overlapped pairs and the end comes sooner. In the film a cursor runs over all.
    """
    one, spans = rows[0], {row["schedule"]: row["makespan"] for row in rows}
    first, *others = sorted(spans, key=lambda name: spans[name])
    later = " and ".join(f"{name} after {spans[name]:g}" for name in others)
    times = f"F = {one['F']:g}, B = {one['B']:g}, W = {one['W']:g}, overlapped pair {one['F&B']:g}"
    finding = f"{first} is done after {spans[first]:g}, {later}"
    subtitle = f"{one['stages']} stages, {one['microbatches']} micro-batches; {times}; hatched: fed from the other end"
    top = slide.title(finding, "simulated, no model", subtitle)
    _lanes(slide, rows, top, now)
