"""Notebook 16: a rank that nobody meets says so; checks name usual mistakes; a line of devices has the gradients of one."""

import threading

import numpy as np
import pytest

from minids.backend import use_backend
from minids.lab.lessons import several_processes
from minids.parallel.pipeline import Together


class Meeting:
    def __init__(self, ranks):
        self.ranks, self.parcels, self.door = ranks, {}, threading.Barrier(ranks, timeout=1.0)

    def all_to_all(self, rank, parcels):
        self.parcels[rank] = parcels
        self.door.wait()
        mine = [self.parcels[s][rank] for s in range(self.ranks)]
        self.door.wait()
        return mine


def test_a_rank_that_nobody_meets_waits_for_ever():
    found = several_processes.on_ranks(lambda meeting, rank: rank == 2 or meeting.all_to_all(rank, [0] * 3), Meeting(3))
    assert found == [several_processes.WAITED, several_processes.WAITED, True]


def test_each_rank_works_on_its_own():
    found = several_processes.on_ranks(lambda meeting, rank, x: meeting.all_to_all(rank, [x, 10 * x]), Meeting(2), [1, 2])
    assert found == [[1, 2], [10, 20]]


@pytest.mark.parametrize(
    "name, right, wrong, said",
    [
        ("rows_to_ranks", "token_by_token", "every_choice", "counted twice"),
        ("copies", "by_eplb", "all_to_the_favourite", "takes load"),
    ],
)
def test_a_check_accepts_the_right_answer_and_names_the_usual_mistake(name, right, wrong, said):
    check = getattr(several_processes, f"check_{name}")
    assert check(getattr(several_processes, right))
    report = check(getattr(several_processes, wrong))
    assert not report and said in str(report)


def test_a_sum_is_right_on_every_rank_or_refused():
    assert several_processes.check_total(
        lambda meeting, rank, numbers: sum(meeting.all_to_all(rank, [numbers.sum()] * meeting.ranks)), Meeting
    )
    for wrong in (
        lambda meeting, rank, numbers: numbers.sum(),
        lambda meeting, rank, numbers: len(numbers) and sum(meeting.all_to_all(rank, [numbers.sum()] * meeting.ranks)),
    ):
        assert not several_processes.check_total(wrong, Meeting)


def test_rows_are_as_many_as_the_counts_say():
    rows = several_processes.rows_for(np.array([[1, 2], [0, 3]]), width=4)
    assert [[each.shape for each in of_rank] for of_rank in rows] == [[(1, 4), (2, 4)], [(0, 4), (3, 4)]]


def test_a_line_of_devices_has_the_gradients_of_one():
    model = several_processes.small_model()
    text = np.random.default_rng(0).integers(0, 32, (4, 1, 9))
    with use_backend("numpy"):  # as on the page
        several_processes.on_one_device(model, text)
        line = Together(model, "1F1B", stages=4)
        line.forward_backward(text[..., :-1], text[..., 1:])
        assert several_processes.apart_from_one_device(line, model) < 1e-12
        several_processes.on_one_device(model, text[:1])
    assert several_processes.apart_from_one_device(line, model) > 0.1, "of another batch"
