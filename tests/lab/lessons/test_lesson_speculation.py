"""Notebook 9: its checks accept what is right and name what is wrong; samples of one distribution are apart by chance."""

import numpy as np
import pytest

from minids.lab.lessons import speculation


@pytest.mark.parametrize(
    "name, right", [("acceptance", "by_the_distance"), ("spoken", "by_cases"), ("stands", "by_the_package")]
)
def test_a_check_accepts_the_right_answer_and_refuses_none(name, right):
    check = getattr(speculation, f"check_{name}")
    assert check(getattr(speculation, right))
    assert not check(lambda *arguments: None)


def test_a_guess_behind_a_refused_one_is_named():
    report = speculation.check_stands(speculation.all_that_agree)
    assert not report and "behind a refused one" in str(report)


def test_samples_are_apart_by_what_they_do_not_share():
    assert speculation.apart([1, 2, 2, 3], [2, 3, 1, 2]) == 0
    assert speculation.apart([1, 1], [2, 2]) == 1
    assert speculation.apart([0, 1], [1, 1]) == 0.5


def test_two_samples_of_one_distribution_lie_within_chance_and_two_others_beyond():
    rng = np.random.default_rng(5)
    one, same, other = rng.integers(0, 20, 400), rng.integers(0, 20, 400), rng.integers(3, 23, 400)
    for second, within in ((same, True), (other, False)):
        low, high = speculation.apart_by_chance(one, second)
        assert 0 < low < high < 1
        assert (speculation.apart(one, second) <= high) == within
