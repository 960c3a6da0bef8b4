"""minids claims: the papers' numbers beside the arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class Options:
    """Recompute every number of the DeepSeek papers that is arithmetic, and say how far print and arithmetic agree."""

    names: Annotated[tuple[str, ...], "positional"] = ()
    """Claims to show, by the names that --json gives; all if none is named."""
    json: bool = False
    """Print JSON."""


def run(options: Options, given: set[str]) -> None:
    import json

    from minids.lab.analysis.claim import format_claims
    from minids.lab.analysis.claims import CLAIMS, claim_named

    chosen = [claim_named(name) for name in options.names] or list(CLAIMS)
    if not options.json:
        print(format_claims(chosen))
        return
    rows = [
        {
            "name": c.name,
            "title": c.title,
            "printed": c.printed,
            "computed": c.computed(),
            "unit": c.unit,
            "verdict": c.verdict(),
            "formula": c.formula,
            "source": c.source,
            "words": c.words,
        }
        for c in chosen
    ]
    print(json.dumps(rows, indent=2))
