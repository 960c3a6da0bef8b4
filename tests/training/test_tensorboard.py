"""Event files hold each number of metrics.jsonl once, at its step, however often a run was stopped."""

import importlib.util
import struct

import pytest
from small_run import RUN, at_step, lines, quiet, start_or_resume, write_text

from minids.errors import MinidsError
from minids.training import tensorboard
from minids.training.run import Run
from minids.training.tensorboard import EventFiles, need_tensorboard, scalars


def points(folder):
    """(tag, step) → values, from the records of a folder's event files: length, its checksum, an event, its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for file in folder.iterdir():
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += length + 16
            for value in event.summary.value:
                found.setdefault((value.tag, event.step), []).append(value.simple_value)
    return found


def test_points_are_those_of_the_metrics_also_after_a_kill_and_a_resume(tmp_path):
    pytest.importorskip("tensorboardX")
    data, out = write_text(tmp_path), tmp_path / "run"
    run = RUN.replace(steps=10, save_every=4)
    training = start_or_resume(out, data, run)
    training.metrics.followers.append(EventFiles(out))

    def kill():
        raise MemoryError("killed")

    at_step(training, 7, kill)  # the steps 5 and 6 are made again
    with pytest.raises(MemoryError):
        training.run()
    assert ("train/main_loss", 6) in points(out / "tensorboard")
    again = Run.resume(out, say=quiet)
    again.metrics.followers.append(EventFiles(out))
    again.run()
    found = points(out / "tensorboard")
    for line in lines(out):
        for name, value in scalars(line):
            assert found.pop((name, line["step"])) == [pytest.approx(value, rel=1e-6)], f"{name} at step {line['step']}"
    assert {tag for tag, _ in found} == {"train/tokens_per_second"}
    assert all(len(values) == 1 for values in found.values())


def test_numbers_are_named_by_their_paths():
    line = {"step": 3, "seconds": 1.0, "loss": 2, "mtp_loss": [5.0], "validation": {"prose": {"loss": 4.0}}}
    assert dict(scalars(line)) == {"train/loss": 2.0, "train/mtp_loss/1": 5.0, "validation/prose/loss": 4.0}
    assert dict(scalars({"step": 3, "sums_right": {"one-digit sums": 0.5}})) == {"sums_right/one-digit-sums": 0.5}


def test_without_the_library_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MinidsError, match=r"minids\[tensorboard\]"):
        need_tensorboard()
    assert tensorboard.FOLDER == "tensorboard"
