"""The whole set: finding pictures by name or number, writing them with their words and data, showing them small."""

import base64
import html
import io
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

import minids.lab.figures
from minids import files
from minids.errors import refuse
from minids.lab.figures.film import FILMS, ffmpeg
from minids.lab.figures.picture import USUAL, Look, Picture, Rows, as_csv
from minids.lab.figures.slide import Slide
from minids.lab.figures.style import THEMES, encoded, style
from minids.terminal import coloured, room, say
from minids.words import did_you_mean

STILLS = ("svg", "png", "pdf")
FORMATS = (*STILLS, *FILMS)


GALLERY = """# Figures

Drawn by `minids figures` from numbers this package computes; the numbers are in the `.csv` beside each, its
alternative text in the `.txt`. Dark theme and PDF: `minids figures --theme both`. In a notebook:
`minids.lab.figures.thumbnails()`.
"""


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
    stills = [form for form in formats if form in STILLS]
    for theme in themes:
        themed, name = replace(look, theme=theme), picture.stem + ("" if theme == THEMES[0] else f".{theme}")
        slide = picture.slide(rows, look=themed)
        with style(theme, letters=look.letters, colours=look.colours, transparent=look.transparent):
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
        for slide, _ in picture.film.slides(picture, rows, look) if picture.film else ():
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
    lines = [GALLERY]
    for p in shown:
        moving = f" · [animation]({p.stem}.gif)" if p.film else ""
        links = f"[SVG]({p.stem}.svg) · [PNG]({p.stem}.png) · [data]({p.stem}.csv){moving}"
        lines.append(f"## {p.number}. {p.name}\n\n![{p.alternative}]({p.stem}.png)\n\n{p.caption}\n\n{links}\n")
    return "\n".join(lines)


# The set at a glance, in a terminal that can show colours and in a notebook.


def listing(shown: Sequence[Picture], out: Path, colours: bool | None = None) -> str:
    """One entry per picture. With ``colours`` (default: where standard output is a terminal) a drawn PNG, from ``out`` or, if
    it needs nothing but arithmetic, made on the spot, is shown as half blocks; else its file is named."""
    colours, entries = coloured() if colours is None else colours, []
    for picture in shown:
        path = out / f"{picture.stem}.png"
        lines = [f"{picture.number:>2}  {picture.name}", *textwrap.wrap(picture.caption, room(94) - 4)]
        if colours and (image := _image(picture, path)):
            lines += half_blocks(image, room(68) - 4)
        else:
            lines.append(str(path) if path.exists() else f"not drawn yet: minids figures {picture.number}")
        entries.append("\n    ".join(lines))
    return "\n\n".join(entries)


class Thumbnails:
    """Names, captions and small pictures of ``listing``: a table where a notebook shows it, text anywhere else."""

    def __init__(self, shown: Sequence[Picture], out: str | Path = "figures", width: int = 288):
        self.shown, self.out, self.width = shown, Path(out), width

    def __repr__(self) -> str:
        return listing(self.shown, self.out, colours=False)

    def _repr_html_(self) -> str:
        lines, cell = ["<table>"], '<td style="text-align:left">'
        for picture in self.shown:
            image, words, out = "", html.escape(picture.alternative, quote=True), io.BytesIO()
            if data := _image(picture, self.out / f"{picture.stem}.png"):
                _small(data, 2 * self.width, 1, "LANCZOS").quantize(64).save(out, "PNG", optimize=True)  # in few colours
                source = f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"
                image = f'<img width="{self.width}" alt="{words}" src="{source}">'
            about = f"<b>{picture.number}. {picture.name}</b><br>{html.escape(picture.caption)}"
            lines.append(f"<tr>{cell}{image}</td>{cell}{about}</td></tr>")
        return "\n".join([*lines, "</table>"])


def _small(png: bytes, width: int, lines: int, how: str):
    """A PNG as an image ``width`` pixels wide; its height is a multiple of ``lines``."""
    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGB")
    return image.resize((width, round(width * image.height / image.width / lines) * lines), Image.Resampling[how])


def half_blocks(png: bytes, columns: int = 64) -> list[str]:
    """A PNG as lines of the character ▀, whose two halves are two pixels in 24-bit colour."""
    pixels = np.asarray(_small(png, columns, 2, "BOX")).tolist()
    cell = "\x1b[38;2;{};{};{}m\x1b[48;2;{};{};{}m▀"
    lines = (zip(*pair, strict=True) for pair in zip(pixels[::2], pixels[1::2], strict=True))
    return ["".join(cell.format(*upper, *lower) for upper, lower in line) + "\x1b[0m" for line in lines]


def _image(picture: Picture, path: Path) -> bytes | None:
    if path.exists() or picture.source != "arithmetic":
        return path.read_bytes() if path.exists() else None
    figure = picture()
    with style():
        return encoded(figure, "png")
