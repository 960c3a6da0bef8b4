"""minids doctor: what the speed depends on here, and what would make it better."""

import json
from dataclasses import dataclass

from minids.terminal import say


@dataclass(frozen=True)
class Options:
    """Processor, BLAS, threads, versions and cache on this machine, and what would be faster."""

    json: bool = False
    """Print JSON."""


def run(options: Options, given: set[str]) -> None:
    from dataclasses import asdict

    from minids.lab.bench.doctor import advice, examined, table

    facts = examined()
    say(json.dumps(asdict(facts) | {"advice": advice(facts)}, indent=2) if options.json else table(facts))
