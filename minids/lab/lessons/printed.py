"""What several notebooks print: the answers of a kept study, and the claims of a paper beside the arithmetic."""

from minids.lab.analysis.claim import format_claims
from minids.lab.analysis.claims import claim_named
from minids.lab.studies.store import results
from minids.terminal import say

_VERDICTS = {True: "yes", False: "no", None: "undecided"}


def findings(study: str) -> None:
    """Each claim that a study set out to test: whether it holds, and the numbers behind that."""
    for found in results(study)["findings"]:
        say(f"{_VERDICTS[found['holds']]:<10} {found['claim']}: {found['numbers']}")


def claims(*names: str) -> None:
    """Claims of ``minids claims`` by name: what is printed in the paper, what comes out here, by which formula."""
    say(format_claims(map(claim_named, names)))
