"""Pipeline parallelism, executed: DeepSeek-V3 section 3.2.1, in the orders of ``pipeline_orders``.

A device holds one stage, or with DualPipe two, and works through its programme. Each action takes what it needs and sends what
others need, and nothing else passes between devices:

    F   takes x of the stage before        sends x to the stage after
    B   takes dx of the stage after        sends dx to the stage before      B is I and W at once
    I   as B, with the gradients of the weights put off                      W   makes up for them

When all actions are done, gradients of parameters that several devices hold are added: of DualPipe's two copies of each stage,
and of an embedding that first and last stage look up. They then are those of a single process that reads the same micro-batches
one after another.

**No dead-lock.** Sends do not wait to be received. Each device asks for what it needs in the order in which it will need it,
and with these orders somebody can always go on, as the simulator and ``Together`` below show.

    Together(…)    all devices in one process, each going on as far as it can: deterministic, for tests and to look at
    Apart(…)       one device per process, over a communicator

On a CPU nothing hides behind computation: the forward and the backward of an overlapped pair are made one after the other.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from minids.config import ModelConfig
from minids.errors import refuse
from minids.layers.parameters import Array, Parameters
from minids.layers.put_off import weights_put_off
from minids.model import DeepSeekV3, Losses
from minids.model_checks import check_length, check_targets, check_tokens
from minids.parallel.communicator import Communicator, Handle, added
from minids.parallel.pipeline_orders import Action, Instruction, check, devices, orders
from minids.parallel.stages import Part, SavedStage, Stage, bounds, has, skeleton, whole
from minids.parallel.timeline import KINDS, Recording, Slot
from minids.processor import cores
from minids.training.workers import weighted

Key = tuple[str, int, int]  # what is sent: "x" or "dx", the stage that takes it, the micro-batch
At = tuple[int, int]  # stage and micro-batch
AHEAD = 4  # messages that a device has asked for before it needs them


def held_by(schedule: str, stages: int, device: int) -> tuple[int, ...]:
    """The stages that a device holds: its own, and the mirrored one for the other direction or the way back."""
    mirrored = stages - 1 - device
    return (device, mirrored) if schedule.startswith("DualPipe") else (device,)


def stage_of(stages: int, device: int, action: Action) -> int:
    return stages - 1 - device if action.direction == 1 else device


def device_of(schedule: str, stages: int, stage: int, direction: int) -> int:
    """Where a stage is worked on, for micro-batches of this direction."""
    if schedule == "DualPipeV":
        return min(stage, stages - 1 - stage)
    return stages - 1 - stage if direction == 1 else stage


def number_of(schedule: str, microbatches: int, action: Action) -> int:
    """Which of all micro-batches it is: the second half of them enters DualPipe at the other end."""
    return action.microbatch + (action.direction * (microbatches // 2) if schedule == "DualPipe" else 0)


class Post(ABC):
    """How devices get what others send."""

    @abstractmethod
    def put(self, device: int, key: Key, array: Array) -> None: ...

    @abstractmethod
    def has(self, key: Key) -> bool:
        """Whether ``take`` need not wait."""

    @abstractmethod
    def take(self, key: Key) -> Array: ...


class Boxes(Post):
    """Within a process."""

    def __init__(self) -> None:
        self._there: dict[Key, Array] = {}

    def put(self, device: int, key: Key, array: Array) -> None:
        self._there[key] = array

    def has(self, key: Key) -> bool:
        return key in self._there

    def take(self, key: Key) -> Array:
        return self._there.pop(key)


class Mail(Post):
    """Between processes. ``expected``: what this device will take from others and from whom, in that order."""

    def __init__(
        self,
        communicator: Communicator,
        stages: int,
        expected: Sequence[tuple[Key, int]],
        shape: tuple[int, ...],
        dtype: DTypeLike,
    ):
        self._communicator, self._stages, self._shape, self._dtype = communicator, stages, shape, dtype
        self._expected = list(reversed(expected))
        self._asked: dict[Key, Handle] = {}
        self._sent: list[Handle] = []
        self._own = Boxes()
        for _ in range(AHEAD):
            self._ask()

    def put(self, device: int, key: Key, array: Array) -> None:
        if device == self._communicator.rank:
            self._own.put(device, key, array)
        else:
            self._sent.append(self._communicator.isend(array, device, self._tag(key)))

    def has(self, key: Key) -> bool:
        return True

    def take(self, key: Key) -> Array:
        if self._own.has(key):
            return self._own.take(key)
        array = self._asked.pop(key).wait()
        self._ask()
        return array

    def close(self) -> None:
        for handle in self._sent:
            handle.wait()

    def _ask(self) -> None:
        if self._expected:
            key, source = self._expected.pop()
            self._asked[key] = self._communicator.irecv(self._shape, self._dtype, source, self._tag(key))

    def _tag(self, key: Key) -> int:
        what, stage, number = key
        return 2 * (number * self._stages + stage) + (what == "dx")


class Device:
    """One device: its stages, its programme, and what it keeps of micro-batches that are under way."""

    def __init__(self, config: ModelConfig, schedule: str, stages: int, index: int, dtype: np.dtype):
        self.schedule, self.count, self.index = schedule, stages, index
        held = held_by(schedule, stages, index)
        self.model = skeleton(config, stages, held, dtype)
        self.stages = {stage: Stage(self.model, stages, stage) for stage in held}

    @property
    def parameters(self) -> Parameters:
        return self.model.parameters

    def take_weights(self, model: DeepSeekV3) -> None:
        """Its part of a whole model's weights and routing biases."""
        for p in self.parameters:
            p.value[...] = model.parameters[p.name].value
        for name, buffer in self.parameters.buffers.items():
            buffer[...] = model.parameters.buffers[name]

    def begin(self, programme: list[Instruction], tokens: Array, targets: Array, mtp_loss_weight: float) -> None:
        """A step of the micro-batches tokens and targets (M, B, T)."""
        self.actions = [action for instruction in programme for action in instruction]
        self.tokens, self.targets, self.mtp_loss_weight = tokens, targets, mtp_loss_weight
        self.done = 0
        self.saved: dict[At, SavedStage] = {}
        self.later: dict[At, list[Callable[[], None]]] = {}
        config = self.model.config
        nothing = np.zeros(1 + config.num_nextn_predict_layers)
        counts = np.zeros((len(self.model.moe_layers), config.n_routed_experts), np.int64)
        self.parts = [Part(nothing, 0.0, counts) for _ in tokens]  # of each micro-batch, what its stages have
        self.slots: list[tuple[Slot, float]] = []
        self.parameters.zero_grads()

    @property
    def next(self) -> Action | None:
        return self.actions[self.done] if self.done < len(self.actions) else None

    def need(self, action: Action) -> Key | None:
        """What an action takes from another stage."""
        stage, number = self._at(action)
        if action.kind == "F":
            return ("x", stage, number) if stage else None
        return ("dx", stage, number) if action.kind != "W" and stage < self.count - 1 else None

    def expected(self) -> list[tuple[Key, int]]:
        """What it will take from other devices, in that order, and from whom."""
        found = []
        for action in self.actions:
            if key := self.need(action):
                sender = key[1] + (-1 if key[0] == "x" else 1)
                source = device_of(self.schedule, self.count, sender, action.direction)
                if source != self.index:
                    found.append((key, source))
        return found

    def perform(self, post: Post, zero: float) -> None:
        """The next action, waiting for what it needs. ``zero``: when the step began."""
        action = self.actions[self.done]
        at, need = self._at(action), self.need(action)
        given = post.take(need) if need else None
        start, worked = time.perf_counter(), time.thread_time()
        if action.kind == "F":
            self._forward(at, given, action.direction, post)
        elif action.kind == "W":
            for add in self.later.pop(at):
                add()
        elif action.kind == "I":
            with weights_put_off() as self.later[at]:
                self._backward(at, given, action.direction, post)
        else:
            self._backward(at, given, action.direction, post)
        busy, end = time.thread_time() - worked, time.perf_counter()
        place = action.kind, action.microbatch, action.direction, at[0]
        self.slots.append((Slot(self.index, start - zero, end - zero, *place, False), busy))
        self.done += 1

    def _at(self, action: Action) -> At:
        return stage_of(self.count, self.index, action), number_of(self.schedule, len(self.tokens), action)

    def _forward(self, at: At, x: Array | None, direction: int, post: Post) -> None:
        stage, number = at
        given = self.tokens[number], self.targets[number], self.mtp_loss_weight
        x, self.saved[at] = self.stages[stage].forward(x, *given)
        self.parts[number] = self.parts[number].plus(self.saved[at].part)
        if x is not None:
            post.put(device_of(self.schedule, self.count, stage + 1, direction), ("x", stage + 1, number), x)

    def _backward(self, at: At, dx: Array | None, direction: int, post: Post) -> None:
        stage, number = at
        dx = self.stages[stage].backward(dx, self.saved.pop(at), 1 / len(self.tokens))
        if dx is not None:
            post.put(device_of(self.schedule, self.count, stage - 1, direction), ("dx", stage - 1, number), dx)


