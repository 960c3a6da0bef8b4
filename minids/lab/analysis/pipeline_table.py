"""A pipeline's timeline as text: a row per device, time to the right, a letter per chunk."""

import textwrap

from minids.lab.analysis.pipeline import Timeline, closed_form
from minids.lab.analysis.pipeline_measured import compared
from minids.parallel.timeline import Recording
from minids.terminal import room
from minids.words import table

WIDTH = 121  # columns, at most
IDLE = "·"
LETTERS = "F forward,  B backward,  I backward for the input,  W for the weights,  X forward and backward overlapped,  · idle"


def format_timeline(timeline: Timeline) -> str:
    """The rows, what the letters mean, and bubble and activations beside the closed forms of DeepSeek-V3's Table 2."""
    form = closed_form(timeline.schedule, timeline.stages, timeline.times)
    shortest = min(slot.end - slot.start for slot in timeline.slots)
    step = max(shortest, timeline.makespan / (room(WIDTH) - 11))  # time of one column
    batches = f"{timeline.microbatches} micro-batch{'es' * (timeline.microbatches != 1)}"
    lines = [
        f"{timeline.schedule}, {timeline.stages} stages on {form.devices} devices, {batches}; one column is {step:.3g} of time",
        "",
    ]
    for device in range(len(timeline.idle)):
        lines.append(f"device {device:>2}  {_row(timeline, device, step)}")
    f, b, w, fb = timeline.times
    peak = max(timeline.peak_activations)
    lines += [
        "",
        *textwrap.wrap(LETTERS, room(WIDTH), break_on_hyphens=False),
        "",
        f"{'':<34}{'simulated':>10}   Table 2",
        f"{'bubble, F B W F&B = ' + f'{f:g} {b:g} {w:g} {fb:g}':<34}{timeline.bubble:>10g}   {form.bubble:g}",
        f"{'bubble, share of the step':<34}{timeline.bubble_share:>10.1%}",
        f"{'activations held, micro-batches':<34}{peak:>10}   {form.activations}",
        f"{'copies of the parameters':<34}{'':>10}   {form.parameters}",
    ]
    return "\n".join(lines)


def format_measured(recording: Recording) -> str:
    """A recording beside its two simulations: rows on one scale of time, and how long, how idle, how much held."""
    found = compared(recording)
    on_clock = found.measured.makespan / (room(WIDTH) - 11)
    alone = max(found.replayed.makespan, found.simulated.makespan) / (room(WIDTH) - 11)
    batches = f"{recording.microbatches} micro-batches of {recording.shape[0]} x {recording.shape[1]} tokens"
    cores = f"{recording.cores} core{'s' * (recording.cores > 1)}"
    where = f"{recording.processes} processes that share {cores}" if recording.processes > 1 else "1 process, devices by turns"
    lines = [f"{recording.schedule}, {recording.stages} stages, {batches}; {recording.model}; {where}"]
    for name, timeline in zip(found._fields, found, strict=True):
        step = on_clock if timeline is found.measured else alone
        lines += ["", f"{name}; one column is {1e3 * step:.3g} ms"]
        lines += [f"device {device:>2}  {_row(timeline, device, step)}" for device in range(len(timeline.idle))]
    letters = LETTERS.replace("X forward and backward overlapped", "X a pair, one after the other")
    f, b, w, _ = found.measured.times
    lines += ["", *textwrap.wrap(letters, room(WIDTH), break_on_hyphens=False), ""]
    lines += [f"mean processor time: F {1e3 * f:.3g}, B {1e3 * b:.3g}, W {1e3 * w:.3g} ms", ""]
    rows = [
        ("step, ms", *(f"{1e3 * timeline.makespan:.4g}" for timeline in found)),
        ("bubble, share of the step", *(f"{timeline.bubble_share:.1%}" for timeline in found)),
        ("activations held, micro-batches", *(max(timeline.peak_activations) for timeline in found)),
    ]
    return "\n".join([*lines, table(rows, ("", *found._fields))])


def _row(timeline: Timeline, device: int, step: float) -> str:
    """What the device does in the middle of each column."""
    slots = [slot for slot in timeline.slots if slot.device == device]
    row, at = [], 0
    for column in range(round(timeline.makespan / step)):
        middle = (column + 0.5) * step
        while at < len(slots) and slots[at].end <= middle:
            at += 1
        busy = at < len(slots) and slots[at].start <= middle
        row.append(("X" if slots[at].overlapped else slots[at].kind) if busy else IDLE)
    return "".join(row)
