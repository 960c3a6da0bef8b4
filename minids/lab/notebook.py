"""What the notebooks share: pictures in one style, shapes in words, sliders where there are any, mistakes that must be caught.

    notebook.set_up()                                       style of pictures and numbers, the NumPy backend
    figure, axes = notebook.picture(1, 2)                   an empty picture
    notebook.show(figure, "what is to be seen")             into the page, small enough to commit
    notebook.shapes(letters, q=q, k=k)                      every array with its shape, in numbers and in letters
    notebook.caught(check.gradient(forward, wrong, …))      a wrong solution, which the check has to notice
    notebook.findings(results("balance"))                   what a kept study says of its claims
    notebook.explore(draw, position=(0, 100))               sliders under a picture, in a live session
    notebook.slide("attention_family")                      one of the pictures for talks
    notebook.here("attention")                              the map of the model, with what this page is about
    notebook.model(), notebook.SENTENCE                     the trained model and the sentence that go through notebooks 1 to 9
    notebook.card(facts, "57×", "fewer numbers", bars)      what to remember, at the end

Nothing here computes anything about DeepSeek-V3. What a page draws is in ``minids/lab/plots``, a module for each of them.
"""

import contextlib
import functools
import importlib.util
import inspect
import io
import os
import re
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minids.backend import use_backend
from minids.check import Report
from minids.checkpoint.model_folder import load
from minids.errors import refuse
from minids.lab.figures.style import style
from minids.model import DeepSeekV3
from minids.terminal import say
from minids.words import table

Array = np.ndarray

