"""What a figure of the set is: numbers first, then a drawing of them, and words for those who cannot see it.

    rows(…)          → a list of dicts, one per line of the .csv beside the picture; every number is computed here
    draw(slide, rows)  puts them on a slide and invents nothing

A ``Picture`` is called like a function: ``kv_cache_per_token(models=…, aspect="4:3", theme="dark")`` returns the matplotlib
Figure. The fields of ``Look`` say how it is drawn, ``ax`` where, the other arguments go to ``rows``.
"""

import csv
import inspect
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from minids.config import ModelConfig
from minids.errors import refuse
from minids.lab.analysis.parameters import total
from minids.lab.figures.film import Film
from minids.lab.figures.language import Language
from minids.lab.figures.slide import LEFT, RIGHT, Box, Slide
from minids.lab.figures.style import WIDTH, colour, diverging, ink_on, need_matplotlib, sequential, style, tint
from minids.words import si

__all__ = ["LEFT", "RIGHT", "Box", "Film", "Look", "Picture", "Rows", "Slide", "colour", "column", "distinct", "diverging"]
__all__ += ["ink_on", "only", "parameter_count", "picture", "sequential", "size_of", "tint", "token_count"]

Rows = list[dict[str, Any]]

ASPECTS = {  # name → width in inches, height in units of a sixteenth of it, size of letters
    "16:9": (WIDTH, 9.0, 1.0),
    "4:3": (WIDTH, 12.0, 1.0),
    "square": (WIDTH, 16.0, 1.0),
    "column": (8.6 / 2.54, 15.0, 1.65),  # of a paper: 8.6 cm, letters of 7 points
}


@dataclass(frozen=True)
class Look:
    """How a picture is drawn, whatever it shows."""

    theme: str = "light"
    aspect: str = "16:9"
    letters: float = 1.0
    """Size of the letters, 1 is the usual one; from 0.8 to 1.5 nothing overlaps."""
    title: bool = True
    """Whether finding, source and subtitle stand above."""
    transparent: bool = False
    words: Mapping[str, str] = field(default_factory=dict)
    """Phrases in another language, see ``minids.lab.figures.language``."""
    colours: Mapping[str, str] = field(default_factory=dict)
    """Kind of tensor, or "ink", "background", … → another colour than ``minids.lab.figures.style`` has."""

    def __post_init__(self):
        if self.aspect not in ASPECTS:
            raise refuse("aspect", self.aspect, f"must be one of {', '.join(ASPECTS)}")
        if not 0.5 <= self.letters <= 3:
            raise refuse("letters", self.letters, "must lie between 0.5 and 3; 1 is the usual size")


USUAL = Look()
_OF_LOOK = tuple(f.name for f in fields(Look))


