"""Pipeline schedules, simulated: who works when, how long devices idle, how many activations they hold.

Every device runs its programme (``minids.parallel.pipeline_orders``) in order and starts each instruction as soon as its
inputs exist. Messages take no time. What comes out is compared with DeepSeek-V3's Table 2:

    method      bubble                          parameters   activations   devices
    1F1B        (PP − 1)(F + B)                 1×           PP            PP
    ZB1P        (PP − 1)(F + B − 2W)            1×           PP            PP
    DualPipe    (PP/2 − 1)(F&B + B − 3W)        2×           PP + 1        PP
    DualPipeV   (PP/2 − 1)(F&B + B − 3W)        2×           PP + 1        PP/2      (DualPipe repository, README)

F, B, W are the times of a forward, a full backward and the weight part of a backward chunk, F&B that of an overlapped pair;
B − W is the input part, I. With PP = 16 and F = W = 1, B = 2, F&B = 3 the bubbles are 45, 15 and 14.

Where simulation and closed form agree (found by simulating, and tested):

- 1F1B always. ZB1P with at least PP micro-batches if W ≤ F and W ≤ I; a longer W does not fit into the gaps, and the bubble is
  (PP − 1)·max(F, I).
- DualPipe and DualPipeV if W ≤ F = I, as where three products cost the same. If W ≤ I < F, every step waits for a forward where
  the formula has an input gradient: (PP/2 − 1)(F&B + F − 2W). If W ≤ F < I, it is min((PP/2 − 1)(I − F), F) less, because the
  innermost devices use the wait for their first gradient for a forward. If W is longer than F or I, the formula is an estimate.
- If F&B < F + B, DualPipe's outer devices idle less than the bubble: they overlap fewer pairs and so work longer.
- Every method holds as many activations as the table says, 1F1B on its first device only.
"""

from collections.abc import Callable
from typing import NamedTuple

from minids.errors import refuse
from minids.parallel.pipeline_orders import Action, Instruction, check, devices, orders
from minids.parallel.timeline import Slot


class Times(NamedTuple):
    """Duration of each kind of chunk, in any one unit; by default the ratio of FLOPs of three equal matrix products."""

    forward: float = 1.0  # F
    backward: float = 2.0  # B = I + W
    weight: float = 1.0  # W
    overlapped: float = 3.0  # F&B

    @property
    def input(self) -> float:
        """I: backward for the input alone."""
        return self.backward - self.weight

    def of(self, instruction: Instruction) -> float:
        if len(instruction) == 2:
            return self.overlapped
        return {"F": self.forward, "B": self.backward, "I": self.input, "W": self.weight}[instruction[0].kind]


USUAL = Times()


class Timeline(NamedTuple):
    """What a simulation found."""

    schedule: str
    stages: int
    microbatches: int
    times: Times
    slots: list[Slot]  # by device, then by start
    makespan: float
    idle: list[float]  # per device, of the makespan
    peak_activations: list[int]  # per device, in micro-batches of one stage

    @property
    def bubble(self) -> float:
        """Idle time of the device that idles most."""
        return max(self.idle)

    @property
    def bubble_share(self) -> float:
        """Bubble as a share of the makespan."""
        return self.bubble / self.makespan


class ClosedForm(NamedTuple):
    """One row of V3's Table 2."""

    bubble: float
    parameters: int  # copies of the model
    activations: int  # micro-batches of one stage, at most
    devices: int


def closed_form(schedule: str, stages: int, times: Times = USUAL) -> ClosedForm:
    """DeepSeek-V3 report, Table 2, and the DualPipe repository's README for DualPipeV."""
    f, b, w, fb = times
    if schedule == "1F1B":
        return ClosedForm((stages - 1) * (f + b), 1, stages, stages)
    if schedule == "ZB1P":
        return ClosedForm((stages - 1) * (f + b - 2 * w), 1, stages, stages)
    check(schedule, stages, microbatches=2 * stages)
    return ClosedForm((stages / 2 - 1) * (fb + b - 3 * w), 2, stages + 1, devices(schedule, stages))


