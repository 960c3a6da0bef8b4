"""minids bench: how fast it is here, against the machine's limits and the peers."""

import importlib
import json
import sys
from dataclasses import dataclass, field, fields
from typing import Annotated, Literal

from minids.config import ParallelConfig
from minids.errors import refuse
from minids.parallel.mpi import world
from minids.terminal import fit, say

SEVERAL_PROCESSES = True  # of what = exchange


@dataclass(frozen=True)
class Options:
    """How fast it is on this machine: training, every operation, decoding, with the peers measured in the same run."""

    what: Annotated[Literal["train", "kernels", "decode", "race", "speculation", "recompute", "exchange"], "positional"]
    """train: a training step. kernels: every operation by itself, on one core. decode: generation, caches and batches.
    race: the preset shakespeare on its text, and with --against torch nanoGPT's recipe for a CPU beside it.
    speculation: a trained run's guesses on its held-out text, how many stand and what they are worth.
    recompute: memory and time of a pass that keeps its activations and of one that forms the cheap ones again.
    exchange: what the processes of an mpiexec send each other in a training step, and how long they wait."""
    against: Literal["torch", "torch-compiled"] | None = None
    """Also measure transformers' model on PyTorch: same weights, same batch, by turns in the same process. torch-compiled adds
    ``torch.compile``, which needs a C++ compiler and some minutes."""
    checkpoint: str | None = None
    """speculation: the run's folder."""
    sizes: tuple[Literal["A-12x64", "A-16x256", "B-16x256"], ...] = ("A-12x64", "A-16x256", "B-16x256")
    """Model and batch: A has 1.6 M parameters, B 18.5 M; sequences × tokens."""
    rounds: int = 9
    """How often each contender takes its turn. The whole race is 50."""
    threads: int = 0
    """Cores to use, the same for everyone; 0 for all."""
    parts: tuple[Literal["generation", "context", "batch", "at-once"], ...] = ("generation", "context", "batch", "at-once")
    """Of decode: a whole generation, one more token behind a context, several sequences, several tokens at once."""
    json: bool = False
    """Print JSON."""
    parallel: Annotated[ParallelConfig, "flat"] = field(default_factory=ParallelConfig)

    def __post_init__(self) -> None:
        for name, least in (("rounds", 1), ("threads", 0)):
            if getattr(self, name) < least:
                raise refuse(name, getattr(self, name), f"must be at least {least}")


NOT_FOR = {  # what, field → why it cannot be said there
    ("race", "sizes"): "the race has a size of its own, that of the preset shakespeare",
    ("kernels", "threads"): "every operation is measured on one core; leave it out",
    ("recompute", "threads"): "is measured on one core; leave it out",
    ("exchange", "against"): "compares nobody; leave it out",
    ("recompute", "against"): "compares with keeping everything; leave it out",
    ("speculation", "sizes"): "does not concern bench speculation; it measures a run of your own",
    ("speculation", "against"): "does not concern bench speculation; it measures a run of your own",
}


def run(options: Options, given: set[str]) -> None:
    o = options
    for (what, name), because in NOT_FOR.items():
        if o.what == what and name in given:
            raise refuse(name, getattr(o, name), because)
    for name in given & {each.name for each in fields(ParallelConfig)}:
        if o.what != "exchange":
            raise refuse(name, getattr(o.parallel, name), f"concerns bench exchange; {o.what} is measured in one process")
    if o.what != "exchange" and (processes := world().size) > 1:
        raise refuse("what", o.what, f"is measured in one process, not in {processes}; leave mpiexec out")
    if o.what == "race" and o.against == "torch-compiled":
        raise refuse("against", o.against, "nanoGPT's recipe for a CPU does not compile; say torch")
    if o.what != "decode" and "parts" in given:
        raise refuse("parts", o.parts, f"decode has parts, {o.what} has none")
    if o.what == "speculation" and o.checkpoint is None:
        raise refuse("checkpoint", None, "bench speculation measures a trained run; say --checkpoint and its folder")
    if o.what != "speculation" and o.checkpoint is not None:
        raise refuse("checkpoint", o.checkpoint, "concerns bench speculation; the others measure models of fixed sizes")
    from minids.lab.bench import doctor

    where = doctor.examined()  # before the measurement makes a load of its own
    bench = importlib.import_module(f"minids.lab.bench.{o.what}")  # each has run() → what JSON knows, and table()
    if o.what == "speculation":
        found = bench.run(o.checkpoint, o.rounds, o.threads)
    elif o.what == "exchange":
        found = bench.run(o.sizes, o.rounds, o.threads, o.parallel)
    else:
        sizes = () if o.what == "race" else (o.sizes,)
        parts = (o.parts, lambda part: say(part, "…", file=sys.stderr)) if o.what == "decode" else ()
        found = bench.run(*sizes, o.rounds, o.threads, o.against, *parts)
    if o.json:
        say(json.dumps({"machine": doctor.machine(where), **found}, indent=2))
    else:
        say(f"{doctor.machine_in_words(where)}\n\n{fit(bench.table(found))}")
