"""Running a study: every arm with every seed once, stopped and continued, and results that say how they were made."""

import json
import math

import pytest

from minids.errors import MinidsError
from minids.lab.studies import registry, runner, store
from minids.lab.studies.study import Finding, Job, Outcome, Study, Summary
from minids.training.loop import Diverged


def noise(seed):
    return (seed * 37 % 11) / 10


class Counting:
    """A study without training: ``ran`` lists what was run; an arm in ``fails`` diverges, and ``stop`` is as Ctrl-C."""

    def __init__(self, arms=("one", "two"), fails=(), findings=lambda arms: []):
        self.ran, self.fails, self.stop, self.fails_at = [], set(fails), None, None
        self.study = Study(
            question="does it run?",
            arms={name: {"offset": i} for i, name in enumerate(arms)},
            run=self.run,
            shown=("loss",),
            findings=findings,
            seeds=(0, 1, 2),
            steps=5,
            quick_steps=2,
        )

    def run(self, settings, job):
        if (job.arm, job.seed) == self.stop:
            raise KeyboardInterrupt
        self.ran.append((job.arm, job.seed))
        job.tell(job.steps)
        if job.arm in self.fails or (job.arm, job.seed) == self.fails_at:
            raise Diverged("step 3: loss = nan")
        loss = settings["offset"] + noise(job.seed)
        return Outcome({"loss": loss}, {"step": [1, job.steps], "loss": [9.123456789, loss]}, {"table": [[1, 2]]})


@pytest.fixture
def counting(monkeypatch):
    def make(**changes):
        made = Counting(**changes)
        monkeypatch.setattr(runner, "study_called", lambda name: made.study)
        return made

    return make


def run(tmp_path, **options):
    options.setdefault("processes", 1)
    return runner.run_study("counting", tmp_path / "out", say=lambda line: None, **options)


def test_every_arm_runs_with_every_seed_and_the_summary_is_mean_and_standard_deviation(tmp_path, counting):
    study = counting()
    found = run(tmp_path)
    assert sorted(study.ran) == [(arm, seed) for arm in ("one", "two") for seed in (0, 1, 2)]
    values = [noise(seed) for seed in (0, 1, 2)]
    mean = sum(values) / 3
    summary = found["arms"]["one"]["summary"]["loss"]
    assert summary["values"] == pytest.approx(values)
    assert summary["mean"] == pytest.approx(mean)
    assert summary["spread"] == pytest.approx(math.sqrt(sum((v - mean) ** 2 for v in values) / 2))
    assert found["arms"]["two"]["summary"]["loss"]["mean"] == pytest.approx(1 + mean)


def test_results_say_how_they_were_made_and_the_file_holds_the_same(tmp_path, counting):
    counting()
    found = run(tmp_path, seeds=(4, 5), arms=("two",), data=("my text.txt",))
    assert found["command"] == "minids study counting --seeds 4 5 --steps 5 --arms two --data 'my text.txt'"
    assert found["seeds"] == [4, 5] and found["steps"] == 5 and found["data"] == ["my text.txt"]
    assert {"minids", "python", "numpy", "machine"} <= found["versions"].keys()
    assert found["arms"].keys() == {"two"} and found["arms"]["two"]["settings"] == {"offset": 1}
    assert found["arms"]["two"]["runs"][0]["curves"] == {"step": [1, 5], "loss": [9.1235, 1 + noise(4)]}
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == json.loads(json.dumps(found))


def test_a_stopped_study_goes_on_with_what_is_missing(tmp_path, counting):
    study = counting()
    study.stop = ("two", 1)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    done = list(study.ran)
    assert len(done) == 3
    assert not (tmp_path / "out" / "results.json").exists(), "results of a part would look like results of the whole"
    study.stop = None
    run(tmp_path)
    assert sorted(study.ran) == sorted({*study.ran}), "a finished run was made again"
    assert len(study.ran) == 6
    run(tmp_path)
    assert len(study.ran) == 6