class Pipeline(ABC):
    """A model trained by a pipeline. ``devices`` are those of this process."""

    def __init__(self, model: DeepSeekV3, schedule: str, stages: int, held: Sequence[int]):
        """``held``: the devices of this process. They take their part of ``model``'s weights; it need not be kept."""
        config = model.config
        bounds(config, stages)
        if config.precision == "fp8" and config.fp8_scaling == "delayed":
            raise refuse("fp8_scaling", "delayed", "scales by a whole step's largest numbers, which no stage sees; take tile")
        self.config, self.schedule, self.stages = config, schedule, stages
        self.devices = [Device(config, schedule, stages, device, model.dtype) for device in held]
        for device in self.devices:
            device.take_weights(model)

    @property
    def processes(self) -> int:
        return 1

    def forward_backward(
        self, tokens: ArrayLike, targets: ArrayLike, mtp_loss_weight: float | None = None
    ) -> tuple[Losses, Recording]:
        """Micro-batches tokens and targets (M, B, T) → the losses of the mean over all, and who worked when. Every device then
        has the gradients of its parameters, those from before forgotten."""
        tokens, targets = np.asarray(tokens), np.asarray(targets)
        if tokens.ndim != 3 or tokens.shape != targets.shape:
            raise refuse("tokens", f"of shape {tokens.shape}", "must be (micro-batches, sequences, tokens), and so targets")
        check(self.schedule, self.stages, len(tokens))
        flat = check_tokens(self.config, tokens.reshape(-1, tokens.shape[-1]))
        goals = check_targets(self.config, flat, targets.reshape(flat.shape))
        check_length(tokens.shape[2], self.config.num_nextn_predict_layers)
        weight = self.config.mtp_loss_weight if mtp_loss_weight is None else mtp_loss_weight
        programmes = orders(self.schedule, self.stages, len(tokens))
        for device in self.devices:
            programme = programmes[device.index]
            device.begin(programme, flat.reshape(tokens.shape), goals.reshape(tokens.shape), weight)
        slots, parts = self._step([sum(map(len, programme)) for programme in programmes])
        losses = weighted([whole(part, weight) for part in parts], [1 / len(tokens)] * len(tokens))
        who, how_long = zip(*slots, strict=True)
        model = f"{self.config.num_hidden_layers} blocks of {self.config.hidden_size}"
        facts = self.schedule, self.stages, len(tokens), self.processes, cores(), model, (tokens.shape[1], tokens.shape[2])
        return losses, Recording(*facts, list(who), list(how_long))

    def gradients(self) -> dict[str, Array]:
        """Of the parameters of this process's devices, by name."""
        return {p.name: p.grad for device in self.devices for p in device.parameters}

    def holders(self, name: str) -> tuple[int, ...]:
        """The devices that hold a parameter of this name."""
        return tuple(
            device
            for device in range(devices(self.schedule, self.stages))
            if any(has(self.config, self.stages, stage, name) for stage in held_by(self.schedule, self.stages, device))
        )

    @abstractmethod
    def _step(self, lengths: Sequence[int]) -> tuple[list[tuple[Slot, float]], list[Part]]:
        """Run all programmes, of ``lengths`` actions, and add gradients → every device's slots, and the micro-batches' parts
        over all stages."""


