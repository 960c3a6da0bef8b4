"""All parameters of a model in one flat array, and every name a view into it.

Names are those of the Hugging Face checkpoint. Gradients have a flat array of the same layout, and so have the optimizer's
moments: clipping, the update and a checkpoint are each one pass over contiguous memory.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import DTypeLike

from minids.errors import MinidsError
from minids.ops.delayed import Amaxes
from minids.words import table

Array = np.ndarray
MOST_ROWS = 12  # of a table of parameters
MOST_PARAMETERS = 2**47  # 140 trillion, 137 times Kimi-K2's
NOT_ALLOCATED: Array = np.empty(0, np.void)  # values that are not in memory: only declared, or still on disk


class Parameter:
    """One named array. ``value`` and ``grad`` are views of the flat arrays at ``place``, from ``Parameters.allocate`` on."""

    __slots__ = ("grad", "init", "name", "place", "shape", "value")
    value: Array
    grad: Array
    place: slice

    def __init__(self, name: str, shape: tuple[int, ...], init: str):
        self.name, self.shape, self.init = name, shape, init

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __repr__(self) -> str:
        return f"Parameter({self.name}, {self.shape})"


class Lock:
    """A lock that its owner may take again. Copied or pickled with what it guards, it becomes a free one."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[Lock], tuple[()]]:
        return Lock, ()


class Parameters:
    """The parameters of a model, by name.

    Layers ``add`` what they need while the model is built; ``allocate`` then lays everything out, matrices first, so that the
    part with weight decay is contiguous. Buffers (the routing bias) are float32 and stay outside. Once laid out, parameters are
    ``ready``, and a model that is built on them finds by its ``add`` what is there."""

    def __init__(self) -> None:
        self._by_name: dict[str, Parameter] = {}
        self.buffers: dict[str, Array] = {}
        self.histories: dict[str, Amaxes] = {}  # layer → largest numbers of earlier steps, with delayed scaling of FP8
        self.values = self.grads = NOT_ALLOCATED  # (P,)
        self.lock = Lock()  # for whoever adds into ``grads``, or needs them to himself

    @property
    def ready(self) -> bool:
        return self.values is not NOT_ALLOCATED

    def add(self, name: str, shape: tuple[int, ...], init: str = "normal") -> Parameter:
        """Declare a parameter; ``init`` is "normal", "ones" or "zeros". Of ready parameters: the one of this name."""
        if self.ready:
            if name not in self or self[name].shape != shape:
                raise KeyError(f"these parameters have no {name} of shape {shape}")
            return self[name]
        if name in self:
            raise KeyError(f"two parameters are called {name}")
        parameter = self._by_name[name] = Parameter(name, shape, init)
        return parameter

    def add_buffer(self, name: str, shape: tuple[int, ...]) -> None:
        """Declare a float32 buffer of zeros."""
        if not self.ready:
            self.buffers[name] = np.zeros(shape, dtype=np.float32)

    def keep(self, wanted: Callable[[str], bool]) -> None:
        """Before anything is laid out: forget parameters and buffers of other names. A pipeline's stage has some of them."""
        self._by_name = {name: p for name, p in self._by_name.items() if wanted(name)}
        for name in [name for name in self.buffers if not wanted(name)]:
            del self.buffers[name]

    def amaxes(self, name: str) -> Amaxes:
        """The history of the layer of this name."""
        return self.histories.setdefault(name, Amaxes())

    def shared(self) -> Parameters:
        """The same values and buffers, ready for another model, with gradients of its own."""
        twin = Parameters()
        for p in self:
            twin.add(p.name, p.shape, p.init)
        twin.buffers.update(self.buffers)
        twin.histories.update({name: history.sharing() for name, history in self.histories.items()})
        twin.allocate(self.values.dtype, self.values)
        return twin

    def lay_out(self, last: Callable[[Parameter], bool] = lambda p: False) -> int:
        """Give every parameter its place in the flat arrays; their length. ``last``: those that come behind all others."""
        total = 0
        for p in sorted(self, key=lambda p: (last(p), len(p.shape) < 2)):  # stable: matrices first, otherwise as declared
            p.place = slice(total, total + p.size)
            total += p.size
        if total > MOST_PARAMETERS:
            raise MinidsError(f"model: its sizes make {total:,} parameters, which no memory holds; choose smaller ones")
        return total

    def allocate(
        self, dtype: DTypeLike, values: Array | None = None, last: Callable[[Parameter], bool] = lambda p: False
    ) -> None:
        """Make the flat arrays, filled with zeros, and point every parameter into them. ``values`` (P,): take these. ``last``:
        see ``lay_out``."""
        total = self.lay_out(last)
        self.values = np.zeros(total, dtype) if values is None else values
        self.grads = np.zeros(total, dtype)
        for p in self:
            p.value = self.values[p.place].reshape(p.shape)
            p.grad = self.grads[p.place].reshape(p.shape)

    def initialise(self, rng: np.random.Generator, std: float) -> None:
        """Draw normal(0, std) for every matrix (DeepSeek-V3 section 4.2), 1 for gains, 0 for biases; in float32 whatever the
        model's type, so that a float64 model of the same seed has the same weights."""
        with np.errstate(over="ignore"):  # what is too large for float32 the first validation says in words
            for p in self:
                if p.init == "normal":
                    p.value[...] = rng.standard_normal(p.shape, dtype=np.float32) * np.float32(std)
                else:
                    p.value[...] = 1 if p.init == "ones" else 0

    def __repr__(self) -> str:
        """A short table: the first and the last by name, with shape and size."""
        rows: list[tuple[str, ...]] = [(p.name, " × ".join(map(str, p.shape)), f"{p.size:,}") for p in self]
        if len(rows) > MOST_ROWS:
            half = MOST_ROWS // 2
            rows = [*rows[:half], (f"… {len(rows) - 2 * half:,} more",), *rows[-half:]]
        total = f"{sum(p.size for p in self):,} numbers in {len(self):,} parameters, {len(self.buffers):,} buffers"
        return f"{total}\n{table(rows, align='llr')}" if rows else total

    def zero_grads(self) -> None:
        self.grads[...] = 0

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> Parameter:
        return self._by_name[name]
