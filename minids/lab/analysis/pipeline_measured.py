"""A pipeline that was executed, beside what the simulator makes of the same order.

    measured     the recording: every process by the clock, waiting, messages and busy neighbours included
    replayed     the order simulated with each action's own seconds of processor time: a core for every device, free messages
    simulated    the order simulated with the mean of each kind, as in the paper: all stages alike

Measured against replayed shows what messages and shared cores cost, replayed against simulated what unequal stages cost.
"""

from collections import defaultdict
from typing import NamedTuple

import numpy as np

from minids.lab.analysis.pipeline import Timeline, Times, simulate, timeline_of
from minids.parallel.pipeline_orders import Instruction
from minids.parallel.timeline import KINDS, Recording, Slot


class Compared(NamedTuple):
    measured: Timeline
    replayed: Timeline
    simulated: Timeline


def compared(recording: Recording) -> Compared:
    """All three, in seconds."""
    what = recording.schedule, recording.stages, recording.microbatches
    times = mean_times(recording)
    each: dict[tuple[int, str, int, int], float] = {}
    slots: list[list[Slot]] = [[] for _ in range(recording.devices)]
    for slot, busy in zip(recording.slots, recording.busy, strict=True):
        each[slot.device, slot.kind, slot.direction, slot.microbatch] = busy
        slots[slot.device].append(slot)

    def lasting(device: int, instruction: Instruction) -> float:
        return sum(each[device, *action] for action in instruction)

    return Compared(timeline_of(*what, times, slots), simulate(*what, times, lasting), simulate(*what, times))


def mean_times(recording: Recording) -> Times:
    """Mean processor seconds of F, B and W. Where a schedule has no B, or no W, it is made of, or half of, the others. A pair
    overlaps nothing here."""
    busy = defaultdict(list)
    for slot, seconds in zip(recording.slots, recording.busy, strict=True):
        busy[slot.kind].append(seconds)
    f, b, i, w = (float(np.mean(busy[kind])) if busy[kind] else 0.0 for kind in KINDS)
    backward = b or i + w
    weight = w or backward / 2
    return Times(f, max(backward, weight * (1 + 1e-9)), weight, f + backward)
