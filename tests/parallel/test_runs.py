"""minids train on several processes: checkpoints, going on with another number of them, what is refused, and how a run ends."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from several_ranks import BIN, environment, mpiexec
from small_run import write_text

import minids
from minids.training.metrics import read_metrics

pytestmark = pytest.mark.parallel

MODEL = {"hidden-size": 16, "num-hidden-layers": 2, "intermediate-size": 24, "moe-intermediate-size": 8}
MODEL |= {"num-attention-heads": 2, "q-lora-rank": 8, "kv-lora-rank": 8, "qk-nope-head-dim": 8, "v-head-dim": 8}
RUN = {"context-length": 16, "batch-size": 4, "eval-tokens": 64, "eval-every": 4, "save-every": 4, "log-every": 1}
SMALL = [word for name, value in MODEL.items() for word in (f"--model.{name}", str(value))]
SMALL += [word for name, value in RUN.items() for word in (f"--{name}", str(value))]
NOBODY_WAITS = 120  # seconds: far less than a hang, far more than an end


ACTING = """
import os, sys
from minids.cli import main
from minids.parallel.mpi import world
from minids.training.run import Run

before = Run._report
def report(self, bar, done, took):
    before(self, bar, done, took)
    if self.step == {step} and {who}:
        {act}
Run._report = report
sys.exit(main(sys.argv[1:]))
"""  # minids with something that happens behind a step


@pytest.fixture
def text(tmp_path):
    return write_text(tmp_path)


def train(ranks, tmp_path, *options, **how):
    return mpiexec(ranks, "-m", "minids", "train", *map(str, options), cwd=tmp_path, seconds=NOBODY_WAITS, **how)


def losses(folder) -> list[float]:
    return [line["loss"] for line in read_metrics(folder / "metrics.jsonl") if "loss" in line]


def assert_refused(done, *words):
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, f"not one line: {done.stderr}"
    assert all(word in done.stderr for word in words), done.stderr


def test_a_run_is_parted_written_once_and_goes_on_with_any_number_of_processes(tmp_path, text):
    start = train(
        4, tmp_path, *SMALL, "--data", *text, "--out", "a", "--steps", 8, "--expert-parallel", 2, "--data-parallel", 2
    )
    assert start.returncode == 0, start.stderr
    assert start.stdout.count("Training tiny on") == 1, "not one process speaks"
    assert "2 replicas" in start.stdout and not start.stderr
    whole = minids.load(tmp_path / "a")
    assert whole.parameters.values.size == sum(p.size for p in type(whole).declared(whole.config))
    more = train(3, tmp_path, "--out", "a", "--resume", "--steps", 12)
    assert more.returncode == 0 and "is 3 over all processes" in more.stdout, more.stderr
    last = subprocess.run(
        [sys.executable, "-m", "minids", "train", "--out", "a", "--resume", "--steps", "16"],
        **{"cwd": tmp_path, "env": environment(), "capture_output": True, "text": True, "timeout": NOBODY_WAITS},
    )
    assert last.returncode == 0, last.stderr
    assert len(losses(tmp_path / "a")) == 16


def test_a_resumed_run_is_that_of_one_process(tmp_path, text):
    """Four steps by one process, four by two ranks with the experts between them, four by four ranks."""
    alone, parts = tmp_path / "alone", tmp_path / "parts"
    options = [*SMALL, "--data", *text, "--steps", 12, "--workers", 1]
    assert train(1, tmp_path, *options, "--out", alone).returncode == 0
    for step, ranks, more in ((4, 1, options), (8, 2, ("--resume", "--expert-parallel", 2)), (12, 4, ("--resume",))):
        code = ACTING.format(step=step, who="self.group.first", act="self._stop = True")
        done = mpiexec(ranks, "-c", code, "train", *map(str, more), "--out", str(parts), cwd=tmp_path, seconds=NOBODY_WAITS)
        assert done.returncode == 0, done.stderr
    assert losses(parts) == pytest.approx(losses(alone), rel=1e-5)
    one, several = (minids.load(folder).parameters.values for folder in (alone, parts))
    assert np.max(np.abs(one - several)) <= 1e-5


def test_the_first_process_alone_writes_and_all_take_part_in_validation(tmp_path, text):
    for ranks, out in ((1, "one"), (4, "four")):
        options = [*SMALL, "--data", *text, "--steps", 4, "--workers", 4 // ranks, "--trace-every", 2, "--out", out]
        assert train(ranks, tmp_path, *options).returncode == 0
    found = [
        [{k: v for k, v in line.items() if k not in ("seconds", "tokens_per_second")} for line in read_metrics(path)]
        for path in (tmp_path / "one" / "metrics.jsonl", tmp_path / "four" / "metrics.jsonl")
    ]
    assert found[0] == found[1]
    for name in ("step-000000.npz", "step-000002.npz"):
        one, four = ((tmp_path / out / "routing" / name).read_bytes() for out in ("one", "four"))
        assert one == four, f"routing/{name} differs"
    described = [json.loads((tmp_path / out / "run.json").read_text()) for out in ("one", "four")]
    assert [each.get("processes", 1) for each in described] == [1, 4]


@pytest.mark.parametrize(
    ("ranks", "options", "words"),
    [
        (3, ("--expert-parallel", 2), ("expert_parallel = 2", "3 processes")),
        (4, ("--data-parallel", 3), ("data_parallel = 3", "4 processes")),
        (
            4,
            ("--expert-parallel", 4, "--model.n-routed-experts", 2, "--model.n-group", 1, "--model.topk-group", 1),
            ("only 2",),
        ),
        (2, ("--expert-parallel", 2, "--ranks-per-node", 3), ("ranks_per_node = 3",)),
        (2, ("--expert-parallel", 2, "--workers", 2), ("workers = 2",)),
        (2, ("--model.no-seq-aux",), ("seq_aux",)),
        (2, ("--steps", 0), ("steps = 0",)),
    ],
)
def test_what_cannot_be_parted_is_refused_in_one_line(tmp_path, text, ranks, options, words):
    if "--model.n-routed-experts" in options:
        options = (*options, "--model.num-experts-per-tok", 1)
    assert_refused(train(ranks, tmp_path, *SMALL, "--data", *text, "--out", "a", *options), *words)
    assert not (tmp_path / "a").exists(), "something was written"


def test_other_commands_are_for_one_process(tmp_path):
    assert_refused(mpiexec(2, "-m", "minids", "chat", cwd=tmp_path), "chat", "one process")


def test_several_are_asked_for_and_there_is_one(tmp_path):
    assert_refused(train(1, tmp_path, "--expert-parallel", 2), "mpiexec", "minids[parallel]")


def failing(tmp_path, text, rank, act):
    """A run of four ranks of which one acts at step 6, two steps after a checkpoint."""
    options = [*SMALL, "--data", *text, "--steps", "12", "--out", "a", "--expert-parallel", "2"]
    code = ACTING.format(step=6, who=f"world().rank == {rank}", act=act)
    began = time.monotonic()
    done = mpiexec(4, "-c", code, "train", *options, cwd=tmp_path, seconds=NOBODY_WAITS)
    assert done.returncode != 0
    assert time.monotonic() - began < NOBODY_WAITS
    while left := [folder for folder in processes() if folder.startswith(str(tmp_path))]:
        assert time.monotonic() - began < NOBODY_WAITS, f"{len(left)} processes are left"
        time.sleep(0.1)
    return done


def processes() -> list[str]:
    """Folders that processes of this machine work in."""
    found = []
    for entry in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if entry.isdigit():
            try:
                found.append(os.readlink(f"/proc/{entry}/cwd"))
            except OSError:
                continue
    return found


def assert_goes_on(tmp_path):
    assert minids.load(tmp_path / "a").parameters.values.size
    assert (tmp_path / "a" / "latest").read_text().strip() == "step-000004"
    done = train(2, tmp_path, "--out", "a", "--resume")
    assert done.returncode == 0 and len(losses(tmp_path / "a")) == 12, done.stderr


def test_an_exception_on_one_rank_ends_all_with_one_message(tmp_path, text):
    done = failing(tmp_path, text, 2, "raise KeyError('a bug here')")
    assert done.stderr.count("Traceback") == 1 and "process 2" in done.stderr and "a bug here" in done.stderr
    assert_goes_on(tmp_path)


def test_what_one_rank_alone_cannot_do_is_said_in_one_line(tmp_path, text):
    done = failing(tmp_path, text, 1, "from minids.errors import MinidsError; raise MinidsError('this disk is full')")
    ours = [line for line in done.stderr.splitlines() if "minids" in line or "Error" in line]  # mpiexec may tell of the end too
    assert ours == ["process 1: minids: this disk is full"], done.stderr


def test_a_killed_rank_ends_all(tmp_path, text):
    done = failing(tmp_path, text, 3, f"os.kill(os.getpid(), {int(signal.SIGKILL)})")
    assert "KILLED" in (done.stdout + done.stderr).upper()
    assert_goes_on(tmp_path)


@pytest.mark.parametrize("starter", [["-m", "mpi4py", "-m", "minids"], ["-m", "minids"]], ids=" ".join)
def test_both_ways_to_start(tmp_path, starter):
    done = mpiexec(2, *starter, "--version", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.count("minids") == 1, done.stderr


def test_ctrl_c_stops_all_after_the_same_step(tmp_path, text):
    options = [*SMALL, "--data", *text, "--steps", "100000", "--out", "a", "--eval-every", "0"]
    command = [str(BIN / "mpiexec"), "-n", "2", sys.executable, "-m", "minids", "train", *options]
    running = subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    metrics, until = tmp_path / "a" / "metrics.jsonl", time.monotonic() + NOBODY_WAITS
    while not (metrics.exists() and len(losses(tmp_path / "a")) > 5) and time.monotonic() < until:
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    said, _ = running.communicate(timeout=NOBODY_WAITS)
    assert "To go on: minids train --out a --resume" in said
    assert minids.load(tmp_path / "a").parameters.values.size


def test_evaluation_and_studies_are_shared(tmp_path, text):
    options = [*SMALL, "--data", *text, "--steps", 2, "--workers", 1, "--out", "run"]
    assert train(1, tmp_path, *options).returncode == 0
    command = ("-m", "minids", "evaluate", "--checkpoint", "run", "--json")
    one, three = (mpiexec(ranks, *command, cwd=tmp_path, seconds=NOBODY_WAITS) for ranks in (1, 3))
    assert three.returncode == 0, three.stderr
    assert json.loads(one.stdout) == json.loads(three.stdout)
    command = (
        "-m",
        "minids",
        "study",
        "mtp",
        "--steps",
        "1",
        "--arms",
        "none",
        "two modules",
        "--seeds",
        "0",
        "--out",
        "study",
    )
    done = mpiexec(2, *command, cwd=tmp_path, seconds=NOBODY_WAITS)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "study" / "runs").iterdir())) == 2
    assert len(json.loads((tmp_path / "study" / "results.json").read_text())["arms"]) == 2


def test_what_is_exchanged_in_a_step_is_measured(tmp_path):
    command = ("-m", "minids", "bench", "exchange", "--sizes", "A-12x64", "--rounds", "2", "--json")
    more = ("--expert-parallel", "2", "--low-precision-exchange")
    alone, two = (mpiexec(n, *command, *(more if n > 1 else ()), cwd=tmp_path, seconds=NOBODY_WAITS) for n in (1, 2))
    assert two.returncode == 0, two.stderr
    alone, two = (json.loads(done.stdout)["sizes"]["A-12x64"] for done in (alone, two))
    assert alone["exchanges"] == {}
    assert two["first_loss"] == pytest.approx(alone["first_loss"], rel=1e-3)
    assert two["bytes_of_weights"] < 0.7 * alone["bytes_of_weights"]
    assert two["bytes_of_moments"] == pytest.approx(alone["bytes_of_moments"] / 2, abs=64)
    dispatch, combine = (two["exchanges"][f"across {what}"]["bytes_between"] for what in ("dispatch", "combine"))
    assert dispatch / combine == pytest.approx((128 + 4) / (2 * 128)), "eight bits and a scale out, sixteen bits back"
    assert_refused(mpiexec(2, "-m", "minids", "bench", "train", cwd=tmp_path), "one process")


def test_processes_of_another_mpi_do_not_each_train_alone(tmp_path):
    env = environment() | {"SLURM_STEP_NUM_TASKS": "4"}
    assert_refused(train(1, tmp_path, "--steps", 1, env=env), "4 processes", "do not find each other")
    assert not (tmp_path / "runs").exists()
