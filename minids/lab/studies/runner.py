"""Runs what a study is missing, shows how far it is, and puts the results together."""

import multiprocessing
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

from threadpoolctl import threadpool_limits
from tqdm import tqdm

from minids.errors import MinidsError, refuse
from minids.files import make_writable
from minids.lab.studies.registry import study as study_called
from minids.lab.studies.store import Store, collected, write_results
from minids.lab.studies.study import Job, Outcome
from minids.lab.studies.table import one_line
from minids.processor import cores
from minids.terminal import say, wrapped
from minids.training.printing import progress_bar
from minids.training.process_group import ProcessGroup

Say = Callable[[str], None]
_REFRESH = 0.5  # seconds between two looks at the progress


def run_study(
    name: str, out: str | Path, seeds: tuple[int, ...] = (), steps: int = 0, arms: tuple[str, ...] = (),
    data: tuple[str, ...] = (), processes: int = 0, quick: bool = False, threads: int = 1, say: Say = say,
    group: ProcessGroup | None = None,
) -> dict:  # fmt: skip
    """Run every arm with every seed, those in ``out`` already left out; write and return the results. The processes of
    ``group`` share the runs.

    Empty ``seeds``, ``arms``, ``data`` and 0 ``steps`` mean the study's own; 0 ``processes`` as many as cores allow.
    """
    study = study_called(name)
    seeds = seeds or (study.seeds[:1] if quick else study.seeds)
    steps = steps or (study.quick_steps if quick else study.steps)
    data = data or study.data
    for arm in arms:
        if arm not in study.arms:
            raise MinidsError(f"arms = {arm!r}: {name} has no such arm; there are {', '.join(study.arms)}")
    # Seed by seed: stopped half-way, every arm has been run once.
    wanted = dict.fromkeys(arms) or study.arms
    jobs = [Job(arm, seed, steps, data, threads=threads) for seed in dict.fromkeys(seeds) for arm in wanted]
    make_writable(Path(out))
    store = Store(out, name, study)
    missing, group = [job for job in jobs if store.read(job) is None], group or ProcessGroup()
    before = len(jobs) - len(missing)
    if group.size > 1:
        if processes > 1:
            raise refuse("processes", processes, "mpiexec has started processes; each makes one run at a time")
        group.wait()  # all have seen what is missing
        missing, processes = missing[group.rank :: group.size], 1
    processes = min(processes or max(cores() // threads, 1), max(len(missing), 1))
    say(wrapped(f"{name}: {study.question}"))
    say(
        f"{len(jobs)} runs of {steps} steps ({before} of them finished before), "
        f"{processes * group.size} at a time with {threads} thread{'s' * (threads > 1)} each, into {out}"
    )
    began = time.perf_counter()
    with progress_bar(len(missing) * steps, 0) as bar:
        finished = _in_processes(name, missing, processes, bar) if processes > 1 else _here(name, missing, bar)
        try:
            for done, (job, outcome, seconds) in enumerate(finished, start=1):
                found = store.write(job, outcome, seconds)
                left = (len(missing) - done) * (time.perf_counter() - began) / done
                at = f"{done + before}/{len(jobs)}" if group.size == 1 else f"{done}/{len(missing)} of this process"
                line = f"[{at}] {one_line(study, job, found)}, {left:.0f} s left"
                with tqdm.external_write_mode():
                    say(line)
        except KeyboardInterrupt:
            say("Stopped. The finished runs are kept: the same command goes on with the others.")
            raise
    group.wait()  # for the last run of all
    command = ["minids", "study", name, "--seeds", *map(str, seeds), "--steps", str(steps)]
    command += ["--arms", *arms] if arms else []
    command += ["--threads", str(threads)] if threads != 1 else []
    command += ["--data", *data] if data != study.data else []
    results = collected(store, jobs, shlex.join(command))
    if group.first:
        write_results(Path(out) / "results.json", results)
    group.wait()
    return results


def one_run(name: str, job: Job) -> tuple[Outcome | str, float]:
    """One arm with one seed: what it gave, or why it failed; and the seconds it took."""
    from minids.training.loop import Diverged

    study, began = study_called(name), time.perf_counter()
    try:
        with threadpool_limits(1, user_api="blas"):
            outcome = study.run(study.arms[job.arm], job)
    except Diverged as error:
        outcome = str(error)
    return outcome, time.perf_counter() - began


Finished = Iterator[tuple[Job, Outcome | str, float]]  # what it gave, or why it failed; seconds


def _here(name: str, jobs: list[Job], bar) -> Finished:
    """In this process, one after another."""
    for job in jobs:
        yield job, *one_run(name, replace(job, tell=bar.update))


def _in_processes(name: str, jobs: list[Job], processes: int, bar) -> Finished:
    """Several at a time. A process is started afresh (not forked), which works the same on every system."""
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    pool = ProcessPoolExecutor(processes, context, _begin, (counter,))
    try:
        running = {pool.submit(_work, name, job): job for job in jobs}
        while running:
            ended, _ = wait(running, _REFRESH, "FIRST_COMPLETED")
            bar.update(counter.value - bar.n)
            for future in ended:
                yield running.pop(future), *future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _begin(counter) -> None:
    """In a new process: where it counts its steps. Ctrl-C, which reaches every process, ends it without a word."""
    global _counter
    _counter = counter
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _work(name: str, job: Job) -> tuple[Outcome | str, float]:
    def tell(steps: int) -> None:
        with _counter.get_lock():
            _counter.value += steps

    return one_run(name, replace(job, tell=tell))
