"""minids compare: DeepSeek's models beside the dense ones of their time."""

import json
from dataclasses import dataclass

from minids.terminal import fit, say


@dataclass(frozen=True)
class Options:
    """Parameters, cache and arithmetic of DeepSeek-V3, its family, and the dense models it is compared with, as rows."""

    context: int = 4096
    """Tokens in the context, for attention's arithmetic."""
    json: bool = False
    """Print JSON."""


def run(options: Options, given: set[str]) -> None:
    from minids.errors import refuse
    from minids.lab.analysis.models import comparison, format_comparison

    if options.context < 1:
        raise refuse("context", options.context, "must be at least 1 token")
    rows = comparison(options.context)
    say(json.dumps([row._asdict() for row in rows], indent=2) if options.json else fit(format_comparison(rows)))
