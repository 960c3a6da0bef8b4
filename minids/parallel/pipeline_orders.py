"""In which order each device of a pipeline works: 1F1B, ZB1P, DualPipe and DualPipeV.

A device's programme is a list of instructions, fixed before training starts. An instruction is one action, or a forward and a
backward that run as one with their communication hidden in each other's computation (F&B). Kinds of action:

    F   forward of one micro-batch through one stage
    B   full backward: gradients of input and weights
    I   backward for the input only                          W   backward for the weights only, any time after its I

Zero-bubble schedules split B into I and W because only I is waited for: W fills gaps.

DualPipe feeds micro-batches from both ends: device r holds stage r for one direction and stage PP − 1 − r for the other.
DualPipeV folds the pipeline in the middle instead: device r of PP/2 holds stages r and PP − 1 − r of one and the same
direction, so that the first device also computes the loss. Below, "0" is the chunk that meets the device first on its way
in, "1" the one on its way out.
"""

from collections import deque
from typing import NamedTuple

from minids import arguments
from minids.errors import refuse

SCHEDULES = ("1F1B", "ZB1P", "DualPipe", "DualPipeV")


class Action(NamedTuple):
    """Work on one micro-batch. ``direction`` is 0 or 1: of the flow in DualPipe, inward or outward leg in DualPipeV."""

    kind: str
    direction: int
    microbatch: int


Instruction = tuple[Action, ...]  # one action, or an overlapped (forward, backward) pair


def check(schedule: str, stages: int, microbatches: int) -> None:
    """Refuse numbers that a schedule does not exist for; 1F1B and ZB1P take any.

    These are the rules of the DualPipe repository's code; V3's report (section 3.2.1) asks for divisibility by 2 only.
    """
    if schedule not in SCHEDULES:
        raise refuse("schedule", schedule, f"must be one of {', '.join(SCHEDULES)}")
    arguments.whole("stages", stages, least=1)
    arguments.whole("microbatches", microbatches, least=1)
    if not schedule.startswith("DualPipe"):
        return
    if stages % 2:
        raise refuse("stages", stages, f"{schedule} puts two stages on a device: it needs an even number")
    if schedule == "DualPipe" and microbatches % 2:
        raise refuse("microbatches", microbatches, "DualPipe feeds half of them from either end: it needs an even number")
    least = 2 * stages if schedule == "DualPipe" else stages
    if microbatches < least:
        raise refuse("microbatches", microbatches, f"{schedule} needs at least {least} to fill {stages} stages")


def devices(schedule: str, stages: int) -> int:
    """One per stage, and half as many for DualPipeV."""
    return stages // 2 if schedule == "DualPipeV" else stages


def orders(schedule: str, stages: int, microbatches: int) -> list[list[Instruction]]:
    """The programme of every device. Raises ``MinidsError`` where ``check`` does."""
    check(schedule, stages, microbatches)
    ranks = range(devices(schedule, stages))
    if not schedule.startswith("DualPipe"):
        return [_one_direction(stages, microbatches, rank, split=schedule == "ZB1P") for rank in ranks]
    if schedule == "DualPipeV":
        return [_Dual(rank, stages // 2, microbatches, flipped=False).programme() for rank in ranks]
    half = stages // 2
    return [_Dual(min(r, stages - 1 - r), half, microbatches // 2, flipped=r >= half).programme() for r in ranks]


def _one_direction(stages: int, microbatches: int, rank: int, split: bool) -> list[Instruction]:
    """PP − 1 − rank forwards to fill the pipeline, then one forward and one backward in turn, then the backwards left: 1F1B.

    ``split`` (ZB-H1 of Qi et al. 2023): B becomes I and W, and device ``rank`` keeps ``rank`` weight gradients back for its
    tail. Forwards ahead and weights behind add up to PP, so that no device holds more activations than the first one of 1F1B.
    """
    ahead = min(stages - 1 - rank, microbatches)
    order = [("F", m) for m in range(ahead)]
    for m in range(microbatches):
        if m + ahead < microbatches:
            order.append(("F", m + ahead))
        order.append(("I" if split else "B", m))
        if split and m >= rank:
            order.append(("W", m - rank))
    if split:
        order += [("W", m) for m in range(max(0, microbatches - rank), microbatches)]
    return [(Action(kind, 0, m),) for kind, m in order]


class _Dual:
    """The programme of one device of DualPipe or DualPipeV, in the order of the DualPipe repository.

    ``depth`` counts devices from the outside in, ``half`` is their number along one leg, ``count`` the micro-batches of a
    direction. Devices of DualPipe's second half see the directions exchanged (``flipped``). The eight phases make a diamond:
    fill, fill both ways, start to drain while still filling, the steady state, and the first three mirrored, with weight
    gradients kept back (I, W) wherever a neighbour waits.
    """

    def __init__(self, depth: int, half: int, count: int, flipped: bool):
        self.depth, self.half, self.count = depth, half, count
        self.directions = (1, 0) if flipped else (0, 1)
        self.next_forward, self.next_backward = [0, 0], [0, 0]
        self.weights: deque[Action] = deque()  # postponed, first in first out
        self.order: list[Instruction] = []

    def programme(self) -> list[Instruction]:
        depth, outside = self.depth, self.half - self.depth - 1
        innermost = outside == 0
        for _ in range(2 * outside):  # 1: fill
            self._add(self._forward(0))
        for _ in range(depth + 1):  # 2: both legs
            self._add(self._forward(0))
            self._add(self._forward(1))
        for _ in range(outside):  # 3: first gradients come back
            self._add(self._input_backward(1))
            self._add(self._weight())
            self._add(self._forward(1))
        for i in range(self.count - 2 * self.half + depth + 1):  # 4: the steady state, all of it overlapped
            if i == 0 and innermost:
                # The gradient for this first backward may still be under way: on its own, the forward fills the wait.
                self._add(self._forward(0))
                self._add(self._backward(1))
            else:
                self._add(self._forward(0), self._backward(1))
            self._add(self._forward(1), self._backward(0))
        for _ in range(outside):  # 5: no more input
            self._add(self._backward(1))
            self._add(self._forward(1), self._backward(0))
        self._last_backwards(depth + 1)  # 6
        for _ in range(outside):  # 7: the outer devices' own last gradients
            self._add(self._weight())
            self._add(self._input_backward(0))
        for _ in range(depth + 1):  # 8: weights left over
            self._add(self._weight())
        return self.order

    def _last_backwards(self, rounds: int) -> None:
        """Phase 6: backwards of both legs, the second half of them without their weight gradients."""
        for i in range(2 * rounds):
            leg = 1 - i % 2
            self._add(self._backward(leg) if i < rounds else self._input_backward(leg))

    def _add(self, *actions: Action) -> None:
        self.order.append(actions)

    def _forward(self, leg: int) -> Action:
        self.next_forward[leg] += 1
        return Action("F", self.directions[leg], self.next_forward[leg] - 1)

    def _backward(self, leg: int, kind: str = "B") -> Action:
        self.next_backward[leg] += 1
        return Action(kind, self.directions[leg], self.next_backward[leg] - 1)

    def _input_backward(self, leg: int) -> Action:
        action = self._backward(leg, "I")
        self.weights.append(action._replace(kind="W"))
        return action

    def _weight(self) -> Action:
        return self.weights.popleft()
