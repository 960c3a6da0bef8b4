"""minids figures: pictures for talks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from minids.terminal import say


@dataclass(frozen=True)
class Options:
    """Draw the figures for talks: SVG, PNG and PDF at 16:9, light and dark, each with its data and its words."""

    names: Annotated[tuple[str, ...], "positional"] = ()
    """Figures by number or name; all of them if none is given."""
    theme: Literal["light", "dark", "both"] = "both"
    """Colours for a bright or a dark slide."""
    formats: tuple[Literal["svg", "png", "pdf"], ...] = ("svg", "png", "pdf")
    """File formats. Animations come with png."""
    out: str = "figures"
    """Folder to write to."""
    run: str = ""
    """Run folder of the trained model that some figures look into; runs/tiny if not given, trained first if missing."""
    list: bool = False
    """Only show what there is: number, name, caption, and a thumbnail where the terminal can show one."""


def run(options: Options, given: set[str]) -> None:
    from minids.lab.figures.collection import found, write_all
    from minids.lab.figures.sources import Sources
    from minids.lab.figures.style import THEMES, need_matplotlib
    from minids.lab.figures.thumbnail import listing

    asked = found(options.names)
    out = Path(options.out)
    if options.list:
        say(listing(asked, out), painted=True)
        return
    need_matplotlib()  # before minutes of work
    sources = Sources(options.run, train=True)
    sources.check(asked)
    themes = THEMES if options.theme == "both" else (options.theme,)
    written = write_all(asked, sources.rows, out, themes, options.formats)
    say(f"{len(written)} files in {out}")
