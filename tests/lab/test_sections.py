"""The map of the report's sections: all of them, files that are there, numbers that the findings know."""

import re
from pathlib import Path

import pytest

from minids.lab.sections import MISSING, SECTIONS, table

ROOT = Path(__file__).parents[2]
REPORT = (
    *("2.1.1", "2.1.2", "2.2", "3.1", "3.2.1", "3.2.2", "3.2.3", "3.3.1", "3.3.2", "3.3.3", "3.4", "3.5"),
    *("4.1", "4.2", "4.3", "4.4", "4.5.1", "4.5.2", "4.5.3", "5.1", "5.2", "5.3", "5.4.1", "5.4.2", "5.4.3"),
)
"""Its sections from 2.1 to 5.4."""


def test_every_section_of_the_report_has_a_row_in_order():
    numbers = [number for section in SECTIONS for number in section.numbers.split(", ")]
    assert set(numbers) == set(REPORT)
    firsts = [section.numbers.split(", ")[0] for section in SECTIONS]
    assert firsts == sorted(firsts)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.numbers)
def test_files_are_there_and_a_row_without_says_why(section):
    for name in section.files:
        assert (ROOT / "minids" / f"{name}.py").is_file(), name
    came_out = section.came_out()
    assert came_out and (section.files or came_out in (MISSING, "hardware"))


def test_numbers_that_are_written_out_are_those_of_the_documents():
    known = "\n".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("findings.md", "fp8.md", "decoding.md"))
    known += (ROOT / "README.md").read_text(encoding="utf-8").partition("<!-- sections")[0]
    for section in SECTIONS:
        if section.came_out.__closure__ and section.came_out.__qualname__.startswith("said"):
            for number in re.findall(r"\d+\.\d+", section.came_out()):
                assert number in known, f"{section.numbers}: {number} is in no document"


def test_links_are_relative_to_the_page():
    assert "](minids/layers/mla.py)" in table() and "](../minids/layers/mla.py)" in table("../minids")
