"""What a figure of the set is: numbers first, then a drawing of them, and words for those who cannot see it.

    rows(…)          → a list of dicts, one per line of the .csv beside the picture; every number is computed here
    draw(slide, rows)  puts them on a slide and invents nothing

A ``Picture`` is called like a function: ``kv_cache_per_token(models=…, ax=…, theme="dark")`` returns the matplotlib Figure;
its other arguments go to ``rows``.
"""

import csv
import inspect
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minids.errors import refuse
from minids.lab.figures.slide import Slide
from minids.lab.figures.style import WIDTH, need_matplotlib, style

Rows = list[dict[str, Any]]


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
    """Where its numbers come from: "arithmetic" (ready at once), "run" (a trained model), "run, measured" (and
    its speed), "measurement" (time on this machine), or "study NAME" (results kept with the package)."""
    animate: Callable[[Rows, str], bytes] | None = None  # (rows, theme) → a GIF, where there is one

    def __post_init__(self):
        keyword, of_rows = inspect.Parameter.KEYWORD_ONLY, inspect.signature(self.rows).parameters.values()
        ax = inspect.Parameter("ax", keyword, default=None)
        theme = inspect.Parameter("theme", keyword, default="light", annotation=str)
        signature = inspect.Signature([*(p.replace(kind=keyword) for p in of_rows), ax, theme])
        object.__setattr__(self, "__signature__", signature)
        object.__setattr__(self, "__doc__", f"Figure {self.number}. {self.caption}\n\n{inspect.getdoc(self.rows) or ''}")

    @property
    def stem(self) -> str:
        """Name of its files, without what follows the dot."""
        return f"{self.number:02}_{self.name}"

    def __call__(self, *, ax=None, theme: str = "light", **arguments):
        """The matplotlib Figure: a slide of its own, or drawn into the ``ax`` of another, letters in proportion."""
        need_matplotlib()  # before the numbers are made, which can take minutes
        known = inspect.signature(self.rows).parameters
        for name, value in arguments.items():
            if name not in known:
                raise refuse(name, value, f"{self.name} takes {', '.join([*known, 'ax', 'theme'])}")
        return self.drawn(self.rows(**arguments), ax, theme)

    def drawn(self, rows: Rows, ax=None, theme: str = "light"):
        """The matplotlib Figure of rows that are there already."""
        scale = 1.0 if ax is None else ax.get_position().width * ax.figure.get_figwidth() / WIDTH
        with style(theme, scale):
            slide = Slide(ax, scale)
            self.draw(slide, rows)
            return slide.figure


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