_DOTS = 160  # per inch; shown at _SHOWN, so that text stays sharp on a fine screen
_SHOWN = 90
_LIVE_DOTS = 110
_COLOURS = 160
_COLUMNS = 100  # of text that a page shows in one line
_STATIC = "MINIDS_STATIC"  # set where pages are built: without a kernel no slider moves

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Of lines, in order; told apart with any common colour blindness (Okabe & Ito 2008)."""

SENTENCE = "The sum of 17 and 25 is 42, so return self.value."
"""Words, numbers and code in one line: the three domains of the text that ``model()`` was trained on."""

_MODEL = (Path(__file__).parent / "model", Path(__file__).parents[2] / "notebooks" / "model")  # installed, in a clone

_held = contextlib.ExitStack()  # what set_up switched on stays on until the kernel ends
_dots = _DOTS  # of this page
_shown = None  # the picture shown last, in a live session: sliders take its place


def set_up(dots: int = _DOTS) -> None:
    """Pictures in the house style at the size of a page, short numbers, and plain NumPy for every operation.

    ``dots`` per inch of picture: a page with many pictures takes fewer, so that it stays light.
    """
    global _dots
    _dots = dots
    _held.close()
    _held.enter_context(style())
    _held.enter_context(use_backend("numpy"))
    import matplotlib as mpl

    settings = {
        "axes.prop_cycle": mpl.cycler(color=COLOURS), "axes.grid": True, "axes.axisbelow": True,
        "axes.titlelocation": "left", "axes.titlesize": 12, "axes.titlepad": 8, "axes.labelsize": 10.5,
        "font.size": 10.5, "xtick.labelsize": 9.5, "ytick.labelsize": 9.5, "legend.fontsize": 9.5,
        "axes.linewidth": 0.9, "grid.linewidth": 0.8, "lines.linewidth": 1.8, "lines.markersize": 5,
    }  # fmt: skip
    mpl.rcParams.update(settings)
    np.set_printoptions(precision=4, suppress=True, linewidth=110, threshold=200, edgeitems=3)


def picture(rows: int = 1, columns: int = 1, width: float = 9.0, height: float = 3.6, **keywords):
    """An empty figure and its axes, sizes in inches; ``keywords`` as for ``Figure.subplots``."""
    from matplotlib.figure import Figure  # not pyplot: no window, no global state, nothing shown twice

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **keywords)


def show(figure, alt: str) -> None:
    """Put a figure into the page. ``alt`` says what is to be seen, for those who do not see it.

    A built page gets a PNG of few colours, which drawings do not miss and which is a third of the size; a live session, where a
    slider waits for it, one that is drawn in a third of the time.
    """
    global _shown
    from IPython.display import Image, display
    from PIL import Image as Pixels

    live, drawn = _live(), io.BytesIO()
    dots = min(_dots, _LIVE_DOTS) if live else _dots
    figure.savefig(drawn, format="png", dpi=dots, facecolor="white")
    width = round(figure.get_figwidth() * dots) * _SHOWN / dots
    if not live:
        pixels, small = Pixels.open(drawn).convert("RGB"), io.BytesIO()
        pixels.quantize(_COLOURS, kmeans=1, dither=Pixels.Dither.NONE).save(small, format="png", optimize=True)
        drawn, width = small, pixels.width * _SHOWN / _dots
    _shown = display(Image(drawn.getvalue(), width=round(width), alt=alt), display_id=True if live else None)


class Read(NamedTuple):
    """A text as a model reads it."""

    tokens: Array  # (1, T) the token that begins a document, and those of the text
    pieces: list[str]  # (T) what each token stands for


def model(dtype=np.float32) -> DeepSeekV3:
    """The trained model that the notebooks share, 1.3 million parameters, from notebooks/model; its README has the commands."""
    return load(model_file("config.json").parent, dtype)


def model_file(name: str) -> Path:
    """A file beside that model."""
    for folder in _MODEL:
        if (folder / name).exists():
            return folder / name
    raise refuse("model", str(_MODEL[-1] / name), "is not there; it comes with the repository")


def read(model: DeepSeekV3, text: str = SENTENCE) -> Read:
    """The tokens of a text, one sequence, and what each stands for: "▸" is the beginning, "␣" a space."""
    ids = np.array([*model.tokenizer.beginning, *model.tokenizer.encode(text)])
    return Read(ids[None], pieces_of(model, ids))


def pieces_of(model: DeepSeekV3, ids: Array) -> list[str]:
    """What tokens (T) stand for, as ``read`` writes them."""
    shown = (model.tokenizer.decode([i]).replace(" ", "␣").replace("\n", "⏎") for i in ids)
    return [piece or "▸" for piece in shown]


def here(*parts: str) -> None:
    """The architecture (figure 1), small, with all but ``parts`` paled: "tokens", "embedding", "blocks", "head", "mtp",
    "attention", "experts", "router"; the whole of it where none is given."""
    from minids.lab.figures import overview

    figure, axes = picture(width=7.6, height=3.0)
    axes.set_position((0, 0, 1, 1))
    figure.set_layout_engine("none")
    overview.here(axes, *parts)
    where = f"You are here: {', '.join(parts)}." if parts else ""
    show(figure, f"DeepSeek-V3: a column of blocks, one block enlarged, its experts. {where}")


def slide(name: str, width: float = 9.0, height: float = 4.6, **arguments) -> None:
    """One of the pictures for talks, ``minids.lab.figures.NAME``, without its title; ``arguments`` as it takes them."""
    from minids.lab import figures

    drawn = getattr(figures, name)
    figure, axes = picture(width=width, height=height)
    figure.set_layout_engine("none")
    axes.set_position((0, 0, 1, 1))
    drawn(ax=axes, title=False, **arguments)
    show(figure, drawn.alternative)


def card(facts: str, number: str, meaning: str, bars: Mapping[str, float]) -> None:
    """What to remember of a page: three facts, each behind a "- " of its own line, one number with what it means, and a
    picture of it, ``bars`` to scale."""
    told_facts = [" ".join(fact.split()) for fact in re.split(r"^\s*- ", facts, flags=re.MULTILINE)[1:]]
    from matplotlib.patches import FancyBboxPatch

    lines = [textwrap.wrap(fact, 62) for fact in told_facts]
    told = textwrap.wrap(meaning, 34)
    high = max(0.75 + 0.235 * sum(map(len, lines)) + 0.12 * len(lines), 1.2 + 0.2 * len(told) + 0.25 * len(bars))
    figure, axes = picture(width=9.0, height=high)
    figure.set_layout_engine("none")
    axes.set_position((0, 0, 1, 1))
    axes.set(xlim=(0, 9), ylim=(0, high))
    axes.axis("off")
    frame = "round,pad=0,rounding_size=0.12"
    axes.add_patch(FancyBboxPatch((0.1, 0.1), 8.8, high - 0.2, boxstyle=frame, facecolor="#F3F4F6", edgecolor="none"))
    axes.text(0.35, high - 0.38, "To remember", fontsize=11, weight="bold", va="center", color="#5F6368")
    y = high - 0.75
    for fact in lines:
        axes.text(0.4, y, "•", fontsize=12, va="center")
        for line in fact:
            axes.text(0.62, y, line, fontsize=11, va="center")
            y -= 0.235
        y -= 0.12
    size = min(26, 26 * 9 / max(9, len(number)))
    axes.text(6.1, high - 0.48, number, fontsize=size, weight="bold", va="center", color=COLOURS[0])
    axes.text(6.1, high - 0.78, "\n".join(told), fontsize=9.5, va="top", linespacing=1.25)
    y = high - 0.95 - 0.2 * len(told)
    left = 6.1 + 0.085 * max(map(len, bars)) + 0.1
    for name, value in bars.items():
        y -= 0.25
        axes.text(6.1, y + 0.085, name, fontsize=9.5, va="center")
        long = (8.75 - left) * value / max(bars.values())
        axes.add_patch(
            FancyBboxPatch((left, y), max(long, 0.012), 0.17, boxstyle="square,pad=0", color=COLOURS[0], linewidth=0)
        )
    show(figure, " ".join([*told_facts, f"{number}: {meaning}"]))


def live_page() -> None:
    """The page in which the notebooks' model computes, in the cell. Where pages are built it is left out: it is too large."""
    if _live():
        from IPython.display import display

        from minids.lab import page

        display(page.show(model(), name="pocket"))


