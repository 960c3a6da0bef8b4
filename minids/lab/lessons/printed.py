"""What several notebooks print: the answers of a kept study, and the claims of a paper beside the arithmetic."""

import textwrap

from minids.lab.analysis.claim import format_claims
from minids.lab.analysis.claims import claim_named
from minids.lab.studies.store import results
from minids.terminal import say

WIDE = 115  # characters of a line on a page


def findings(study: str) -> None:
    """Each claim that a kept study set out to test: whether it holds, and the numbers behind that."""
    kept = results(study)
    say(f"{kept['command']}   ({len(kept['seeds'])} seeds, {kept['steps']} steps)")
    verdicts = {True: "yes", False: "no", None: "undecided"}
    for found in kept["findings"]:
        for line in (f"  {verdicts[found['holds']]:<11}{found['claim']}", f"{'':<13}{found['numbers']}"):
            say(textwrap.fill(line, WIDE, subsequent_indent=" " * 13))


def claims(*names: str) -> None:
    """Claims of ``minids claims`` by name: what is printed in the paper, what comes out here, by which formula."""
    say(format_claims(map(claim_named, names)))
