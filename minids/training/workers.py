"""Several threads, each with some sequences of every batch: at these sizes the way to keep all cores at work.

The matrix products of a small model are too short to be shared out inside BLAS (``minids/blas.py``), so BLAS is held to one
thread, and each of ours carries its own sequences through the whole pass; NumPy and the kernels let the others run meanwhile.
Weights and routing biases are shared. Each thread has its own gradients, and they are added, always in the same order, so that
the same number of threads gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np

from minids.blas import one_blas_thread
from minids.layers.parameters import Array
from minids.model import DeepSeekV3, Losses
from minids.processor import cores


def useful_workers(model: DeepSeekV3, batch_size: int, wanted: int) -> int:
    """How many of ``wanted`` threads (0: one per core) can share a batch. One, when the balance loss looks at the batch as a
    whole: the parts' losses would not add up to it."""
    config = model.config
    whole = config.balance != "none" and config.aux_loss_alpha and not config.seq_aux
    return 1 if whole else max(1, min(wanted or cores(), batch_size))


class Workers:
    """``forward_backward`` of a model, by ``count`` threads. A context: within it they run, and BLAS is held to one."""

    def __init__(self, model: DeepSeekV3, count: int):
        self.models = [model, *(model.sharing_weights() for _ in range(count - 1))]
        self.count = len(self.models)
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Workers:
        self._around = ExitStack()
        self._around.enter_context(one_blas_thread())
        if self.count > 1:  # NumPy's warnings are set in each thread: off as in ours, since the loop finds what is not finite
            pool = ThreadPoolExecutor(self.count, initializer=lambda: np.seterr(all="ignore"))
            self._pool = self._around.enter_context(pool)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool = None
        self._around.close()

    def share_out(self, work: Callable, *arguments: Iterable) -> list:
        """``map``, by the threads; the results in their order."""
        return list((self._pool.map if self._pool else map)(work, *arguments))

    def greatest(self, of_each: Array) -> Array:
        """of_each (threads, …) → the greatest of all."""
        return of_each.max(axis=0)

    def zero_grads(self) -> None:
        grads = self.models[0].parameters.grads
        self.share_out(lambda piece: grads[piece].fill(0), pieces(grads.size, self.count))

    def begin_amaxes(self) -> None:
        """Delayed scaling of FP8: what validation saw since the last step does not count."""
        for model in self.models:
            for history in model.parameters.histories.values():
                history.seen.clear()

    def end_amaxes(self) -> None:
        """The step's largest numbers, over all threads, join the history that the next step is scaled by."""
        for name, history in self.models[0].parameters.histories.items():
            history.end_step([model.parameters.histories[name].seen for model in self.models])

    def forward_backward(
        self,
        tokens: Array,
        targets: Array,
        weight: float,
        mtp_loss_weight: float,
        how: Mapping[str, Any] | None = None,
        mtp: bool = True,
    ) -> Losses:
        """Add ``weight`` times the gradients of a batch (B, T) to the model's own; every target must count. ``how``: other
        arguments of ``DeepSeekV3.forward``, which look at the batch as a whole: one thread reads it, and targets are free.
        ``mtp=False``: the MTP modules rest."""
        count = min(self.count, len(tokens))  # a batch that still grows may have fewer sequences than there are threads
        main, *others = self.models[:count]
        if how is not None or not others:
            return main.forward_backward(tokens, targets, weight, mtp_loss_weight, **{"mtp": mtp, **(how or {})})
        shares = [len(part) / len(tokens) for part in np.array_split(tokens, count)]

        def work(model: DeepSeekV3, part: Array, goals: Array, share: float) -> Losses:
            if model is not main:
                model.parameters.zero_grads()
            return model.forward_backward(part, goals, weight * share, mtp_loss_weight, mtp)

        parts = (np.array_split(array, count) for array in (tokens, targets))
        losses = self.share_out(work, self.models[:count], *parts, shares)

        def add_up(piece: slice) -> None:
            for other in others:
                main.parameters.grads[piece] += other.parameters.grads[piece]

        self.share_out(add_up, pieces(main.parameters.grads.size, self.count))
        return weighted(losses, shares)


def pieces(size: int, count: int) -> list[slice]:
    """0 … size − 1 in ``count`` neighbouring pieces."""
    return [slice(size * i // count, size * (i + 1) // count) for i in range(count)]


def weighted(parts: list[Losses], shares: list[float]) -> Losses:
    """Losses of the parts of a batch → those of the whole; the counts add up."""

    def mean(values: Iterable[float]) -> float:
        return sum(value * share for value, share in zip(values, shares, strict=True))

    total, main, mtp, balance, counts = zip(*parts, strict=True)
    depths = tuple(mean(depth) for depth in zip(*mtp, strict=True))
    return Losses(mean(total), mean(main), depths, mean(balance), np.sum(counts, axis=0))
