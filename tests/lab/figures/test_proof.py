"""What looks at pictures for the other tests sees what an eye would."""

import pytest
from lab.figures.proof import crossed, faults, words

from minids.lab.figures.slide import Slide
from minids.lab.figures.style import THEMES, style


def put(slide, case):
    if case == "cut off":
        slide.text(14, 5, "a long line that leaves the slide")
    if case == "lies on":
        slide.text(2, 5, "one")
        slide.text(2.2, 5.05, "another")
    if case == "points":
        slide.text(2, 5, "small", 11)
    if case == "wider than its block":
        slide.box(2, 4, 1.5, 0.6)
        slide.text(2.75, 4.3, "too much for it", ha="center")
    if case == "contrast":
        slide.text(2, 5, "faint", 17, "faint")
    if case == "exponent":
        slide.text(2, 5, "$10^{-3}$", 16, parse_math=True)


CASES = {"exponent": "points"}


@pytest.mark.parametrize("case", ["cut off", "lies on", "points", "wider than its block", "contrast", "exponent"])
@pytest.mark.parametrize("theme", THEMES)
def test_a_fault_is_seen_and_no_other(case, theme):
    with style(theme):
        slide = Slide()
        slide.box(8, 1, 3, 1, "whole")
        assert faults(slide.figure) == []
        slide = Slide()
        put(slide, case)
        (fault,) = faults(slide.figure)
    assert CASES.get(case, case) in fault


def test_words_on_a_line_are_seen():
    with style():
        slide = Slide()
        slide.box(8, 1, 3, 1, "whole")
        slide.text(1, 5, "beside a line")
        slide.arrow((0.5, 5.5), (6, 5.5), head=False)
        assert crossed(slide.figure) == [] and "beside" in words(slide.figure), "and the words are there again"
        slide.arrow((0.5, 5), (6, 5), head=False, width=4)
        (fault,) = crossed(slide.figure)
    assert "'beside a line' lies on" in fault


def test_words_are_read():
    with style():
        slide = Slide()
        slide.text(1, 5, "two\nlines")
        assert words(slide.figure) == "two lines"
