"""minids figures: pictures for talks."""

import runpy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from minids.terminal import say


@dataclass(frozen=True)
class Options:
    """Draw the figures for talks: SVG, PNG, PDF and films, light and dark, each with its data and its words."""

    names: Annotated[tuple[str, ...], "positional"] = ()
    """Figures by number or name; all of them if none is given."""
    theme: Literal["light", "dark", "both"] = "both"
    """Colours for a bright or a dark slide."""
    formats: tuple[Literal["svg", "png", "pdf", "gif", "mp4"], ...] = ("svg", "png", "pdf", "gif")
    """File formats; gif and mp4 are of the figures that move."""
    out: str = "figures"
    """Folder to write to."""
    run: str = ""
    """Run folder of the trained model that some figures look into; runs/tiny if not given, trained first if missing."""
    aspect: Literal["16:9", "4:3", "square", "column"] = "16:9"
    """Shape: of a slide, or of a paper's column (8.6 cm)."""
    letters: float = 1.0
    """Size of the letters, 1 is the usual one."""
    title: bool = True
    """Write the finding, what it is of, and a subtitle above the figure."""
    transparent: bool = False
    """Leave the background out."""
    words: str = ""
    """Language: de, ar, or a JSON file as --phrases writes one."""
    colours: Annotated[tuple[str, ...], "each"] = ()
    """Another colour for a kind of tensor, as in --colours latent=#aa3377; given once for each."""
    steps: bool = False
    """Write the builds of each slide too, one file each; in SVG they are fragments with ids."""
    phrases: str = ""
    """Write the phrases on these figures to this JSON file, to be translated, and draw nothing."""
    also: Annotated[tuple[str, ...], "each"] = ()
    """A Python file that calls minids.lab.figures.register: its figures join the set."""
    list: bool = False
    """Only show what there is: number, name, caption, and a thumbnail where the terminal can show one."""


def run(options: Options, given: set[str]) -> None:
    import json

    from minids.errors import refuse
    from minids.files import write
    from minids.lab.figures.collection import found, listing, phrases, write_all
    from minids.lab.figures.language import words_of
    from minids.lab.figures.picture import Look
    from minids.lab.figures.sources import Sources
    from minids.lab.figures.style import THEMES, checked_colours, need_matplotlib

    for path in options.also:
        if not Path(path).is_file():
            raise refuse("also", path, "is no file; give a Python file that calls minids.lab.figures.register")
        runpy.run_path(path)
    asked = found(options.names)
    out = Path(options.out)
    if options.list:
        say(listing(asked, out), painted=True)
        return
    need_matplotlib()  # before minutes of work
    colours = dict(one.partition("=")[::2] for one in options.colours)
    look = Look(
        aspect=options.aspect, letters=options.letters, title=options.title, transparent=options.transparent,
        words=words_of(options.words), colours=checked_colours(colours),
    )  # fmt: skip
    sources = Sources(options.run, train=True)
    sources.check(asked)
    if options.phrases:
        met = phrases(asked, sources.rows, look)
        write(Path(options.phrases), (json.dumps(met, ensure_ascii=False, indent=1) + "\n").encode())
        say(f"{len(met)} phrases in {options.phrases}")
        return
    themes = THEMES if options.theme == "both" else (options.theme,)
    written = write_all(asked, sources.rows, out, themes, options.formats, look, options.steps)
    say(f"{len(written)} files in {out}")
