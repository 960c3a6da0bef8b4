"""Figure 21: pipeline schedules, simulated: who works when, and how long devices wait."""

from pathlib import Path

from minids import files
from minids.lab.analysis.pipeline import Times, simulate
from minids.lab.analysis.pipeline_measured import compared
from minids.lab.figures.film import Film
from minids.lab.figures.picture import Rows, column, distinct, only, picture
from minids.lab.figures.slide import LEFT, RIGHT, Slide
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


def _of_each(rows: Rows, name: str) -> dict[str, float]:
    """Schedule → the value of a column that all of its slots share."""
    return {schedule: only(rows, schedule=schedule)[0][name] for schedule in distinct(rows, "schedule")}


def _draw_until(slide: Slide, rows: Rows, now: float) -> None:
    """What has happened by the time ``now``, at the cursor."""
    one, spans = rows[0], _of_each(rows, "makespan")
    ranked = sorted(spans, key=lambda name: spans[name])
    others = " and ".join(f"{name} after {spans[name]:g}" for name in ranked[1:])
    top = slide.title(
        f"{ranked[0]} is done after {spans[ranked[0]]:g}, {others}",
        "simulated, no model",
        f"{one['stages']} stages, {one['microbatches']} micro-batches; F = {one['F']:g}, B = {one['B']:g}, W = {one['W']:g}, "
        f"overlapped pair {one['F&B']:g}; hatched: fed from the other end",
    )
    _lanes(slide, rows, top, now)


def _lanes(slide: Slide, rows: Rows, top: float, now: float, unit: str = "") -> None:
    """A lane for each schedule, a row in it for each device, up to the time ``now``. With a ``unit`` each has its own scale."""
    spans, waits, line = _of_each(rows, "makespan"), _of_each(rows, "bubble"), slide.line
    ends = [f"{span:.3g}{unit}" if unit else f"done at {span:g}" for span in spans.values()]
    longest, left = max(spans.values()), LEFT + max(slide.width_of(spans, 19, True), slide.width_of(ends, 16)) + 0.2
    kinds = [("forward", "forward"), ("backward", "backward"), ("for the weights", "weights"), ("idle", "ink")]
    low = slide.legend(left, 0.35 * slide.letters, kinds) + 0.15 + 0.7 * line
    height = (top - low) / len(spans)
    for i, (schedule, span) in enumerate(spans.items()):
        y, mine = low + height * (len(spans) - 1 - i), [row for row in only(rows, schedule=schedule) if row["start"] < now]
        devices = 1 + max(column(only(rows, schedule=schedule), "device"))
        limits = dict(xlim=(0, span if unit else longest), ylim=(devices - 0.5, -0.5))
        ax = slide.plot(left, y, RIGHT - left, height - 0.25, frame=False, zorder=0.5, **limits)
        ax.barh(range(devices), min(span, now), 1.0, color=colour("ink"))
        for direction in distinct(mine, "direction"):
            _slots(ax, only(mine, direction=direction), now, slide.scale)
        bubble = f"idle {100 * waits[schedule] / span:.0f} %"
        so_far = f"{now:.1f} of {span:g}" if now < span else ends[i]
        words = [(schedule, 19, "ink", "bold"), (bubble, 16), (so_far, 16, "muted")]
        slide.lines(LEFT, y + (height - 0.25) / 2, *words[: 3 if height > 4.2 * line else 2])
        if now < longest:
            ax.axvline(now, color=colour("shared"), linewidth=4 * slide.scale)


def _slots(ax, rows: Rows, now: float, scale: float) -> None:
    """Chunks of one direction, up to the cursor: of full height, or half of it beside an overlapped partner."""
    from matplotlib.collections import PolyCollection

    corners, fills = [], []
    for row in rows:
        y, h = row["device"] - 0.5, 0.5 if row["overlapped"] else 1.0
        y += h if row["overlapped"] and row["kind"] != "F" else 0
        end = min(row["end"], now)
        corners.append([(row["start"], y), (end, y), (end, y + h), (row["start"], y + h)])
        fills.append(colour(_COLOURS[row["kind"]]))
    looks = dict(edgecolors=colour("background"), linewidths=0.7 * scale)
    if rows[0]["direction"]:
        looks = dict(edgecolors=ink_on(fills[0]), linewidths=0.3 * scale, hatch="////")
    ax.add_collection(PolyCollection(corners, facecolors=fills, **looks), autolim=False)


def measured_rows(recording: Recording) -> Rows:
    """Every slot of a recording and of its two simulations (``pipeline_measured``), in milliseconds."""
    rows: Rows = []
    facts = {"order": recording.schedule, "stages": recording.stages, "microbatches": recording.microbatches}
    facts |= {"processes": recording.processes, "cores": recording.cores, "model": recording.model}
    for name, timeline in compared(recording)._asdict().items():
        whole = {"schedule": name, "makespan": 1e3 * timeline.makespan, "bubble": 1e3 * timeline.bubble} | facts
        for slot in timeline.slots:
            rows.append(whole | slot._asdict() | {"start": 1e3 * slot.start, "end": 1e3 * slot.end})
    return rows


@picture(29, measured_rows, source="run, measured")
def pipeline_measured(slide: Slide, rows: Rows) -> None:
    """A pipeline schedule as it was executed, and what the simulator makes of the same order.

    Three timelines, one row per device: measured by the clock; replayed with each chunk's own processor time; simulated
    with the mean of each kind of chunk. Forward, backward and weight-gradient chunks in three colours, idle time in that of
    the letters.
    """
    one, spans = rows[0], _of_each(rows, "makespan")
    top = slide.title(
        f"{one['order']} took {spans['measured']:.3g} ms; with a core for each device it would be {spans['replayed']:.3g}",
        f"{one['model']}, measured",
        f"{one['stages']} stages, {one['microbatches']} micro-batches, cores for {one['processes']} processes: {one['cores']}; "
        "each on its own scale; hatched: fed from the other end",
    )
    _lanes(slide, rows, top, max(column(rows, "makespan")), " ms")


def write_measured(recording: Recording, path: Path) -> None:
    """A PNG of a recording."""
    files.write(path, encoded(pipeline_measured(recording=recording), "png"))


def _moments(rows: Rows) -> list[tuple[float, int]]:
    longest = max(column(rows, "makespan"))
    return [(longest * i / FRAMES, 2500 if i == FRAMES else 200) for i in range(1, FRAMES + 1)]


@picture(21, _rows, film=Film(_moments, _draw_until))
def pipeline_schedules(slide: Slide, rows: Rows) -> None:
    """Three pipeline schedules simulated on eight devices: 1F1B, the zero-bubble ZB1P, and DeepSeek's DualPipe.

    Three timelines, one row per device, forward chunks, backward chunks and weight-gradient chunks in three colours, idle
    time in that of the letters. In 1F1B idle triangles stand at both ends; in ZB1P they are smaller; in DualPipe, fed from
    both ends, forward and backward run as overlapped pairs and the end comes sooner. In the film a cursor runs over all.
    """
    _draw_until(slide, rows, max(column(rows, "makespan")))
