"""Notebook 10: its checks name the usual mistakes; outliers, sums and runs are what the page says of them."""

import numpy as np
import pytest

from minids.backend import use_backend
from minids.lab.lessons import fp8
from minids.ops import float8
from minids.ops.fp8_accumulation import NEVER_PROMOTED, PROMOTED


@pytest.mark.parametrize(
    "name, right", [("to_e4m3", float8.rounded), ("in_tiles", fp8.of_the_package), ("scaled_product", fp8.scaled_before)]
)
def test_a_check_accepts_the_right_answer_and_refuses_none(name, right):
    check = getattr(fp8, f"check_{name}")
    assert check(right)
    assert not check(lambda *arguments: None)


@pytest.mark.parametrize("name, wrong, said", [("to_e4m3", "cut_off", "towards zero"), ("in_tiles", "row_by_row", "whole row")])
def test_a_usual_mistake_is_named(name, wrong, said):
    report = getattr(fp8, f"check_{name}")(getattr(fp8, wrong))
    assert not report and said in str(report)


def test_an_outlier_spoils_the_numbers_that_share_its_scale_and_no_others():
    planted = fp8.Planted(np.random.default_rng(0).normal(size=(64, 512)).astype(np.float32))
    assert planted.of(7.0)[5, 40] == 7.0 and np.array_equal(planted.of(7.0)[planted.ordinary], planted.matrix[planted.ordinary])
    assert planted.error(1e6, None) > 0.9 > 0.2 > planted.error(1e6, (1, 128)) > planted.error(1e2, (1, 128))


@pytest.mark.parametrize("numbers", fp8.NUMBERS.values(), ids=lambda draw: draw.__name__)
def test_a_promoted_sum_loses_less(numbers):
    assert 0 < fp8.error_of_sums(numbers, 2048, PROMOTED) < fp8.error_of_sums(numbers, 2048, NEVER_PROMOTED) / 5


def test_a_run_begins_at_guessing_and_learns_and_depends_on_its_start():
    with use_backend("numpy"):  # as on the page
        losses, others = fp8.trained(fp8.TOY, steps=6), fp8.trained(fp8.TOY, nudge=1e-3, steps=6)
    assert losses[0] == pytest.approx(np.log(fp8.TOY.vocab_size), rel=0.02) and losses[-1] < losses[0]
    assert not np.array_equal(losses, others)
