"""Notebook 16: threads that stand in for ranks, commands on several processes, a small model, the checks of its exercises."""

import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from minids import check
from minids.check import Report
from minids.config import ModelConfig
from minids.model import DeepSeekV3
from minids.parallel import eplb
from minids.parallel.pipeline import Together
from minids.terminal import say

Array = np.ndarray

WAITED = "waited for ever"
"""What a rank returns that nobody came to meet."""

EPLB_EXAMPLE = np.array(
    [[90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86], [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27]]
)
"""(layers, experts): the loads of the example in the EPLB repository's README."""


def on_ranks(work: Callable, meeting, *arguments) -> list:
    """work(meeting, rank, …) on a thread for each of ``meeting.ranks`` ranks, each with its own of every argument: what each
    returns, or ``WAITED`` where the meeting's door stayed shut."""
    results: list = [None] * meeting.ranks

    def run(rank: int) -> None:
        try:
            results[rank] = work(meeting, rank, *(each[rank] for each in arguments))
        except threading.BrokenBarrierError:
            results[rank] = WAITED

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(meeting.ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def rows_for(counts: Array, width: int) -> list[list[Array]]:
    """counts (R, R): how many rows each rank sends to each → the rows, full of ones."""
    return [[np.ones((n, width)) for n in of_rank] for of_rank in counts]


def mpiexec(ranks: int, command: str, seconds: int = 60) -> None:
    """Prints what ``mpiexec -n RANKS python COMMAND`` does, or why it cannot run here."""
    program = Path(sys.executable).with_name("mpiexec")
    if importlib.util.find_spec("mpi4py") is None or not program.exists():
        say("needs several processes: pip install 'minids[parallel]'")
        return
    limits = {"MPIEXEC_TIMEOUT": str(seconds), "OPENBLAS_NUM_THREADS": "1"}
    line = [str(program), "-n", str(ranks), sys.executable, *command.split()]
    done = subprocess.run(line, capture_output=True, text=True, env=os.environ | limits)
    say(done.stdout + done.stderr)


def small_model() -> DeepSeekV3:
    """``tiny``, narrower, in float64: all parts of DeepSeek-V3, MTP module included."""
    sizes = {"hidden_size": 16, "intermediate_size": 24, "moe_intermediate_size": 8, "vocab_size": 32}
    config = ModelConfig.preset("tiny", **sizes, bos_token_id=None, eos_token_id=None, initializer_range=0.02)
    return DeepSeekV3(config, seed=0, dtype=np.float64)


def on_one_device(model: DeepSeekV3, text: Array) -> None:
    """Leaves in the model the gradients of all micro-batches, text (micro-batches, B, T + 1)."""
    model.parameters.zero_grads()
    for batch in text:
        model.forward_backward(batch[:, :-1], batch[:, 1:], weight=1 / len(text))


def apart_from_one_device(line: Together, model: DeepSeekV3) -> float:
    """The largest difference of a line's gradients to those that the model holds, over the largest of its parameter."""
    got = line.gradients()
    return max(np.abs(got[p.name] - p.grad).max() / np.abs(p.grad).max() for p in model.parameters)


# Exercise 1.


def check_rows_to_ranks(rows_to_ranks: Callable) -> Report:
    """Tokens that go to each rank, for two and four ranks of several experts, and where a rank gets none."""
    rng = np.random.default_rng(0)
    some = np.array([rng.choice(16, 4, replace=False) for _ in range(50)])
    usual = {"a token with two experts on one rank is counted twice.": every_choice}
    return check.against(token_by_token, rows_to_ranks, [(some, 16, 4), (some, 16, 2), (some % 4, 16, 8)], usual=usual)


def token_by_token(chosen: Array, experts: int, ranks: int) -> Array:
    """Each token once to each rank that holds one of its experts."""
    counts = np.zeros(ranks, int)
    for token in chosen:
        for rank in {int(e) // (experts // ranks) for e in token}:
            counts[rank] += 1
    return counts


def every_choice(chosen: Array, experts: int, ranks: int) -> Array:
    """Wrong: choices are counted, not tokens."""
    return np.bincount(chosen.reshape(-1) // (experts // ranks), minlength=ranks)


# Exercise 2.


def check_total(total: Callable, meeting: Callable) -> Report:
    """The sum on every rank, where some bring no numbers; ``meeting(ranks)`` makes the place where they meet."""

    def on_every_rank(*numbers):
        results = on_ranks(total, meeting(len(numbers)), numbers)
        return np.array([np.nan if r is None or isinstance(r, str) else r for r in results], float)

    on_every_rank.__name__ = total.__name__
    cases = [(np.ones(2), np.ones(0), np.arange(4.0)), (np.ones(0), np.ones(0)), (np.array([5.0]),)]
    return check.against(the_sum_on_each, on_every_rank, cases)


def the_sum_on_each(*numbers: Array) -> Array:
    """The sum, once for each rank."""
    return np.full(len(numbers), sum(each.sum() for each in numbers))


# Exercise 3.


def check_copies(copies: Callable) -> Report:
    """Copies of each expert: skewed loads, those of the EPLB repository, and equal ones."""
    skewed = np.random.default_rng(0).permutation(1000 / np.arange(1, 17))
    sets = [(skewed, 20), (EPLB_EXAMPLE[0] * 1.0, 16), (np.ones(3), 3), (np.ones(3), 7)]
    usual = {"every further place goes to one expert, although each copy takes load from it.": all_to_the_favourite}
    return check.against(by_eplb, copies, sets, usual=usual)


def by_eplb(loads: Array, places: int) -> Array:
    """As the package gives them."""
    return np.bincount(eplb.given_places(loads, places))


def all_to_the_favourite(loads: Array, places: int) -> Array:
    """Wrong: looks at the load alone."""
    count = np.ones(len(loads), int)
    count[np.argmax(loads)] += places - len(loads)
    return count
