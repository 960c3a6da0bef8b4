"""A run of a fraction of a second, in this process or in one of its own that may be killed."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from threadpoolctl import threadpool_limits
from tqdm import tqdm

from minids.config import ModelConfig, TrainConfig
from minids.training.metrics import read_metrics
from minids.training.run import Run

MODEL = ModelConfig.preset(
    "tiny",
    hidden_size=16,
    num_hidden_layers=2,
    intermediate_size=24,
    moe_intermediate_size=8,
    num_attention_heads=2,
    q_lora_rank=8,
    kv_lora_rank=8,
    qk_nope_head_dim=8,
    qk_rope_head_dim=4,
    v_head_dim=8,
    initializer_range=0.02,
)
RUN = TrainConfig(
    steps=14,
    batch_size=2,
    context_length=16,
    log_every=1,
    eval_every=7,
    eval_tokens=64,
    sample_every=0,
    save_every=1,
    learning_rate=1e-2,
    workers=1,
)


def write_text(folder: Path) -> list[str]:
    path = folder / "rhyme.txt"
    path.write_text("one, two, three, four, five; once I caught a fish alive.\n\n" * 40)
    return [str(path)]


def quiet(line):
    pass


def start_or_resume(out: Path, data: list[str], run: TrainConfig = RUN) -> Run:
    if (out / "run.json").exists():
        return Run.resume(out, say=quiet)
    return Run.start(out, MODEL, run, data, "tiny", quiet)


def at_step(run: Run, step: int, act: Callable[[], None]) -> None:
    """Have ``act`` called when the run is about to make step ``step``, counted from 1."""

    @contextmanager
    def observer(run: Run) -> Iterator[None]:
        if run.step + 1 == step:
            act()
        yield

    run.observers.append(observer)


def stop_after(run: Run, step: int) -> None:
    """Ctrl-C during a step."""
    at_step(run, step, run.ask_to_stop)


def close(run: Run) -> None:
    """Let go of a run that is not run to its end."""
    run.metrics.close()
    run.folder.unlock()


def lines(out: Path) -> list[dict]:
    """The metrics without what depends on the clock."""
    clock = ("seconds", "tokens_per_second")
    return [{k: v for k, v in line.items() if k not in clock} for line in read_metrics(out / "metrics.jsonl")]


def in_a_new_python(work, *arguments) -> int:
    """``work(*arguments)`` in a process of its own that shares nothing with this one; returns its exit code.

    This one may hold threads of BLAS, of PyTorch and of pytest, which would end at a fork and leave their locks closed.
    After ten minutes it shows where it stands and ends.
    """
    process = multiprocessing.get_context("spawn").Process(target=_watched, args=(work, arguments))
    process.start()
    process.join()
    return process.exitcode


def _watched(work, arguments):
    _end_after(600)
    with threadpool_limits(1, user_api="blas"):
        work(*arguments)


def _end_after(seconds):
    faulthandler.register(signal.SIGALRM, chain=True)  # a signal: faulthandler's own clock is a thread, which a fork stops
    signal.alarm(seconds)


def forked(work) -> int:
    """``work()`` in a fork of this process. Returns its number. Exit code 0: it came to its end.

    After a minute it shows where it stands and ends.
    """
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        _end_after(60)
        # tqdm's own lock is a semaphore that forked processes share: one killed while it draws would stop all later ones.
        tqdm.set_lock(threading.RLock())
        work()
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
