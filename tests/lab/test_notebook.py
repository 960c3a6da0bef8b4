"""What the notebooks share: pictures that are the same every time, shapes in words, mistakes that must be caught, sliders."""

import os
import sys
import types

import numpy as np
import pytest

from minids import check
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


def test_a_picture_gives_the_same_bytes_every_time(monkeypatch):
    shown = []
    ipython = types.ModuleType("IPython.display")
    ipython.Image = lambda data, width, alt: (data, width, alt)
    ipython.display = shown.append
    package = types.ModuleType("IPython")
    package.version_info = (9, 0)  # matplotlib looks at it
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython)
    for _ in range(2):
        figure, axes = notebook.picture(width=3.0, height=2.0)
        axes.plot([0, 1], [1, 0])
        notebook.show(figure, "a line that falls")
    assert shown[0] == shown[1]
    data, width, alt = shown[0]
    assert data.startswith(b"\x89PNG") and 200 < width < 350 and alt == "a line that falls"


@pytest.fixture
def live(monkeypatch):
    """A session in which sliders move: the calls that would make some."""
    calls = []
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: object()
    widgets = types.ModuleType("ipywidgets")
    widgets.__spec__ = types.SimpleNamespace()
    widgets.interact = lambda draw, **controls: calls.append((draw, controls))
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "ipywidgets", widgets)
    monkeypatch.delenv("MINIDS_STATIC", raising=False)
    return calls


def draw(position=3):
    raise AssertionError("a page without sliders must not draw a second time")


def test_sliders_appear_in_a_live_session(live):
    notebook.explore(draw, position=(0, 10))
    assert live == [(draw, {"position": (0, 10)})]


def test_no_slider_on_a_built_page(live, monkeypatch):
    monkeypatch.setitem(os.environ, "MINIDS_STATIC", "1")
    notebook.explore(draw, position=(0, 10))
    assert live == []


def test_no_slider_outside_a_notebook_or_without_the_package(live, monkeypatch):
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: None)
    notebook.explore(draw, position=(0, 10))
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", object)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    notebook.explore(draw, position=(0, 10))
    assert live == []