def simulate(
    schedule: str,
    stages: int,
    microbatches: int,
    times: Times = USUAL,
    lasting: Callable[[int, Instruction], float] | None = None,
) -> Timeline:
    """Run a schedule. Raises ``MinidsError`` for numbers it does not exist for, or times that contradict each other.
    ``lasting``: device and instruction → how long it takes, in place of ``times``."""
    _check_times(times)
    programmes = orders(schedule, stages, microbatches)
    clock = [0.0] * len(programmes)
    position = [0] * len(programmes)
    finished: dict[tuple, float] = {}  # (F | I, stage, micro-batch) → time its output exists
    slots: list[list[Slot]] = [[] for _ in programmes]
    moved = True
    while moved:
        moved = False
        for device, programme in enumerate(programmes):
            while position[device] < len(programme):
                instruction = programme[position[device]]
                # A device holds its own stage, and for the other direction (or the way back) the mirrored one.
                staged = [(a, stages - 1 - device if a.direction == 1 else device) for a in instruction]
                needs = [need for a, stage in staged for need in _needs(stages, a, stage, _identity(schedule, a))]
                if any(need not in finished for need in needs):
                    break  # another device has to go first
                start = max([clock[device], *(finished[need] for need in needs)])
                clock[device] = end = start + (lasting(device, instruction) if lasting else times.of(instruction))
                for a, stage in staged:
                    slot = Slot(device, start, end, a.kind, a.microbatch, a.direction, stage, len(instruction) == 2)
                    slots[device].append(slot)
                    if a.kind != "W":
                        finished["F" if a.kind == "F" else "I", stage, _identity(schedule, a)] = end
                position[device] += 1
                moved = True
    if any(done < len(programme) for done, programme in zip(position, programmes, strict=True)):
        raise AssertionError(f"{schedule} with {stages} stages and {microbatches} micro-batches waits for itself")
    return timeline_of(schedule, stages, microbatches, times, slots)


def timeline_of(schedule: str, stages: int, microbatches: int, times: Times, slots: list[list[Slot]]) -> Timeline:
    """Slots of each device, in order → what they add up to."""
    makespan, every = max(mine[-1].end for mine in slots), [s for mine in slots for s in mine]
    spans = [{(s.start, s.end) for s in mine} for mine in slots]  # an overlapped pair counts once
    idle = [makespan - sum(end - start for start, end in busy) for busy in spans]
    return Timeline(schedule, stages, microbatches, times, every, makespan, idle, list(map(_peak_activations, slots)))


def _identity(schedule: str, action: Action):
    """Which micro-batch it is: in DualPipe each direction counts its own, elsewhere there is one count."""
    return (action.direction, action.microbatch) if schedule == "DualPipe" else action.microbatch


def _needs(stages: int, action: Action, stage: int, batch) -> list[tuple]:
    """Outputs that must exist before an action starts."""
    if action.kind == "F":
        return [("F", stage - 1, batch)] if stage > 0 else []
    if action.kind == "W":
        return [("I", stage, batch)]
    behind = [("I", stage + 1, batch)] if stage + 1 < stages else []
    return [("F", stage, batch), *behind]


def _peak_activations(slots: list[Slot]) -> int:
    """Most micro-batches held at once: from the start of F to the end of B, or of W where B is split."""
    changes = [(s.start, 1) for s in slots if s.kind == "F"] + [(s.end, -1) for s in slots if s.kind in "BW"]
    held = peak = 0
    for _, change in sorted(changes):
        held += change
        peak = max(peak, held)
    return peak


def _check_times(times: Times) -> None:
    f, b, w, fb = times
    for name, value in (("forward", f), ("weight", w)):
        if not value > 0:
            raise refuse(name, value, "must take some time")
    if not w < b:
        raise refuse("weight", w, f"is a part of the backward chunk, so it must be below backward = {b}")
    if not max(f, b) <= fb <= f + b:
        raise refuse("overlapped", fb, f"F and B as one take at least the longer ({max(f, b)}) and at most both ({f + b})")
