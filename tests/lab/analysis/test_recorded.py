"""The recordings that are kept with the package, and that they can be made again."""

import numpy as np
import pytest
from several_ranks import on_ranks
from small_run import MODEL

from minids.lab.analysis.recorded import RANKS, dualpipe, exchanges, recorded_exchanges
from minids.parallel.mpi import world
from minids.parallel.pipeline_orders import orders


def assert_ways(found):
    """What is true of bytes from rank to rank, whatever the router chose."""
    one, two = found["one hop"], found["two hops"]
    machine = np.arange(RANKS) // 2
    apart = machine[:, None] != machine
    for where in ("across", "inside"):
        assert np.array_equal(two[f"{where} combine"], two[f"{where} dispatch"].T), "what comes back is what went out"
    assert np.array_equal(one["across combine"], one["across dispatch"].T)
    assert not two["inside dispatch"][apart].any(), "the second hop leaves a machine"
    places = np.arange(RANKS) % 2
    assert not two["across dispatch"][places[:, None] != places].any(), "the first hop goes to another place in a machine"
    assert two["across dispatch"][apart].sum() < one["across dispatch"][apart].sum(), "two hops save nothing"


def test_the_kept_exchanges_are_an_all_to_all():
    assert_ways(exchanges())


def test_the_kept_pipeline_is_dualpipe():
    recording = dualpipe()
    assert (recording.schedule, recording.stages, recording.processes) == ("DualPipe", 4, 4)
    for device, programme in enumerate(orders("DualPipe", 4, recording.microbatches)):
        mine = [(s.kind, s.direction, s.microbatch) for s in recording.slots if s.device == device]
        assert mine == [tuple(action) for instruction in programme for action in instruction]


def made() -> dict:
    small = MODEL.replace(vocab_size=32, bos_token_id=None, eos_token_id=None)
    ways = {"one hop": 1, "two hops": 2}
    found = {way: recorded_exchanges(world(), each, small, 8, 16) for way, each in ways.items()}
    return {way: {what: sent.tolist() for what, sent in rows.items()} for way, rows in found.items()}


@pytest.mark.parallel
def test_they_can_be_made_again():
    first, *others = on_ranks(RANKS, made)
    assert all(other == first for other in others)
    assert_ways({way: {what: np.array(sent) for what, sent in rows.items()} for way, rows in first.items()})
