"""Every number of the DeepSeek papers that is arithmetic, computed from the configurations, in one list: ``CLAIMS``.

Each function returns what its docstring says; beside it stand the printed number, its source, and words on how far they agree.
"recalled", "second hand" and "UNVERIFIED" mark what was not read in the primary source. "ISCA 2025" is "Insights into
DeepSeek-V3" (arXiv 2505.09343), read as a transcript.
"""

from __future__ import annotations

from minids.errors import refuse
from minids.lab.analysis.claim import Claim
from minids.lab.analysis.claims_cost import COST
from minids.lab.analysis.claims_design import DESIGN
from minids.lab.analysis.claims_sizes import SIZES

CLAIMS: tuple[Claim, ...] = (*SIZES.claims, *COST.claims, *DESIGN.claims)
"""All of them: sizes, then work, time and money, then the design."""


def claim_named(name: str) -> Claim:
    """The claim whose function is called ``name``. Raises ``MinidsError`` where there is none."""
    for claim in CLAIMS:
        if claim.name == name:
            return claim
    raise refuse("claim", name, f"must be one of {', '.join(c.name for c in CLAIMS)}")
