"""Every exhibit of the museum has a label, and its symptom tells the right code from the wrong."""

import re

import numpy as np
import pytest

from minids.lab.mistakes import IN_GENERATION, MISTAKES, fp8, label
from minids.lab.mistakes.fp8 import IN_FP8
from minids.lab.mistakes.labels import LABELS
from minids.lab.mistakes.policy import IN_POLICY
from minids.lab.mistakes.symptoms import SYMPTOMS, right_and_wrong

EXHIBITS = [*MISTAKES, *IN_GENERATION, *IN_FP8, *IN_POLICY]
SLOW = {"mtp_shown_its_target", "resumed_without_the_routing_bias", "speculation_by_a_ratio_heuristic"}
LOOKS_ALIKE = fp8.weight_gradient_in_the_tiles_of_the_forward_pass
"""The one whose numbers are as good: its label says so."""


def test_every_mistake_has_a_label_and_no_label_is_of_another():
    assert set(LABELS) == set(EXHIBITS)
    assert set(SYMPTOMS) == set(EXHIBITS)


@pytest.mark.parametrize("mistake", EXHIBITS, ids=lambda mistake: mistake.__name__)
def test_a_label_has_a_diff_of_at_most_four_lines_and_links_that_can_be_followed(mistake):
    shown = LABELS[mistake]
    lines = shown.diff.split("\n")
    assert 2 <= len(lines) <= 4 and {line[:2] for line in lines} <= {"- ", "+ ", "  "}
    assert any(line.startswith("+ ") for line in lines)
    assert shown.seen.endswith(".") and shown.caught.endswith(".")
    for case in shown.cases:
        assert re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+/(pull|issues)/\d+", case.link)
        assert re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])", case.date)


def test_a_label_names_its_cases_in_one_line_and_says_if_there_is_none():
    cases = label.case("vLLM", "2025-01", "a/b/pull/12"), label.case("TRL", "2025-02", "a/c/issues/3", "a relative")
    assert label.Label("", "", "", cases).provenance == (
        "**vLLM**, 2025-01: [#12](https://github.com/a/b/pull/12) · "
        "**TRL**, 2025-02: [#3](https://github.com/a/c/issues/3) (a relative)"
    )
    assert label.Label("", "", "").provenance == "No public case known."


@pytest.mark.parametrize(
    "mistake",
    [pytest.param(m, id=m.__name__, marks=pytest.mark.slow if m.__name__ in SLOW else ()) for m in SYMPTOMS],
)
def test_the_symptom_shows_the_mistake(mistake):
    right, wrong = right_and_wrong(mistake)
    if isinstance(right, float):
        assert abs(right - wrong) > 0.3 * max(right, wrong), f"{right} and {wrong} look alike"
        return
    assert np.array_equal(right[0], wrong[0])
    apart = np.abs(np.asarray(right[1], float) - wrong[1])
    if mistake is LOOKS_ALIKE:
        assert 0 < apart.max() < 0.1 * np.abs(right[1]).max()
    else:
        assert np.isnan(apart).any() or apart.max() > 0.02 * np.abs(right[1]).max()
