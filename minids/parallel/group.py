"""The processes that train a model together, on several ranks: see ``minids/training/process_group.py`` for what a run asks.

    world = data_parallel × expert_parallel        rank = replica · expert_parallel + place among the experts

All ranks make the same calls in the same order, with the same settings, text and random numbers. The first one speaks and
writes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from minids.config import ModelConfig, ParallelConfig, TrainConfig
from minids.errors import refuse
from minids.layers.parameters import Array, Parameters
from minids.model import DeepSeekV3
from minids.parallel.communicator import Communicator, even_bounds, gathered_bytes, joined_rows
from minids.parallel.exchange import ExpertExchange
from minids.parallel.mpi import INSTALL, world
from minids.parallel.parts import Part
from minids.parallel.placement import Placement, is_expert, keep_own_experts
from minids.parallel.rollouts import shared
from minids.parallel.workers import RankWorkers
from minids.parallel.zero import Zero, ZeroAdamW, ZeroMuon
from minids.training.process_group import Item, Numbers, ProcessGroup
from minids.training.rollout import Rollouts


class RankGroup(ProcessGroup):
    """The ``ranks``, parted as ``config`` says."""

    def __init__(self, ranks: Communicator, config: ParallelConfig):
        self.ranks, self.config = ranks, config
        self.first, self.size, self.rank = ranks.rank == 0, ranks.size, ranks.rank
        each = config.expert_parallel
        if ranks.size % each or config.data_parallel not in (0, ranks.size // each):
            name = "data_parallel" if config.data_parallel else "expert_parallel"
            asked = f"{config.data_parallel} × {each}" if config.data_parallel else f"a multiple of {each}"
            because = f"there are {ranks.size} processes, and {asked} are asked for; mpiexec -n says how many there are"
            raise refuse(name, getattr(config, name), because)
        self.zero: Zero | None = None
        # Of the ranks that hold all experts between them, and of those that hold the same ones.
        self.experts = ranks.split(ranks.rank // each)
        self.replicas = ranks.split(ranks.rank % each) if each > 1 else ranks

    def check(self, model: ModelConfig, train: TrainConfig) -> None:
        each = self.config.expert_parallel
        if each > model.n_routed_experts:
            raise refuse("expert_parallel", each, f"there are only {model.n_routed_experts} routed experts to hold")
        if model.balance != "none" and model.aux_loss_alpha and not model.seq_aux:
            raise refuse("seq_aux", False, "the balance loss looks at the batch as a whole, which several processes part")
        if each > 1 and each % (self.config.ranks_per_node or 1):
            raise refuse("ranks_per_node", self.config.ranks_per_node, f"must divide expert_parallel = {each}")
        if each > 1 and train.workers > 1:
            raise refuse("workers", train.workers, "with expert_parallel a process has one thread; start more processes")

    def described(self) -> dict[str, Any]:
        return {"processes": self.size}

    def in_words(self) -> str:
        c, n = self.config, self.size // self.config.expert_parallel
        experts = f", each {c.expert_parallel} processes that hold the experts between them" if c.expert_parallel > 1 else ""
        zero = "; the optimizer's moments are parted among them (ZeRO-1)" if c.zero_1 else ""
        return f"{self.size} processes, {n} replica{'s' * (n > 1)} of the model{experts}{zero}"

    def threads(self, model: DeepSeekV3, train: TrainConfig, wanted: int) -> int:
        """One where nobody asks for more: the ranks have the cores between them."""
        if self.config.expert_parallel > 1:
            return 1
        return min(super().threads(model, train, wanted or 1), -(-train.batch_size // self.size))

    def parted(self, model: DeepSeekV3) -> DeepSeekV3:
        self.bounds = even_bounds(model.config.n_routed_experts, self.experts.size)
        self.placement = Placement(model.config, model.parameters, self.experts, self.bounds)
        if self.experts.size == 1:
            self.parts = [Part(slice(0, model.parameters.values.size), self.ranks)]
            return model
        keep_own_experts(model, self.placement)
        common = sum(p.size for p in model.parameters if not is_expert(p))
        experts = slice(common, model.parameters.values.size)
        self.parts = [Part(slice(0, common), self.ranks), Part(experts, self.replicas, always=True)]
        c = self.config
        exchange = ExpertExchange(self.experts, self.bounds, c.ranks_per_node or 1, c.low_precision_exchange)
        for layer in model.moe_layers:
            layer.exchange = exchange
        return model

    @contextmanager
    def whole(self, model: DeepSeekV3, gradients: bool = False) -> Iterator[DeepSeekV3]:
        if gradients and self.zero:
            self.zero.gather_gradients()
        if self.experts.size == 1:
            yield model
            return
        whole = DeepSeekV3(model.config, seed=None, dtype=model.dtype)
        whole.parameters.values[...] = self.placement.gathered(model.parameters.values)
        if gradients:
            whole.parameters.grads[...] = self.placement.gathered(model.parameters.grads)
        whole.parameters.buffers.update(model.parameters.buffers)
        for name, history in whole.parameters.histories.items():
            history.past = model.parameters.histories[name].past
        whole.tokenizer, whole.generation = model.tokenizer, model.generation
        yield whole

    def gathered(self, own: Array, parameters: Parameters) -> Array:
        return self.placement.gathered(own)

    def own(self, whole: Array, parameters: Parameters) -> Array:
        return self.placement.own(whole)

    def workers(self, model: DeepSeekV3, count: int) -> RankWorkers:
        return RankWorkers(model, count, self.ranks, self.parts)

    def optimizer(self, parameters: Parameters, train: TrainConfig) -> Zero:
        kind = {"adamw": ZeroAdamW, "muon": ZeroMuon}[train.optimizer]
        self.zero = kind(parameters, train, self.parts, self.placement, self.config.zero_1)
        return self.zero

    def spread(self, work: Callable[[Item], Numbers], items: Sequence[Item]) -> list[Numbers]:
        own = [work(item) for item in items[self.ranks.rank :: self.size]]
        each = max(int(width[0]) for width in self.ranks.all_gather(np.array([len(own[0]) if own else 0])))
        found: list[Any] = [None] * len(items)
        for rank, rows in enumerate(joined_rows(self.ranks, np.array(own, np.float64).reshape(len(own), each))):
            found[rank :: self.size] = [tuple(row) for row in rows.tolist()]
        return found

    def sampled(self, model: DeepSeekV3, questions: Sequence[Sequence[int]], *how: Any, **more: Any) -> Rollouts:
        return shared(self.ranks, model, questions, *how, **more)

    def any(self, flag: bool) -> bool:
        return any(bool(each[0]) for each in self.ranks.all_gather(np.array([flag])))

    def joined_batches(self, batches: Sequence[Sequence[Sequence[Array]]]) -> tuple[Array, ...]:
        """Arrays travel as bytes behind their types and shapes, since a rank may have had no sequence."""
        own = [[np.concatenate(arrays) for arrays in zip(*batch, strict=True)] for batch in batches]
        stream = io.BytesIO()
        np.savez(stream, *(array for batch in own for array in batch))
        each = [np.load(io.BytesIO(found)) for found in gathered_bytes(self.ranks, stream.getvalue())]
        held = [[found[f"arr_{i}"] for i in range(len(found.files))] for found in each if found.files]
        if not held:
            return ()
        kinds = max(len(batch) for batch in own) if own else 2
        joined = []
        for kind in range(kinds):
            rows = [arrays[at] for at in range(kind, len(held[0]), kinds) for arrays in held]
            joined.append(np.concatenate(rows))
        return tuple(joined)

    def wait(self) -> None:
        self.ranks.barrier()


def process_group(config: ParallelConfig) -> ProcessGroup:
    """Of the processes that were started together, parted as ``config`` says; of one, where this was started alone."""
    if (ranks := world()).size > 1:
        return RankGroup(ranks, config)
    for name in ("expert_parallel", "data_parallel"):
        if (asked := getattr(config, name)) > 1:
            raise refuse(name, asked, f"there is one process; start several: mpiexec -n {asked} minids train … ({INSTALL})")
    return ProcessGroup()
