"""The whole set: finding pictures by name or number, and writing them with caption, alternative text and data."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import minids.lab.figures
from minids import files
from minids.errors import refuse
from minids.lab.figures.picture import Picture, Rows, as_csv
from minids.lab.figures.style import THEMES, encoded, style
from minids.terminal import say
from minids.words import did_you_mean

FORMATS = ("svg", "png", "pdf")


def pictures() -> list[Picture]:
    """All of them, in order."""
    return [getattr(minids.lab.figures, name) for name in minids.lab.figures.PICTURES]


def found(asked: Sequence[str]) -> list[Picture]:
    """Those asked for by name or number; all of them if nothing is. Refuses what is not there."""
    every, asked = pictures(), [str(name) for name in asked]
    by_name = {p.name: p for p in every} | {str(p.number): p for p in every}
    for name in asked:
        if name.lstrip("0") not in by_name:
            there = f"minids figures --list shows them, numbers 1 to {every[-1].number}"
            raise refuse("name", name, f"no such figure; {did_you_mean(name, by_name)}{there}")
    wanted = {by_name[name.lstrip("0")].name for name in asked}
    return [p for p in every if not asked or p.name in wanted]


def write(
    picture: Picture, rows: Rows, out: Path, themes: Sequence[str] = THEMES, formats: Sequence[str] = FORMATS
) -> list[Path]:
    """Write one picture in every theme and format into a folder, and beside it its words (.txt) and numbers (.csv)."""
    for name in formats:
        if name not in FORMATS:
            raise refuse("formats", name, f"must be among {', '.join(FORMATS)}")
    words = f"{picture.caption}\n\nAlternative text: {picture.alternative}\n"
    made = {f"{picture.stem}.csv": as_csv(rows).encode(), f"{picture.stem}.txt": words.encode()}
    for theme in themes:
        name = picture.stem + ("" if theme == THEMES[0] else f".{theme}")
        figure = picture.drawn(rows, theme=theme)
        with style(theme):
            for form in formats:
                made[f"{name}.{form}"] = encoded(figure, form, picture.caption, picture.alternative)
        if picture.animate and "png" in formats:
            made[f"{name}.gif"] = picture.animate(rows, theme)
    for name, data in made.items():
        files.write(out / name, data)
    return [out / name for name in made]


def write_all(
    asked: Sequence[Picture], rows_of: Callable[[Picture], Rows], out: Path, themes: Sequence[str], formats: Sequence[str]
) -> list[Path]:
    """Write several, telling which one is being drawn and how long the last one took."""
    files.make_writable(out)  # before they are drawn: some are minutes of measuring
    written = []
    for i, picture in enumerate(asked, start=1):
        began = time.perf_counter()
        say(f"[{i}/{len(asked)}] {picture.number:>2} {picture.name} …")
        written += write(picture, rows_of(picture), out, themes, formats)
        size = sum(path.stat().st_size for path in written[-(len(themes) * len(formats)) :])
        say(f"        {time.perf_counter() - began:.1f} s, {size / 1e3:,.0f} kB")
    if len(asked) == len(minids.lab.figures.PICTURES):
        written.append(out / "README.md")
        files.write(written[-1], gallery(asked).encode())
    return written


def gallery(shown: Sequence[Picture]) -> str:
    """A page of all pictures with their captions, for a browser or a repository's page."""
    lines = [
        "# Figures",
        "",
        "Drawn by `minids figures` from numbers this package computes; the numbers are in the `.csv` beside each, its",
        "alternative text in the `.txt`. Dark theme and PDF: `minids figures --theme both`. In a notebook:",
        "`minids.lab.figures.thumbnails()`.",
        "",
    ]
    for p in shown:
        lines += [f"## {p.number}. {p.name}", "", f"![{p.alternative}]({p.stem}.png)", "", p.caption, ""]
        moving = f" · [animation]({p.stem}.gif)" if p.animate else ""
        lines += [f"[SVG]({p.stem}.svg) · [PNG]({p.stem}.png) · [data]({p.stem}.csv)" + moving, ""]
    return "\n".join(lines)
