"""minids study: the papers' ablations at laptop size."""

from dataclasses import dataclass
from typing import Annotated

from minids import words
from minids.errors import refuse
from minids.terminal import columns, fit, say, wrapped

SEVERAL_PROCESSES = True


@dataclass(frozen=True)
class Options:
    """Run one of the papers' ablations at laptop size over several seeds, or go on with it; without a name, list them."""

    name: Annotated[str, "positional"] = ""
    """Study to run."""
    seeds: tuple[int, ...] = ()
    """Seeds to run every arm with; the study's own if not given."""
    steps: int = 0
    """Optimizer steps of each run; the study's own if 0."""
    arms: tuple[str, ...] = ()
    """Only these arms."""
    data: tuple[str, ...] = ()
    """builtin, shakespeare, or files and folders of text, each of which is one domain; the study's own if not given."""
    out: str = ""
    """Folder of the runs, runs/studies/NAME if not given. Runs that are there already are not made again."""
    processes: int = 0
    """Runs at a time; 0 for as many as the cores have threads for. Under mpiexec each of its processes makes one at a time."""
    threads: int = 1
    """Threads of each run, which share every batch. More of them change the losses by rounding, and the seconds."""
    quick: bool = False
    """A few steps with one seed: shows that the study runs, not what comes out."""
    show: bool = False
    """Run nothing: show the results of the full run that are kept with the package."""
    write_results: bool = False
    """Keep the results with the package, in place of those that are there. They must be those of a full run."""


def run(options: Options, given: set[str]) -> None:
    from minids.lab.studies.registry import STUDIES, study
    from minids.lab.studies.store import results
    from minids.lab.studies.table import table

    if not options.name:
        say(
            words.table(
                [("", n, f"{study(n).question} ({len(study(n).arms)} arms)") for n in STUDIES], align="l", width=columns()
            )
        )
        return
    chosen = study(options.name)
    if options.show:
        for name in sorted(given - {"name", "show"}):
            raise refuse(name, getattr(options, name), "concerns runs; --show makes none and prints those that are kept")
        found = results(options.name)
        head = wrapped(f"{options.name}: {found['question']}\n{found['command']}")
        say(f"{head}\n\n{fit(table(chosen, found))}")
        return
    for field, least in (("steps", 0), ("processes", 0), ("threads", 1)):
        if getattr(options, field) < least:
            raise refuse(field, getattr(options, field), f"must be at least {least}" + ", the default" * (least == 0))
    if any(seed < 0 for seed in options.seeds):
        raise refuse("seeds", options.seeds, "must be at least 0")
    part = options.quick or options.arms or options.steps not in (0, chosen.steps) or options.data not in ((), chosen.data)
    if options.write_results and (part or not set(chosen.seeds) <= set(options.seeds or chosen.seeds)):
        raise refuse("write_results", True, "only the full run is kept: every arm, the study's own seeds, steps and text")
    from minids.config import ParallelConfig
    from minids.lab.studies.runner import run_study
    from minids.lab.studies.store import kept, write_results
    from minids.parallel.group import process_group

    group = process_group(ParallelConfig())
    o, out = options, options.out or f"runs/studies/{options.name}"
    found = run_study(o.name, out, o.seeds, o.steps, o.arms, o.data, o.processes, o.quick, o.threads, group=group)
    say(f"\n{fit(table(chosen, found))}\nResults: {out}/results.json")
    if options.write_results and group.first:
        write_results(kept(options.name), found)
        say(f"Kept with the package: {kept(options.name)}")
