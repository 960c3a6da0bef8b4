"""What the notebooks share: pictures that are the same every time, shapes in words, mistakes that must be caught, sliders."""

import functools
import os
import sys
import types

import numpy as np
import pytest

from minids import MinidsError, check
from minids.lab import notebook


def test_shapes_are_said_in_numbers_and_in_letters(capsys):
    notebook.shapes({"B": 2, "T": 5, "1": 1}, q=np.ones((2, 5, 1)), chosen=np.zeros((2, 7), int))
    q, chosen = capsys.readouterr().out.splitlines()
    assert " ".join(q.split()) == "q (2, 5, 1) (B, T, 1) rms 1"
    assert " ".join(chosen.split()) == "chosen (2, 7) (B, 7) whole numbers"


def test_a_wrong_answer_is_printed(capsys):
    notebook.caught(check.close(np.ones(3), np.zeros(3), name="ones"))
    assert "✗ ones" in capsys.readouterr().out


def test_a_mistake_that_no_check_notices_is_an_error():
    with pytest.raises(AssertionError, match="not noticed"):
        notebook.caught(check.close(np.ones(3), np.ones(3), name="ones"))


class Page:
    """What a page got: every picture, and what took its place later."""

    def __init__(self):
        self.pictures = []

    def display(self, image, display_id=None):
        self.pictures.append(image)
        return types.SimpleNamespace(update=functools.partial(self.pictures.__setitem__, -1)) if display_id else None


@pytest.fixture
def page(monkeypatch):
    """A page outside a live session."""
    page = Page()
    package, display = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    package.version_info = (9, 0)  # matplotlib looks at it
    package.get_ipython = lambda: None
    display.Image, display.HTML, display.display = lambda data, width, alt: (data, width, alt), str, page.display
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr(notebook, "_shown", None)
    monkeypatch.delenv("MINIDS_STATIC", raising=False)
    return page


def draw(position=3, share_of_all=0.875, kind="a"):
    figure, axes = notebook.picture(width=3.0, height=2.0)
    axes.plot([0, position], [1, share_of_all])
    notebook.show(figure, f"{kind}: a line to {position}")


def test_a_picture_gives_the_same_bytes_every_time(page):
    draw()
    draw()
    assert page.pictures[0] == page.pictures[1]
    data, width, alt = page.pictures[0]
    assert data.startswith(b"\x89PNG") and 200 < width < 350 and alt == "a: a line to 3"


@pytest.fixture
def sliders(page, monkeypatch):
    """A live session in which sliders move: name → the widget that was made."""
    made = {}
    widgets = types.ModuleType("ipywidgets")
    widgets.__spec__ = types.SimpleNamespace()
    widgets.Layout = dict
    for kind in ("IntSlider", "FloatSlider", "Dropdown"):
        setattr(widgets, kind, lambda kind=kind, **settings: types.SimpleNamespace(kind=kind, **settings))

    def interact(redraw, **controls):
        made.update(controls)
        redraw(**{name: widget.value for name, widget in controls.items()})

    widgets.interact = interact
    monkeypatch.setitem(sys.modules, "ipywidgets", widgets)
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", object)
    return made


CONTROLS = {"position": (0, 10), "share_of_all": (0.3, 0.94, 0.02), "kind": ["a", "b"]}


def test_sliders_take_the_place_of_the_picture(sliders, page):
    draw()
    notebook.explore(draw, **CONTROLS)
    assert page.pictures[0] == "" and [p[2] for p in page.pictures[1:]] == ["a: a line to 3"], "one picture is left"
    notebook.explore(draw, **CONTROLS)
    assert [p[2] for p in page.pictures[1:]] == ["a: a line to 3"] * 2, "one that has sliders is left alone"


def test_sliders_are_long_and_begin_on_their_grid(sliders, page):
    notebook.explore(draw, **CONTROLS)
    assert [w.kind for w in sliders.values()] == ["IntSlider", "FloatSlider", "Dropdown"]
    assert sliders["share_of_all"].description == "share of all" and sliders["share_of_all"].layout == {"width": "40em"}
    for widget in (sliders["position"], sliders["share_of_all"]):
        steps = (widget.value - widget.min) / widget.step
        assert steps == pytest.approx(round(steps)), widget


@pytest.mark.parametrize(
    "start, control, expected",
    [
        (3, (0, 10), (0, 10, 1)),
        (0.875, (0.3, 0.94, 0.02), (0.315, 0.935, 0.02)),
        (14.8, (1, 30, 0.1), (1.0, 30.0, 0.1)),
        (512, (160, 1024, 32), (160, 1024, 32)),
        (0.5, (0, 2), (0.0, 2.0, 0.1)),
    ],
)
def test_a_grid_passes_through_its_start(start, control, expected):
    assert notebook.grid(start, *control) == pytest.approx(expected)


def test_what_cannot_be_set_is_refused(sliders):
    with pytest.raises(MinidsError, match=r"kind = 'a': is not among the choices \['b'\]"):
        notebook.explore(draw, kind=["b"])
    with pytest.raises(MinidsError, match="start = 3: must be in the slider's range, 4 to 9"):
        notebook.explore(draw, position=(4, 9))


def test_no_slider_on_a_built_page(sliders, page, monkeypatch):
    monkeypatch.setitem(os.environ, "MINIDS_STATIC", "1")
    draw()
    notebook.explore(draw, **CONTROLS)
    assert not sliders and len(page.pictures) == 1 and page.pictures[0]


def test_no_slider_outside_a_notebook_or_without_the_package(sliders, page, monkeypatch):
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: None)
    notebook.explore(draw, **CONTROLS)
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", object)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    notebook.explore(draw, **CONTROLS)
    assert not sliders and not page.pictures


def test_the_model_of_the_notebooks_reads_their_sentence():
    model = notebook.model()
    tokens, pieces = notebook.read(model)
    assert tokens.shape == (1, len(pieces)) and pieces[0] == "▸"
    assert "".join(pieces[1:]).replace("␣", " ") == notebook.SENTENCE
    assert model.logits(tokens).shape == (1, len(pieces), model.config.vocab_size)


def test_the_map_pales_all_but_the_part_that_a_page_is_about(page):
    for parts in ((), ("attention",), ("experts", "router")):
        notebook.here(*parts)
    assert [alt.rpartition("You are here: ")[2] for _, _, alt in page.pictures[1:]] == ["attention.", "experts, router."]
    assert len({data for data, *_ in page.pictures}) == 3
    with pytest.raises(MinidsError, match="parts = 'cache': must be among tokens"):
        notebook.here("cache")


def test_a_card_says_its_facts_and_its_number_to_those_who_do_not_see_it(page):
    notebook.card("- One\n  fact.\n- Another.", "57×", "fewer numbers", {"MHA": 32768, "MLA": 576})
    assert page.pictures[0][2] == "One fact. Another. 57×: fewer numbers"


def test_a_slider_shows_as_many_digits_as_its_step_has(sliders, page):
    def shown(share: float = 0.875, count: int = 3):
        notebook.show(notebook.picture()[0], "a picture")

    notebook.explore(shown, share=(0.3, 0.925, 0.025), count=(1, 5))
    assert (sliders["share"].readout_format, sliders["count"].readout_format) == (".3f", "d")
