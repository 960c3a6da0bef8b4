"""What several notebooks print says all that is kept."""

import pytest

from minids.lab.analysis.claims import claim_named
from minids.lab.lessons import printed
from minids.lab.studies.store import results


@pytest.mark.parametrize("study", ["balance", "attention", "mtp", "fim"])
def test_all_findings_of_a_study_are_told(study, capsys):
    printed.findings(study)
    shown = capsys.readouterr().out
    told, kept = " ".join(shown.split()), results(study)
    assert f"{len(kept['seeds'])} seeds, {kept['steps']} steps" in told
    assert max(map(len, shown.splitlines())) <= printed.WIDE
    for found in kept["findings"]:
        verdict = {True: "yes", False: "no", None: "undecided"}[found["holds"]]
        assert f"{verdict} {found['claim']} {found['numbers']}" in told


def test_claims_are_told_by_name(capsys):
    printed.claims("v3_cache_bytes")
    told, claim = capsys.readouterr().out, claim_named("v3_cache_bytes")
    assert all(words in told for words in (claim.title, claim.formula, claim.source, f"printed {claim.printed[0]:,}"))
