"""One style for all pictures: slide-shaped, colour-blind safe (Okabe & Ito 2008), reproducible byte for byte."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

_RC = {
    "figure.figsize": (12.8, 7.2),  # 1920 × 1080 at 150 dots per inch
    "figure.dpi": 150,
    "font.size": 16,
    "axes.titlesize": 22,
    "axes.titlelocation": "left",
    "axes.titlepad": 16,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "lines.linewidth": 2.5,
    "legend.frameon": False,
    "svg.hashsalt": "minids",
    "svg.fonttype": "none",
}


@contextmanager
def style() -> Iterator[None]:
    """Within it, figures look like ours."""
    import matplotlib as mpl
    from cycler import cycler

    with mpl.rc_context({**_RC, "axes.prop_cycle": cycler(color=COLOURS)}):
        yield


def write(figure, path: Path) -> Path:
    """Write a figure without a date in it, so that the same numbers give the same file."""
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix, {})
    figure.savefig(path, metadata=metadata)
    return path
