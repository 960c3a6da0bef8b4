"""Whatever ends a run, the last good checkpoint opens and the resumed run is the uninterrupted one, bit for bit."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest
from small_run import RUN, forked, in_a_new_python, lines, quiet, start_or_resume, stop_after, write_text

import minids
from minids.checkpoint.latest import latest_checkpoint
from minids.errors import MinidsError
from minids.training.run import Run

pytestmark = pytest.mark.slow
KILLS = 100


def whole_run(folder):
    """A run that nothing interrupted: its folder and its data."""
    data = write_text(folder)
    start_or_resume(folder / "whole", data).run()  # compiles what is missing, so that a run takes the same time from here on
    return folder / "whole", data


def seconds_of_a_run(out, data):
    began = time.perf_counter()
    child = forked(lambda: start_or_resume(out, data).run())
    assert os.waitpid(child, 0)[1] == 0
    return time.perf_counter() - began


def kill_a_hundred_times(folder):
    reference, data = whole_run(folder)
    seconds = min(seconds_of_a_run(folder / f"timed-{i}", data) for i in range(3))
    rng, kills, runs, opened = random.Random(0), 0, 0, 0
    while kills < KILLS:
        out = folder / f"killed-{runs}"
        runs += 1
        for _ in range(60):
            child = forked(lambda out=out: start_or_resume(out, data).run())
            if kills < KILLS:
                time.sleep(rng.uniform(0, seconds))
                os.kill(child, signal.SIGKILL)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if status == -signal.SIGKILL:
                kills += 1
                if latest_checkpoint(out):
                    minids.load(out)
                    opened += 1
                continue
            assert status == 0, f"a run ended by itself, or hung for a minute: exit code {status}"
            break
        else:
            raise AssertionError("killed 60 times, the run has not come to its end")
        assert lines(out) == lines(reference), "metrics are torn, doubled or other numbers"
        for name in ("model.safetensors", "optimizer.safetensors"):
            ours = next(latest_checkpoint(out).glob(name.replace(".", "*.")))
            assert ours.read_bytes() == (latest_checkpoint(reference) / ours.name).read_bytes(), f"{ours.name} differs"
    assert opened > KILLS // 4, "hardly any kill came after a checkpoint: this proves nothing"


def test_a_hundred_kills_at_any_moment_lose_nothing(tmp_path):
    """SIGKILL after a random part of the run's time: in a step, in a save (there is one per step), in the start."""
    assert in_a_new_python(kill_a_hundred_times, tmp_path) == 0, "see what it printed"


def train_until_the_disk_is_full(out, data):
    import resource  # not on Windows, where this file must load all the same

    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        start_or_resume(out, data).run()
    except MinidsError as error:
        (out / "said").write_text(str(error))


def test_a_full_disk_ends_the_run_in_a_line_and_what_was_saved_opens(tmp_path):
    """A limit on the size of a file stands for the full disk: the metrics still fit, the next checkpoint does not."""
    reference, data = whole_run(tmp_path)
    out = tmp_path / "full"
    run = RUN.replace(save_every=5)
    training = start_or_resume(out, data, run)
    stop_after(training, 1)
    training.run()
    assert latest_checkpoint(out).name == "step-000001"

    assert in_a_new_python(train_until_the_disk_is_full, out, data) == 0
    said = (out / "said").read_text()
    assert "cannot be written" in said and len(said.splitlines()) == 1
    assert latest_checkpoint(out).name == "step-000001" and not list(out.glob(".step*"))
    minids.load(out)
    start_or_resume(out, data).run()
    ours, theirs = ([line["main_loss"] for line in lines(where) if "main_loss" in line] for where in (out, reference))
    assert ours == theirs


def test_ctrl_c_finishes_the_step_saves_and_says_how_to_go_on(tmp_path):
    data, out = write_text(tmp_path), tmp_path / "run"
    command = [sys.executable, "-m", "minids", "train", "--data", *data, "--out", str(out), "--steps", "100000"]
    command += [
        "--batch-size",
        "2",
        "--context-length",
        "16",
        "--eval-every",
        "100000",
        "--sample-every",
        "0",
        "--log-every",
        "1",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline and not (out / "metrics.jsonl").exists():
            time.sleep(0.05)
        while time.monotonic() < deadline and len((out / "metrics.jsonl").read_bytes().splitlines()) < 4:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=180)[0]
    assert process.returncode == 0, said
    assert "Stopping after this step" in said and f"minids train --out {out} --resume" in said
    step = lines(out)[-1]["step"]
    assert latest_checkpoint(out).name == f"step-{step:06d}", "the last step that was told of was not saved"
    assert Run.resume(out, say=quiet).step == step


def test_two_processes_cannot_train_into_one_folder(tmp_path):
    data, out = write_text(tmp_path), tmp_path / "run"
    training = start_or_resume(out, data)
    command = [sys.executable, "-m", "minids", "train", "--out", str(out), "--resume"]
    second = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert second.returncode == 2 and f"another process ({os.getpid()}) trains here" in second.stderr
    training.run()
    assert subprocess.run(command, capture_output=True, timeout=180).returncode == 0


def test_memory_does_not_grow_over_5000_steps(tmp_path):
    import resource

    data, out = write_text(tmp_path), tmp_path / "run"
    run = RUN.replace(steps=5000, save_every=1000, eval_every=1000, log_every=50)
    training, resident = start_or_resume(out, data, run), []

    @contextmanager
    def weigh(training):
        if training.step % 100 == 0:
            with open("/proc/self/statm") as file:
                resident.append(int(file.read().split()[1]) * resource.getpagesize())
        yield

    training.observers.append(weigh)
    training.run()
    early, late = np.median(resident[10:15]), np.median(resident[-5:])
    assert late - early < 4 << 20, f"{(late - early) / 2**20:.1f} MB more after 5,000 steps than after 1,000"
