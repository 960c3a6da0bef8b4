"""What several processes send each other in a training step, how long they wait for it, and what V3's cluster would take.

``mpiexec -n 4 minids bench exchange --expert-parallel 4 --ranks-per-node 2``: steps of the loop that trains, of one model and
one batch, whatever the number of processes. On a machine whose cores are all busy with one process already, several demonstrate
and do not accelerate. Seconds within a call are waiting for the others as well as copying.

The last column is the same bytes on V3's wires: those that leave a node at InfiniBand's 50 GB/s, those inside a node at
NVLink's 160 GB/s (``analysis.network``), with neither latency nor waiting. Nodes are ``ranks_per_node`` neighbouring processes.
"""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

import numpy as np

from minids import words
from minids.config import ParallelConfig
from minids.lab.analysis.network import INFINIBAND, NVLINK
from minids.lab.bench.sizes import SIZES
from minids.lab.bench.train import TRAIN, Again
from minids.model import DeepSeekV3
from minids.parallel.communicator import Alone, Exchange, gathered_bytes
from minids.parallel.group import RankGroup, process_group
from minids.parallel.mpi import world
from minids.training.loop import training_steps


def run(sizes: tuple[str, ...], rounds: int, threads: int, config: ParallelConfig) -> dict:
    """Measure ``rounds`` steps of each size → what ``table`` prints. Every process calls this."""
    measured = {name: _measured(name, rounds, threads, config) for name in sizes}
    return {"processes": world().size, "sizes": measured}


def _measured(name: str, rounds: int, threads: int, config: ParallelConfig) -> dict[str, Any]:
    size, group = SIZES[name], process_group(config)
    group.check(size.config, TRAIN.replace(workers=threads))
    model = group.parted(DeepSeekV3(size.config, 0))
    train = TRAIN.replace(batch_size=size.batch, workers=threads)
    optimizer = group.optimizer(model.parameters, train)
    ranks = group.ranks if isinstance(group, RankGroup) else Alone()
    with group.workers(model, group.threads(model, train, threads or 1)) as workers:
        steps = training_steps(model, optimizer, Again(*size.sequences()), train, workers)
        for _ in range(2):  # the first compiles
            loss = next(steps).losses.total
        seconds = []
        with ranks.recording() as exchanges:
            for _ in range(rounds):
                group.wait()
                began = time.perf_counter()
                next(steps)
                seconds.append(time.perf_counter() - began)
    mine = _by_purpose([each for each in exchanges if each.verb != "barrier"], ranks.rank, rounds, config.ranks_per_node or 1)
    flat = np.array([value for row in mine.values() for value in row], np.float64)
    everyone = np.array([np.frombuffer(found) for found in gathered_bytes(ranks, flat.tobytes())])  # (ranks, rows · 4)
    mean = everyone.mean(axis=0).reshape(-1, 4) if len(mine) else np.zeros((0, 4))
    rows = {
        what: {"calls": calls, "bytes_inside": inside, "bytes_between": between, "seconds": waited}
        | {"seconds_on_v3": inside / NVLINK + between / INFINIBAND}
        for what, (calls, inside, between, waited) in zip(mine, mean.tolist(), strict=True)
    }
    kept = optimizer.m.nbytes + optimizer.v.nbytes
    return {
        "milliseconds": 1e3 * float(np.median(seconds)),
        "tokens_per_second": size.tokens / float(np.median(seconds)),
        "first_loss": loss,
        "bytes_of_moments": kept,
        "bytes_of_weights": model.parameters.values.nbytes,
        "exchanges": rows,
    }


def _by_purpose(exchanges: list[Exchange], rank: int, rounds: int, per_node: int) -> dict[str, list[float]]:
    """Of one rank and step: purpose → calls, bytes to other ranks of its node, bytes to other nodes, seconds."""
    found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0, 0.0])
    for each in exchanges:
        row, others = found[each.what or each.verb], np.arange(len(each.sent))
        same_node = others // per_node == rank // per_node
        row[0] += 1 / rounds
        row[1] += float(each.sent[same_node & (others != rank)].sum()) / rounds
        row[2] += float(each.sent[~same_node].sum()) / rounds
        row[3] += each.seconds / rounds
    return dict(found)


def table(found: dict) -> str:
    """What ``run`` found, for a terminal."""
    n = found["processes"]
    lines = [f"Training steps of {n} process{'es' * (n > 1)}; per step and process, means over processes; medians of steps."]
    for name, size in found["sizes"].items():
        kept = f"weights {size['bytes_of_weights'] / 1e6:.2f} MB, moments {size['bytes_of_moments'] / 1e6:.2f} MB a process"
        lines += ["", f"{name}: {size['milliseconds']:.1f} ms a step, {size['tokens_per_second']:,.0f} tokens/s; {kept}"]
        by_bytes = sorted(size["exchanges"].items(), key=lambda each: -each[1]["bytes_inside"] - each[1]["bytes_between"])
        rows = [
            (
                what,
                f"{row['calls']:.0f}",
                f"{row['bytes_inside']:,.0f}",
                f"{row['bytes_between']:,.0f}",
                f"{1e3 * row['seconds']:.2f}",
                f"{1e6 * row['seconds_on_v3']:.1f}",
            )
            for what, row in by_bytes
        ]
        head = ("exchange", "calls", "bytes inside a node", "bytes between nodes", "ms in the call", "µs on V3's wires")
        lines.append(words.table(rows, head, "lrrrrr") if rows else "Nothing is exchanged.")
    return "\n".join(lines)
