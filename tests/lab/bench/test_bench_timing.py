"""Contenders take turns, and a ratio compares within a turn. The clock is played."""

import pytest

from minids.lab.bench import timing


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves when told."""
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def spend(seconds):
        now[0] += seconds

    return spend


def test_everyone_takes_turns_and_the_warm_up_does_not_count(clock):
    order, cost = [], iter([9, 9, 1, 2, 3, 4])

    def contender(name):
        def call():
            order.append(name)
            clock(next(cost))

        return call

    seconds = timing.alternate({"a": contender("a"), "b": contender("b")}, rounds=2)
    assert order == ["a", "b"] * 3
    assert seconds == {"a": [1, 3], "b": [2, 4]}


def test_a_ratio_is_taken_within_a_turn():
    """A minute in which everything is ten times as slow changes no ratio."""
    seconds = {"ours": [1.0, 10.0, 1.1], "theirs": [3.0, 30.0, 3.3]}
    assert timing.ratio(seconds, "ours", "theirs") == pytest.approx(3)
    assert timing.ratio(seconds, "theirs", "ours") == pytest.approx(1 / 3)
