"""The study of distillation: every arm run for two steps, and what its findings follow."""

import numpy as np
import pytest
from test_studies import holds
from test_study_grpo import small  # noqa: F401

from minids.lab.studies import distillation, post_training
from minids.lab.studies.study import Job


@pytest.fixture
def short(small, monkeypatch):  # noqa: F811
    monkeypatch.setattr(distillation, "BASE", distillation.BASE | {"steps": 2, "batch_size": 2})
    distillation.teacher.cache_clear()
    yield
    distillation.teacher.cache_clear()


@pytest.mark.parametrize("arm", distillation.ARMS)
def test_an_arm_runs_and_gives_its_numbers(arm, short):
    told = []
    outcome = distillation.run(distillation.ARMS[arm], Job(arm, 0, 2, tell=told.append))
    assert {"pass@1", "pass@8", "greedy", "entropy", "length"} <= outcome.numbers.keys() and sum(told) == 2
    assert all(np.isfinite(value) for value in outcome.numbers.values())
    if arm != distillation.TEACHER:
        assert outcome.numbers["parameters"] * 5 < parameters(post_training.MODEL)
        assert (outcome.numbers["divergence"] == 0) == (arm == distillation.STUDENT_BEFORE)


def parameters(model):
    from minids.config import ModelConfig
    from minids.model import DeepSeekV3

    return sum(int(np.prod(p.shape)) for p in DeepSeekV3.declared(ModelConfig(**model)))


def test_findings_of_distillation_follow_the_numbers():
    better = {distillation.OF_TEACHER: {"pass@1": 0.9}, distillation.TEACHER: {"pass@1": 0.95}}
    assert holds("distillation", "than rewards of its own", **better) and holds("distillation", "base it was made of", **better)
    assert holds("distillation", "stays below", **better) and holds("distillation", "expectations", **better) is False
    assert holds("distillation", "than rewards of its own", **{distillation.OWN: {"pass@1": 0.9}}) is False
