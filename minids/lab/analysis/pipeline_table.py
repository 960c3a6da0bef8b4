"""A pipeline's timeline as text: a row per device, time to the right, a letter per chunk."""

import textwrap

from minids.lab.analysis.pipeline import Timeline, closed_form
from minids.terminal import room

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
