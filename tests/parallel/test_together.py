"""What one of several processes says at its end, without starting any."""

import sys

import pytest

from minids.parallel import together as module
from minids.parallel.communicator import Alone
from minids.parallel.together import together
from minids.terminal import quietly, say


class Pretended(Alone):
    """A rank of two, the other of which is not there."""

    def __init__(self, rank: int):
        super().__init__()
        self.rank, self.size, self.aborted = rank, 2, []

    def abort(self, code=1):
        self.aborted.append(code)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0)


def refusing() -> int:
    say("some progress")
    say("minids: steps = 0: must be at least 1", file=sys.stderr)
    return 2


def raising() -> int:
    raise KeyError("a bug here")


@pytest.mark.parametrize("rank", [0, 1])
def test_what_is_refused_is_said_once_by_each_and_ends_all(rank, capsys):
    ranks = Pretended(rank)
    assert together(ranks, refusing) == 2 and ranks.aborted == [2]
    out, err = capsys.readouterr()
    assert out == ("" if rank else "some progress\n")
    assert err == ("process 1: " if rank else "") + "minids: steps = 0: must be at least 1\n"


@pytest.mark.parametrize("rank", [0, 1])
def test_an_exception_shows_where_it_was_and_ends_all(rank, capsys):
    ranks = Pretended(rank)
    assert together(ranks, raising) == 1 and ranks.aborted == [1]
    said = capsys.readouterr().err
    assert said.count("Traceback") == 1 and "a bug here" in said and "in raising" in said


def test_what_ends_well_ends_nobody(capsys):
    ranks = Pretended(1)
    assert together(ranks, lambda: 0) == 0 and not ranks.aborted
    assert together(Alone(), refusing) == 2, "of a single process the exit code is all"


def test_quietly_says_nothing_and_keeps_what_went_to_standard_error(capsys):
    with quietly() as kept:
        say("to nobody")
        say("to whom it concerns", file=sys.stderr)
    say("to all")
    assert kept == ["to whom it concerns"]
    assert capsys.readouterr() == ("to all\n", "")