class Together(Pipeline):
    """All devices in this process, each in its turn: it goes on until something is missing that another has to send."""

    def __init__(self, model: DeepSeekV3, schedule: str, stages: int):
        check(schedule, stages, 2 * stages)
        super().__init__(model, schedule, stages, range(devices(schedule, stages)))

    def _step(self, lengths: Sequence[int]) -> tuple[list[tuple[Slot, float]], list[Part]]:
        post, zero = Boxes(), time.perf_counter()
        moved = True
        while moved:
            moved = False
            for device in self.devices:
                while (action := device.next) and ((need := device.need(action)) is None or post.has(need)):
                    device.perform(post, zero)
                    moved = True
        assert not any(device.next for device in self.devices), f"{self.schedule} waits for itself"
        self._add_gradients()
        parts = [reduce(Part.plus, each) for each in zip(*(device.parts for device in self.devices), strict=True)]
        return [slot for device in self.devices for slot in device.slots], parts

    def _add_gradients(self) -> None:
        for name in dict.fromkeys(p.name for device in self.devices for p in device.parameters):
            copies = [self.devices[device].parameters[name].grad for device in self.holders(name)]
            total = added(copies)
            for copy in copies:
                copy[...] = total


class Apart(Pipeline):
    """One device per process of a communicator."""

    def __init__(self, model: DeepSeekV3, schedule: str, stages: int, communicator: Communicator):
        check(schedule, stages, 2 * stages)
        if communicator.size != (wanted := devices(schedule, stages)):
            raise refuse("processes", communicator.size, f"{schedule} with {stages} stages runs on {wanted}")
        super().__init__(model, schedule, stages, [communicator.rank])
        self.communicator, (self.device,) = communicator, self.devices
        # Parameters are held by this device alone, or all of the shared ones by the same others.
        shared = {name: self.holders(name) for name in (p.name for p in self.device.parameters)}
        self.shared = [name for name, holders in shared.items() if len(holders) > 1]
        others = {shared[name] for name in self.shared}
        assert len(others) <= 1
        self.sharing = communicator.split(min(*others.pop()) if others else communicator.size + communicator.rank)

    @property
    def processes(self) -> int:
        return self.communicator.size

    def _step(self, lengths: Sequence[int]) -> tuple[list[tuple[Slot, float]], list[Part]]:
        device, comm = self.device, self.communicator
        tokens = device.tokens
        shape = (*tokens.shape[1:], self.config.hidden_size)
        post = Mail(comm, self.stages, device.expected(), shape, device.model.dtype)
        comm.barrier()
        zero = time.perf_counter()
        while device.next:
            device.perform(post, zero)
        post.close()
        grads = device.parameters.grads
        if len(self.shared) == len(device.parameters):
            self.sharing.sum_(grads)
        else:
            for name in self.shared:
                self.sharing.sum_(device.parameters[name].grad)
        return self._slots(lengths), self._parts()

    def _slots(self, lengths: Sequence[int]) -> list[tuple[Slot, float]]:
        """Everyone's."""
        mine = np.zeros((max(lengths), 8))
        for row, (slot, busy) in zip(mine, self.device.slots, strict=False):
            row[:] = (slot.start, slot.end, KINDS.index(slot.kind), slot.microbatch, slot.direction, slot.stage, busy, 1)
        found = []
        for device, theirs in enumerate(self.communicator.all_gather(mine)):
            for start, end, kind, microbatch, direction, stage, busy, there in theirs:
                if there:
                    at = KINDS[int(kind)], int(microbatch), int(direction), int(stage)
                    found.append((Slot(device, float(start), float(end), *at, False), float(busy)))
        return found

    def _parts(self) -> list[Part]:
        """Over all stages: what a device does not have is 0."""
        numbers = np.array([[*part.cross_entropies, part.balance] for part in self.device.parts])  # (M, 2 + D)
        counts = np.array([part.counts for part in self.device.parts])  # (M, MoE layers, E)
        totals, loads = added(self.communicator.all_gather(numbers)), added(self.communicator.all_gather(counts))
        return [Part(total[:-1], float(total[-1]), load) for total, load in zip(totals, loads, strict=True)]
