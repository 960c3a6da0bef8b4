"""The results that come with the package are those of the studies as they are now."""

import json

import pytest

from minids.cli import main
from minids.errors import MinidsError
from minids.lab.studies import results
from minids.lab.studies.registry import STUDIES, study
from minids.lab.studies.store import kept, summaries
from minids.lab.studies.study import Summary

KEPT = [name for name in STUDIES if kept(name).is_file()]


def test_there_are_results():
    assert {"balance", "attention", "mtp", "segmentation", "router"} <= set(KEPT)


@pytest.mark.parametrize("name", KEPT)
def test_results_are_of_the_arms_as_they_are_now_with_every_seed(name):
    found, now = results(name), study(name)
    for arm, values in found["arms"].items():
        assert values["settings"] == now.arms[arm], f"{arm} has changed: run it again"
    missing = now.arms.keys() - found["arms"].keys()
    assert not missing or "--arms" in found["command"], f"{missing}: the results do not say that they are of a part"
    assert found["common"] == json.loads(json.dumps(now.common))
    assert found["steps"] == now.steps and set(now.seeds) <= set(found["seeds"])
    for arm in found["arms"].values():
        assert [run["seed"] for run in arm["runs"]] == found["seeds"]


@pytest.mark.parametrize("name", KEPT)
def test_means_spreads_and_findings_follow_from_the_runs(name):
    found = results(name)
    arms = {arm: summaries(values["runs"]) for arm, values in found["arms"].items()}
    for arm, values in arms.items():
        for number, summary in values.items():
            assert found["arms"][arm]["summary"][number]["mean"] == pytest.approx(summary.mean)
            assert found["arms"][arm]["summary"][number]["spread"] == pytest.approx(summary.spread)
    whole = arms.keys() == study(name).arms.keys()
    told = study(name).findings({arm: dict(values) for arm, values in arms.items()}) if whole else []
    assert [(f["claim"], f["holds"]) for f in found["findings"]] == [(f.claim, f.holds) for f in told]
    assert isinstance(next(iter(next(iter(arms.values())).values())), Summary)


@pytest.mark.parametrize("name", KEPT)
def test_results_are_small_and_say_how_to_make_them_again(name, capsys):
    assert kept(name).stat().st_size < 150_000
    assert results(name)["command"].startswith(f"minids study {name} --seeds ")
    assert main(["study", name, "--show"]) == 0
    out = capsys.readouterr().out
    assert "Mean ± standard deviation" in out and "95 % interval" in out and all(arm in out for arm in results(name)["arms"])


def test_an_unknown_study_has_none():
    with pytest.raises(MinidsError, match="did you mean balance"):
        results("balances")


BAD = {
    "unknown": (["balances"], "did you mean balance"),
    "unknown arm": (["balance", "--arms", "x"], "balance has no such arm"),
    "negative steps": (["balance", "--steps", "-1"], "steps = -1"),
    "no threads": (["balance", "--threads", "0"], "threads = 0"),
    "negative seed": (["balance", "--seeds", "-1"], "seeds"),
    "a part as the whole": (["balance", "--write-results", "--seeds", "0"], "only the full run is kept"),
    "a quick look as the whole": (["balance", "--write-results", "--quick"], "only the full run is kept"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_one_line(case, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, message = BAD[case]
    assert main(["study", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and message in err
    assert not list(tmp_path.iterdir()), "something was written"


def test_the_list_names_every_study(capsys):
    assert main(["study"]) == 0
    out = capsys.readouterr().out
    assert all(study(name).question in out for name in STUDIES)