@dataclass(frozen=True)
class Picture:
    """One figure of the set."""

    number: int
    name: str
    caption: str  # one sentence that says what is seen
    alternative: str  # what the picture shows, for those who hear it read out
    rows: Callable[..., Rows]
    draw: Callable[[Slide, Rows], None]
    source: str = "arithmetic"
    """Where its numbers come from: "arithmetic" (ready at once), "run" (a trained model), "run, measured" (and its speed),
    "study NAME" (results kept with the package), or "grpo" (a run of it kept with the package, unless another one is given)."""
    film: Film | None = None  # the same rows in motion, where there is more to see

    def __post_init__(self):
        keyword, of_rows = inspect.Parameter.KEYWORD_ONLY, inspect.signature(self.rows).parameters.values()
        more = [inspect.Parameter("ax", keyword, default=None)]
        more += [inspect.Parameter(f.name, keyword, default=getattr(USUAL, f.name)) for f in fields(Look)]
        signature = inspect.Signature([*(p.replace(kind=keyword) for p in of_rows), *more])
        object.__setattr__(self, "film", self.film and replace(self.film, draw=self.film.draw or self.draw))
        object.__setattr__(self, "__signature__", signature)
        object.__setattr__(self, "__doc__", f"Figure {self.number}. {self.caption}\n\n{inspect.getdoc(self.rows) or ''}")

    @property
    def stem(self) -> str:
        """Name of its files, without what follows the dot."""
        return f"{self.number:02}_{self.name}"

    def __call__(self, *, ax=None, **arguments):
        """The matplotlib Figure: a slide of its own, or drawn into the ``ax`` of another, letters in proportion."""
        need_matplotlib()  # before the numbers are made, which can take minutes
        known = inspect.signature(self.rows).parameters
        for name, value in arguments.items():
            if name not in known and name not in _OF_LOOK:
                raise refuse(name, value, f"{self.name} takes {', '.join([*known, 'ax', *_OF_LOOK])}")
        look = Look(**{name: arguments.pop(name) for name in _OF_LOOK if name in arguments})
        return self.drawn(self.rows(**arguments), ax, look=look)

    def drawn(self, rows: Rows, ax=None, theme: str = "", look: Look = USUAL):
        """The matplotlib Figure of rows that are there already; ``theme`` is short for a look that differs in it alone."""
        return self.slide(rows, ax, Look(theme) if theme else look).figure

    def slide(self, rows: Rows, ax=None, look: Look = USUAL, draw: Callable[[Slide, Rows], None] | None = None) -> Slide:
        """The slide it is drawn on, by ``draw`` in place of its own; it knows its builds, and the phrases on it."""
        inches, height, letters = ASPECTS[look.aspect]
        if ax is not None:
            frame = ax.get_position()
            inches = frame.width * ax.figure.get_figwidth()
            height, letters = 16 * frame.height * ax.figure.get_figheight() / inches, 1.0
        letters *= look.letters
        names = ["DeepSeek-V3", *(row.get(key) for row in rows for key in ("model", "domain", "quote"))]
        with style(look.theme, inches / WIDTH, letters, look.colours, look.transparent):
            language = Language(look.words, {name for name in names if isinstance(name, str)})
            slide = Slide(ax, height, inches, letters, look.title, language, look.transparent)
            slide.about = f"{rows[0].get('model')}" + ", arithmetic" * (self.source == "arithmetic") if rows else ""
            (draw or self.draw)(slide, rows)
            slide.finished(crowded=letters != 1 or height != 9.0 or bool(look.words))
        return slide


def picture(number: int, rows: Callable[..., Rows], source: str = "arithmetic", film: Film | None = None):
    """Make a ``Picture`` of the function that draws it: called like it, caption and alternative text from its docstring."""

    def made(draw: Callable[[Slide, Rows], None]) -> Picture:
        caption, _, alternative = (" ".join(part.split()) for part in (inspect.getdoc(draw) or "").partition("\n\n"))
        return Picture(number, draw.__name__, caption, alternative, rows, draw, source, film)

    return made


def as_csv(rows: Rows) -> str:
    """Rows as text; a column that a row does not have stays empty. Seven digits of a number are more than a picture shows."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{v:.7g}" if isinstance(v, float) else v for key, v in row.items()})
    return out.getvalue()


def only(rows: Rows, **where) -> Rows:
    """Rows with these values."""
    return [row for row in rows if all(row.get(key) == value for key, value in where.items())]


def column(rows: Rows, name: str) -> list:
    """One column."""
    return [row[name] for row in rows]


def distinct(rows: Rows, name: str) -> list:
    """The values of a column in the order they appear."""
    return list(dict.fromkeys(row[name] for row in rows if name in row))


# Numbers as a slide says them.


def size_of(settings: dict) -> str:
    """Fields of a model's configuration → "320 k parameters"."""
    return f"{si(total(ModelConfig(**settings)))} parameters"


def parameter_count(value: float, digits: int = 3) -> str:
    """671026419200 → "671B": billions, millions, or thousands."""
    sizes = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))
    size, letter = next((one for one in sizes if value >= 0.9995 * one[0]), (1, ""))
    return f"{value / size:.{digits}g}{letter}"


def token_count(tokens: float) -> str:
    """131072 → "128K" where it is a multiple of 1024, else rounded: "1.1 million", "20,000"."""
    for size, letter in ((20, "M"), (10, "K")):
        if tokens >= 1 << size and tokens % (1 << size) == 0:
            return f"{int(tokens) >> size}{letter}"
    return f"{tokens / 1e6:.1f} million" if tokens >= 1e6 else f"{float(f'{tokens:.2g}'):,.0f}"
