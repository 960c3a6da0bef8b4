"""A run's folder always has one whole checkpoint, and refuses what it cannot take."""

import shutil

import pytest

from minids.checkpoint.latest import latest_checkpoint
from minids.errors import MinidsError
from minids.training.run_folder import RunFolder


def write(text):
    return lambda folder: (folder / "weights").write_text(text)


def test_the_newest_two_checkpoints_are_kept_and_the_pointer_follows(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    for step in (1, 2, 3):
        run.write_checkpoint(step, write(str(step)))
        assert (latest_checkpoint(run.path) / "weights").read_text() == str(step)
    assert sorted(p.name for p in run.path.glob("step-*")) == ["step-000002", "step-000003"]


def test_a_failure_while_writing_leaves_the_last_good_checkpoint(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    run.write_description({})
    run.write_checkpoint(1, write("good"))

    def half(folder):
        (folder / "weights").write_text("ha")
        raise OSError(28, "No space left on device")

    with pytest.raises(MinidsError, match="No space left"):
        run.write_checkpoint(2, half)
    assert (latest_checkpoint(run.path) / "weights").read_text() == "good"
    assert sorted(p.name for p in run.path.iterdir()) == ["latest", "lock", "run.json", "step-000001"]


def test_a_kill_while_writing_is_cleaned_up_by_the_next_session(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    run.write_description({})
    run.write_checkpoint(1, write("good"))

    def killed(folder):
        (folder / "weights").write_text("ha")
        raise KeyboardInterrupt  # as sudden as a test can be

    with pytest.raises(KeyboardInterrupt):
        run.write_checkpoint(2, killed)
    assert (run.path / ".step-000002").exists()
    run.unlock()  # as the end of a process does
    again = RunFolder.open(run.path)
    assert not (run.path / ".step-000002").exists()
    assert (latest_checkpoint(again.path) / "weights").read_text() == "good"


def test_the_same_step_can_be_written_again(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    run.write_checkpoint(4, write("first"))
    run.write_checkpoint(4, write("second"))
    assert (latest_checkpoint(run.path) / "weights").read_text() == "second"


@pytest.mark.parametrize("kind", ["run", "other files", "file", "below a file"])
def test_a_taken_place_is_refused_and_left_as_it_is(tmp_path, kind):
    path = tmp_path / "there"
    if kind == "run":
        run = RunFolder.create(path)
        run.write_description({})
        run.write_checkpoint(4, lambda folder: None)
    elif kind == "other files":
        path.mkdir()
        (path / "thesis.txt").write_text("precious")
    else:
        path.write_text("precious")
        path = path / "run" if kind == "below a file" else path
    before = sorted(p.name for p in tmp_path.rglob("*"))
    with pytest.raises(MinidsError, match=r"^out = .*: "):
        RunFolder.create(path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_without_a_step_blocks_nothing_and_one_with_some_goes_when_told_to(tmp_path, overwrite):
    run = RunFolder.create(tmp_path / "run")
    run.write_description({"old": True})
    run.metrics.write_text("{}\n")
    (run.path / "routing").mkdir()
    if overwrite:
        run.write_checkpoint(4, lambda folder: None)
        run.write_checkpoint(8, lambda folder: None)
    (run.path / ".step-000012").mkdir()  # a checkpoint that was being written
    (run.path / "my notes.txt").write_text("precious")
    run.unlock()
    RunFolder.create(run.path, overwrite).unlock()
    assert sorted(p.name for p in run.path.iterdir()) == ["lock", "my notes.txt"]


def test_a_run_that_trains_is_not_overwritten(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    run.write_description({})
    run.write_checkpoint(4, lambda folder: None)
    with pytest.raises(MinidsError, match="another process"):
        RunFolder.create(run.path, overwrite=True)
    assert (run.path / "step-000004").is_dir()


def test_a_run_killed_before_it_had_described_itself_can_be_started_again(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    for name in (".writable", ".run.json.0123abcd.tmp"):
        (run.path / name).write_text("")
    run.unlock()
    RunFolder.create(run.path).write_description({})
    assert sorted(p.name for p in run.path.iterdir()) == ["lock", "run.json"]


def test_a_pointer_that_leaves_the_folder_is_refused(tmp_path):
    (tmp_path / "latest").write_text("../elsewhere")
    with pytest.raises(MinidsError, match="bare name"):
        latest_checkpoint(tmp_path)


def test_resuming_where_there_is_no_run_is_refused(tmp_path):
    with pytest.raises(MinidsError, match="no run to resume"):
        RunFolder.open(tmp_path)


def test_a_lost_pointer_is_found_again(tmp_path):
    """A kill between the checkpoint's rename and the pointer's, or somebody who removed a damaged checkpoint."""
    run, said = RunFolder.create(tmp_path / "run"), []
    assert run.newest(said.append) is None
    for step in (3, 6):
        run.write_checkpoint(step, write(str(step)))
    (run.path / "latest").unlink()
    assert run.newest(said.append).name == "step-000006" == latest_checkpoint(run.path).name
    shutil.rmtree(run.path / "step-000006")
    assert run.newest(said.append).name == "step-000003" == latest_checkpoint(run.path).name
    assert "latest is missing" in said[0] and "names step-000006, which is not there" in said[1] and len(said) == 2


def test_a_lost_pointer_is_not_set_to_a_damaged_checkpoint(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    for step in (3, 6):
        run.write_checkpoint(step, write(str(step)))
    (run.path / "latest").unlink()
    (run.path / "step-000006" / "weights").write_text("9")
    assert run.newest(print).name == "step-000003"
    (run.path / "latest").unlink()
    (run.path / "step-000003" / "weights").write_text("9")
    with pytest.raises(MinidsError, match=r"no whole checkpoint .step-000003, step-000006"):
        run.newest(print)


def test_a_pointer_that_cannot_be_read_is_no_missing_one(tmp_path):
    (tmp_path / "latest").write_bytes(b"\xff\xfe")
    with pytest.raises(MinidsError, match="latest: cannot be read"):
        latest_checkpoint(tmp_path)


def test_steps_of_seven_digits_come_after_those_of_six(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    for step in (999_999, 1_000_000):
        run.write_checkpoint(step, write(str(step)))
    (run.path / "latest").unlink()
    newest = run.newest(print)
    assert newest.name == "step-1000000" and run.before(newest).name == "step-999999"


def test_what_has_no_list_of_checksums_is_no_whole_checkpoint(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    run.write_checkpoint(3, write("3"))
    (run.path / "latest").write_text("")
    (run.path / "step-000009").mkdir()  # half copied, half removed
    assert run.newest(print).name == "step-000003"


def test_a_folder_called_latest_is_no_pointer(tmp_path):
    (tmp_path / "latest").mkdir()
    assert latest_checkpoint(tmp_path) is None and latest_checkpoint("x" * 300) is None
