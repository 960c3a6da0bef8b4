"""Recordings of four processes that are kept with the package, to look at where there are none, and how they were made:

    mpiexec -n 4 python -m minids.lab.analysis.recorded

    exchanges    bytes that every rank sent to every other in a training step of ``tiny`` with its experts parted, by purpose:
                 "one hop", each rank a node, and "two hops", two nodes of two ranks; a batch of 8 × 256 random tokens
    DualPipe     a step of ``tiny`` in 4 stages, 8 micro-batches of 2 × 128 random tokens

Bytes are the same on every machine that routes alike; the times of the second are those of the machine that it was made on.
"""

import json
from pathlib import Path

import numpy as np

from minids import files
from minids.config import ModelConfig, ParallelConfig, TrainConfig
from minids.errors import refuse
from minids.layers.parameters import Array
from minids.model import DeepSeekV3
from minids.parallel.communicator import Communicator
from minids.parallel.group import process_group
from minids.parallel.mpi import world
from minids.parallel.pipeline import Apart
from minids.parallel.timeline import Recording
from minids.terminal import say

KEPT = Path(__file__).parent / "recordings"
RANKS = 4
WAYS = {"one hop": 1, "two hops": 2}  # ranks per node
PURPOSES = ("across dispatch", "inside dispatch", "across combine", "inside combine")


def exchanges() -> dict[str, dict[str, Array]]:
    """The kept one: way → purpose → (ranks, ranks) bytes from each rank to each."""
    kept = files.read_json(KEPT / "exchanges.json", 1 << 20)
    return {way: {what: np.array(sent) for what, sent in found.items()} for way, found in kept.items()}


def dualpipe() -> Recording:
    """The kept one."""
    return Recording.load(KEPT / "dualpipe.json")


def recorded_exchanges(
    ranks: Communicator, ranks_per_node: int, model: ModelConfig, batch: int, length: int
) -> dict[str, Array]:
    """Every rank calls this: a forward and a backward pass → purpose → (ranks, ranks) bytes."""
    group = process_group(ParallelConfig(expert_parallel=ranks.size, ranks_per_node=ranks_per_node))
    train = TrainConfig(batch_size=batch, context_length=length, workers=1)
    mine = group.parted(DeepSeekV3(model, seed=0))
    text = np.random.default_rng(0).integers(0, model.vocab_size, (batch, length + 1))
    with group.workers(mine, group.threads(mine, train, 1)) as workers, ranks.recording() as found:
        workers.zero_grads()
        workers.forward_backward(text[:, :-1], text[:, 1:], 1.0, model.mtp_loss_weight)
    sent = np.zeros((len(PURPOSES), ranks.size), np.int64)
    for each in found:
        if each.what in PURPOSES:
            sent[PURPOSES.index(each.what)] += each.sent
    everyone = np.array(ranks.all_gather(sent))  # (from, purposes, to)
    return {what: everyone[:, i] for i, what in enumerate(PURPOSES) if everyone[:, i].any()}


def main() -> None:
    ranks = world()
    if ranks.size != RANKS:
        raise refuse("processes", ranks.size, f"mpiexec -n {RANKS}")
    config = ModelConfig.preset("tiny")
    found = {way: recorded_exchanges(ranks, each, config, 8, 256) for way, each in WAYS.items()}
    pipeline = Apart(DeepSeekV3(config, seed=0), "DualPipe", RANKS, ranks)
    text = np.random.default_rng(0).integers(0, config.vocab_size, (2 * RANKS, 2, 129))
    for _ in range(2):  # the first warms up
        _, recording = pipeline.forward_backward(text[..., :-1], text[..., 1:])
    if not ranks.rank:
        kept = {way: {what: sent.tolist() for what, sent in rows.items()} for way, rows in found.items()}
        files.write(KEPT / "exchanges.json", json.dumps(kept, indent=1).encode() + b"\n")
        recording._replace(model=f"tiny: {recording.model}").save(KEPT / "dualpipe.json")
        say(f"written to {KEPT}")


if __name__ == "__main__":
    main()