@pytest.mark.parametrize("change", ["steps", "data", "settings", "common"])
def test_a_run_is_never_taken_for_another_one(change, tmp_path, counting):
    study = counting()
    run(tmp_path, seeds=(0,))
    if change == "settings":
        study.study.arms["one"]["offset"] = study.study.arms["two"]["offset"] = 7
    if change == "common":
        study.study.common["width"] = 8
    run(tmp_path, seeds=(0,), **{"steps": {"steps": 6}, "data": {"data": ("x.txt",)}}.get(change, {}))
    assert len(study.ran) == 4, f"runs with other {change} were taken for those that were asked for"


def test_a_run_that_diverges_is_a_result_and_stays_out_of_the_means(tmp_path, counting):
    study = counting(fails=["two"])
    found = run(tmp_path)
    assert found["arms"]["two"]["summary"] == {}
    assert [r["failed"] for r in found["arms"]["two"]["runs"]] == ["step 3: loss = nan"] * 3
    run(tmp_path)
    assert len(study.ran) == 6


def test_seeds_that_have_no_partner_decide_nothing(tmp_path, counting):
    """An arm of which one run failed cannot be compared seed by seed."""
    study = counting(findings=lambda arms: [Finding("compared", True, str(arms))])
    study.fails_at = ("two", 1)
    assert run(tmp_path)["findings"] == []


def test_findings_are_asked_for_when_every_arm_is_there_and_see_the_summaries(tmp_path, counting):
    def findings(arms):
        return [Finding("one is lower", arms["one"]["loss"].mean < arms["two"]["loss"].mean, str(arms["one"]["loss"]))]

    counting(findings=findings)
    assert run(tmp_path, arms=("one",))["findings"] == []
    found = run(tmp_path)["findings"]
    assert found[0]["claim"] == "one is lower" and found[0]["holds"] is True and "±" in found[0]["numbers"]


def test_quick_is_a_few_steps_with_one_seed(tmp_path, counting):
    study = counting()
    found = run(tmp_path, quick=True)
    assert found["steps"] == 2 and found["seeds"] == [0] and len(study.ran) == 2


def test_an_unknown_arm_is_refused_before_anything_runs(tmp_path, counting):
    study = counting()
    with pytest.raises(MinidsError, match="no such arm; there are one, two"):
        run(tmp_path, arms=("three",))
    assert not study.ran and not (tmp_path / "out").exists()


def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path, counting):
    study = counting()
    run(tmp_path, seeds=(0,), arms=("one",))
    path = store.Store(tmp_path / "out", "counting", study.study).path(Job("one", 0, 5))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"asked": {}}))
    with pytest.raises(MinidsError, match="delete it"):
        run(tmp_path, seeds=(0,), arms=("one",))


def test_summary_in_words():
    assert str(Summary(1.23456, 0.0123, (1.2, 1.3))) == "1.235 ± 0.012"
    assert str(Summary(1.23456, 0.0, (1.2,))) == "1.235"


def test_an_unknown_study_is_refused_with_the_nearest_name():
    with pytest.raises(MinidsError, match="did you mean balance"):
        registry.study("ballance")


@pytest.mark.parametrize("name", registry.STUDIES)
def test_every_study_is_well_formed(name):
    study = registry.study(name)
    assert study.question.endswith("?") and len(study.arms) > 1 and len(study.seeds) >= 2
    assert json.loads(json.dumps(study.arms)) == study.arms, "arms must be plain JSON values"
    assert json.loads(json.dumps(study.common)) == study.common
    files = [store.Store("x", name, study).path(Job(arm, 0, 1)).name.casefold() for arm in study.arms]
    assert len(set(files)) == len(files)


def test_threads_are_handed_on_told_and_kept_apart(tmp_path, counting):
    study = counting()
    assert run(tmp_path, seeds=(0,))["threads"] == 1
    found = run(tmp_path, seeds=(0,), threads=2)
    assert found["threads"] == 2 and "--threads 2" in found["command"]
    assert len(study.ran) == 4, "the seconds of one thread were taken for those of two"
