"""Letters beyond Latin: measured, and drawn or escaped, never a box."""

import warnings

import pytest

from minids.lab.figures import glyphs
from minids.lab.figures.glyphs import drawable, letters
from minids.lab.figures.style import encoded, style
from minids.terminal import cells

BEYOND = ["日本語の文", "한국어", "👩\u200d💻 works", "e\u0301a", "Привет, мир", "ﷺ", "\U0010fffd"]


@pytest.mark.parametrize("text", BEYOND)
@pytest.mark.parametrize("system", [(), glyphs.BEYOND])
def test_no_picture_has_a_box_in_it(text, system, monkeypatch):
    from matplotlib.figure import Figure

    monkeypatch.setattr(glyphs, "BEYOND", system)
    glyphs.families.cache_clear()
    glyphs._drawn.cache_clear()
    try:
        with style(), warnings.catch_warnings():
            warnings.simplefilter("error")  # matplotlib warns of every glyph that no font has
            figure = Figure(figsize=(4, 3))
            ax = figure.add_subplot(title=text, xlabel=text)
            ax.plot([1, 2], label=text)
            ax.legend()
            for form in ("png", "svg"):
                assert encoded(figure, form, "a title")
    finally:
        glyphs.families.cache_clear()
        glyphs._drawn.cache_clear()


def test_what_no_font_has_is_named_by_its_code_point(monkeypatch):
    monkeypatch.setattr(glyphs, "_drawn", lambda first: frozenset(map(ord, "aé")))
    assert drawable("aé日\U0001f469\n") == "aé<U+65E5><U+1F469>\n"


@pytest.mark.parametrize("text", [*BEYOND, "plain", ""])
def test_letters_stand_side_by_side_as_wide_as_they_are(text):
    found = letters(text)
    assert "".join(letter for _, _, letter in found) == text
    assert [place for place, _, _ in found] == [sum(w for _, w, _ in found[:i]) for i in range(len(found))]
    assert sum(width for _, width, _ in found) == cells(text)
