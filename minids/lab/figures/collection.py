"""The whole set: finding pictures by name or number, and writing them with caption, alternative text and data."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import minids.lab.figures
from minids import files
from minids.errors import refuse
from minids.lab.figures.film import FILMS, ffmpeg
from minids.lab.figures.picture import USUAL, Look, Picture, Rows, as_csv
from minids.lab.figures.slide import Slide
from minids.lab.figures.style import THEMES, encoded, style
from minids.terminal import say
from minids.words import did_you_mean

STILLS = ("svg", "png", "pdf")
FORMATS = (*STILLS, *FILMS)


def pictures() -> list[Picture]:
    """All of them, by number."""
    return sorted((getattr(minids.lab.figures, name) for name in minids.lab.figures.PICTURES), key=lambda p: p.number)


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
    picture: Picture, rows: Rows, out: Path, themes: Sequence[str] = THEMES, formats: Sequence[str] = STILLS,
    look: Look = USUAL, steps: bool = False,
) -> list[Path]:  # fmt: skip
    """Write one picture in every theme and format into a folder, and beside it its words (.txt) and numbers (.csv); with
    ``steps`` also the builds of the slide, one file each."""
    for form in formats:
        if form not in FORMATS:
            raise refuse("formats", form, f"must be among {', '.join(FORMATS)}")
    words = f"{picture.caption}\n\nAlternative text: {picture.alternative}\n"
    made = {f"{picture.stem}.csv": as_csv(rows).encode(), f"{picture.stem}.txt": words.encode()}
    for theme in themes:
        themed = replace(look, theme=theme)
        name = picture.stem + ("" if theme == THEMES[0] else f".{theme}")
        slide = picture.slide(rows, look=themed)
        with style(theme, letters=look.letters, colours=look.colours, transparent=look.transparent):
            stills = [form for form in formats if form in STILLS]
            for form in stills:
                made[f"{name}.{form}"] = encoded(slide.figure, form, picture.caption, picture.alternative)
            if steps:
                made |= _builds(slide, name, [form for form in stills if form != "svg"] or ["png"])
        if picture.film and any(form in FILMS for form in formats):
            frames = list(picture.film.frames(picture, rows, themed))
            made |= {f"{name}.{form}": FILMS[form](frames) for form in formats if form in FILMS}
    for name, data in made.items():
        files.write(out / name, data)
    return [out / name for name in made]


def _builds(slide: Slide, name: str, formats: Sequence[str]) -> dict[str, bytes]:
    """Every build of a slide, with what came before it: the last is the whole picture."""
    builds, made = slide.builds(), {}
    seen = {id(artist): artist.get_visible() for artists in builds for artist in artists}
    for last in range(len(builds)):
        for build, artists in enumerate(builds):
            for artist in artists:
                artist.set_visible(seen[id(artist)] and build <= last)
        for form in formats:
            made[f"{name}.step{last + 1}.{form}"] = encoded(slide.figure, form)
    return made


def phrases(asked: Sequence[Picture], rows_of: Callable[[Picture], Rows], look: Look = USUAL) -> dict[str, str]:
    """Every phrase on these pictures → what ``look.words`` makes of it, "" where that is nothing."""
    found: dict[str, str] = {}
    for picture in asked:
        rows = rows_of(picture)
        found |= picture.slide(rows, look=look).language.met
        for what, _ in list(picture.film.moments(rows)) if picture.film else []:
            slide = picture.slide(rows, None, look, lambda slide, rows, p=picture, what=what: p.film.draw(slide, rows, what))
            found |= slide.language.met
    return found


def write_all(
    asked: Sequence[Picture], rows_of: Callable[[Picture], Rows], out: Path, themes: Sequence[str], formats: Sequence[str],
    look: Look = USUAL, steps: bool = False,
) -> list[Path]:  # fmt: skip
    """Write several, telling which one is being drawn and how long the last one took."""
    files.make_writable(out)  # before they are drawn: some are minutes of measuring
    if "mp4" in formats:
        ffmpeg()  # refused before anything is drawn
    written = []
    for i, picture in enumerate(asked, start=1):
        began = time.perf_counter()
        say(f"[{i}/{len(asked)}] {picture.number:>2} {picture.name} …")
        made = write(picture, rows_of(picture), out, themes, formats, look, steps)
        say(f"        {time.perf_counter() - began:.1f} s, {sum(path.stat().st_size for path in made) / 1e3:,.0f} kB")
        written += made
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
        moving = f" · [animation]({p.stem}.gif)" if p.film else ""
        lines += [f"[SVG]({p.stem}.svg) · [PNG]({p.stem}.png) · [data]({p.stem}.csv)" + moving, ""]
    return "\n".join(lines)