def shapes(letters: Mapping[str, int] | None = None, /, **arrays: Array) -> None:
    """Print name, shape and rms of every array; ``letters`` names the sizes: {"B": 2, "T": 6, "d_h+d_r": 12}.

    The first letter that has a size names it, so sizes are best chosen all different.
    """
    names: dict[int, str] = {}
    for letter, size in (letters or {}).items():
        if size > 1:  # a 1 is no size of anything
            names.setdefault(size, letter)
    rows = []
    for name, array in arrays.items():
        values = np.asarray(array)
        told = [f"({', '.join(names.get(n, str(n)) for n in values.shape)})"] if letters else []
        whole = values.dtype.kind != "f"
        size = "whole numbers" if whole else f"rms {np.sqrt(np.mean(np.square(values, dtype=np.float64))):.3g}"
        rows.append((name, values.shape, *told, size))
    say(table(rows, align="l"))


def caught(report: Report) -> None:
    """Print what a check says about a wrong solution; raise if it did not notice."""
    if report:
        raise AssertionError(f"this mistake was not noticed: {report}")
    for line in str(report).split("\n"):
        indent = " " * (len(line) - len(line.lstrip()))
        say(textwrap.fill(line.strip(), _COLUMNS, initial_indent=indent, subsequent_indent=indent + "  "))


def explore(draw: Callable, **controls) -> None:
    """Call ``draw`` anew whenever a slider moves; a control is (least, most), (least, most, step), an array of values to slide
    over, or a list to choose from.

    The page calls ``draw()`` first: that picture is what a built page shows, where nothing moves, and a session without
    ipywidgets. In a live session the one with sliders takes its place.
    """
    global _shown
    if not _live() or importlib.util.find_spec("ipywidgets") is None:
        return
    import ipywidgets
    from IPython.display import HTML

    starts = {name: parameter.default for name, parameter in inspect.signature(draw).parameters.items()}
    looks = {"layout": ipywidgets.Layout(width="40em"), "style": {"description_width": "12em"}}
    made = {}
    for name, control in controls.items():
        start, words = starts[name], name.replace("_", " ")
        if isinstance(control, list):
            if start not in control:
                raise refuse(name, start, f"is not among the choices {control}")
            made[name] = ipywidgets.Dropdown(options=control, value=start, description=words, **looks)
            continue
        if isinstance(control, np.ndarray):
            made[name] = ipywidgets.SelectionSlider(options=control.tolist(), value=start, description=words, **looks)
            continue
        least, most, step = grid(start, *control)
        whole = all(isinstance(n, int) for n in (start, step))
        slider = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
        digits = len(f"{step:.6f}".rstrip("0").partition(".")[2])  # as many as the step has: 0.875 is not 0.88
        shown = "d" if whole else f".{digits}f"
        made[name] = slider(min=least, max=most, step=step, value=start, description=words, readout_format=shown, **looks)

    @functools.wraps(draw)
    def redraw(**values):
        global _shown
        draw(**values)
        _shown = None  # it belongs to its sliders now

    if _shown is not None:
        _shown.update(HTML(""))
        _shown = None
    ipywidgets.interact(redraw, **made)


def grid(start: float, least: float, most: float, step: float | None = None) -> tuple[float, float, float]:
    """Least, most and step of a slider that can stand at ``start``: the ends move inwards until it is whole steps from both."""
    if not least <= start <= most:
        raise refuse("start", start, f"must be in the slider's range, {least} to {most}")
    if step is None:
        step = 1 if all(isinstance(n, int) for n in (start, least, most)) else 0.1
    below, above = (int((length + 1e-9 * step) // step) for length in (start - least, most - start))
    return round(start - below * step, 10), round(start + above * step, 10), step


def _live() -> bool:
    """Whether a picture can change after it is shown: in a notebook, and not while pages are built."""
    inside = "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None
    return inside and not os.environ.get(_STATIC)
