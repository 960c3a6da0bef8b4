"""minids claims: the papers' numbers beside the arithmetic."""

import json
from dataclasses import dataclass
from typing import Annotated

from minids.terminal import room, say


@dataclass(frozen=True)
class Options:
    """Recompute every number of the DeepSeek papers that is arithmetic, and say how far print and arithmetic agree."""

    names: Annotated[tuple[str, ...], "positional"] = ()
    """Claims to show, by the names that --json gives; all if none is named."""
    json: bool = False
    """Print JSON."""


def run(options: Options, given: set[str]) -> None:
    from minids.lab.analysis.claim import format_claims
    from minids.lab.analysis.claims import CLAIMS, claim_named

    chosen = [claim_named(name) for name in options.names] or list(CLAIMS)
    if not options.json:
        say(format_claims(chosen, room(98)))
        return
    own = ("name", "title", "printed", "unit", "formula", "source", "words")
    rows = [{name: getattr(c, name) for name in own} | {"computed": c.computed(), "verdict": c.verdict()} for c in chosen]
    say(json.dumps(rows, indent=2))
