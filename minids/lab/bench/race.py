"""The race on tiny Shakespeare against the clock: the preset ``shakespeare``, and beside it nanoGPT's recipe for a CPU.

Both train in earnest, by turns of 30,720 characters in one process, from their first step on, so that a busy minute is both's;
50 turns are the whole race. Reading, compiling and validation are not in the seconds.
"""

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

from minids import words
from minids.config import ModelConfig, TrainConfig
from minids.errors import refuse
from minids.lab.analysis.parameters import activated
from minids.lab.bench import nanogpt
from minids.lab.bench.peers import require_torch
from minids.lab.bench.timing import median, ratio
from minids.lab.studies.race import CHARACTERS, NANOGPT, held_out_loss
from minids.lab.studies.training import text, training
from minids.model import IGNORE
from minids.processor import cores
from minids.training.batches import validation_windows
from minids.training.optimizer import optimizer
from minids.training.text import Text

TURN = 30_720  # characters
TURNS = CHARACTERS // TURN
LOOKS = 5  # turns from one validation of ours to the next; nanoGPT's is looked at once, in the end
OURS, PEER = "minids", "nanoGPT"


class Racer(NamedTuple):
    """One that takes part."""

    steps: Iterator  # a training step each time it is asked for the next element
    steps_per_turn: int
    validation: Callable[[], float]  # nats per character on the held-out text, all of it
    parameters: int  # at work on a character


def run(rounds: int, threads: int, against: str | None, data: tuple[str, ...] = ("shakespeare",)) -> dict:
    """``rounds`` turns of ours and, if ``against`` says so, of nanoGPT's → what ``table`` prints, as JSON knows it."""
    if rounds > TURNS:
        raise refuse("rounds", rounds, f"the whole race has {TURNS}")
    threads = threads or cores()
    makers = {OURS: _ours}
    if against:
        require_torch()
        makers[PEER] = _peer
    corpus = text(data, TrainConfig.preset("shakespeare").validation_share, "chars")
    for make in makers.values():  # everyone's first steps compile, and are not the race's
        _go(make(corpus, threads).steps, 2)
    racers = {name: make(corpus, threads) for name, make in makers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in racers}
    looks = []
    for turn in range(1, rounds + 1):
        for name, racer in racers.items():
            began = time.perf_counter()
            _go(racer.steps, racer.steps_per_turn)
            seconds[name].append(time.perf_counter() - began)
        if turn % LOOKS == 0 and turn < rounds:
            looks.append((turn, racers[OURS].validation()))
    losses = {name: racer.validation() for name, racer in racers.items()}
    looks.append((rounds, losses[OURS]))
    rows = {}
    for name, racer in racers.items():
        rows[name] = {
            "parameters": racer.parameters,
            "seconds_so_far": sum(seconds[name]),
            "seconds_of_the_whole": TURNS * median(seconds[name]),
            "characters_per_second": TURN / median(seconds[name]),
            "times_as_fast_as": {other: ratio(seconds, name, other) for other in racers if other != name},
            "loss": losses[name],
        }
    return {
        "threads": threads,
        "turns": rounds,
        "characters": rounds * TURN,
        "racers": rows,
        "curve": [{"characters": turn * TURN, "seconds": sum(seconds[OURS][:turn]), "loss": loss} for turn, loss in looks],
        "passed": passed(seconds[OURS], looks),
    }


def passed(seconds: list[float], looks: list[tuple[int, float]], goal: float = NANOGPT) -> dict | None:
    """When the loss was ``goal``, on a line between the last look above it and the first below; None where it never was.

    ``seconds`` of every turn; ``looks`` at (turns so far, loss).
    """
    above = None
    for turn, loss in looks:
        if loss <= goal:
            at = float(turn)
            if above:
                at = above[0] + (turn - above[0]) * (above[1] - goal) / (above[1] - loss)
            whole = int(at)
            spent = sum(seconds[:whole]) + (at - whole) * (seconds[whole] if whole < len(seconds) else 0.0)
            return {"loss": goal, "characters": round(at * TURN), "seconds": spent}
        above = (turn, loss)
    return None


def _go(steps: Iterator, count: int) -> None:
    for _ in islice(steps, count):
        pass


def _ours(corpus: Text, threads: int) -> Racer:
    config, run = ModelConfig.preset("shakespeare"), TrainConfig.preset("shakespeare")
    model = None

    def steps() -> Iterator[None]:
        nonlocal model
        for _, _, trained in training(config, run, corpus, 0, optimizer, threads):
            model = trained
            yield

    def look() -> float:
        return held_out_loss(model, corpus, 4 * run.batch_size, run.context_length)

    return Racer(steps(), TURN // run.tokens_per_step, look, activated(config, "both"))


def _peer(corpus: Text, threads: int) -> Racer:
    peer = nanogpt.NanoGPT(corpus.training, corpus.tokenizer.vocab_size, threads)

    def look() -> float:
        losses = [
            peer.validation(validation_windows(stream.tokens, 64, nanogpt.LENGTH, None), IGNORE)
            for stream in corpus.held_out.values()
        ]
        return sum(losses) / len(losses)

    return Racer(peer.training(), TURN // (nanogpt.BATCH * nanogpt.LENGTH), look, peer.parameters)


def table(found: dict) -> str:
    """What ``run`` found, for a terminal."""
    racers, rows = found["racers"], []
    for name, r in racers.items():
        seconds = f"{r['seconds_so_far']:.1f}", f"{r['seconds_of_the_whole']:.1f}"
        rows.append((name, f"{r['parameters']:,}", f"{r['characters_per_second']:,.0f}", *seconds, f"{r['loss']:.3f}"))
    lines = [
        f"Tiny Shakespeare, {found['threads']} threads, {found['turns']} of {TURNS} turns of {TURN:,} characters each.",
        words.table(rows, ("", "parameters", "characters/s", "so far, s", "whole race, s", "loss")),
    ]
    if PEER in racers:
        times = racers[OURS]["times_as_fast_as"][PEER]
        lines.append(f"minids is {times:.2f} times as fast: {1 / times:.0%} of nanoGPT's time (medians over the turns).")
    lines.append("  ".join(f"{look['characters']:,}: {look['loss']:.3f}" for look in found["curve"]))
    if found["passed"]:
        loss, characters, seconds = found["passed"].values()
        lines.append(f"minids passed a loss of {loss} after {characters:,} characters and {seconds:.1f} s of training.")
    if found["turns"] < TURNS:
        lines.append(f"The learning rates are those of the whole race: for its losses say --rounds {TURNS}.")
    return "\n".join(lines)
