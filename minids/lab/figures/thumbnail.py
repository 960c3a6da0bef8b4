"""The set at a glance: names, captions and small pictures, in a terminal that can show colours and in a notebook."""

import base64
import html
import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

from minids.lab.figures.picture import Picture
from minids.lab.figures.style import encoded, style
from minids.terminal import coloured, room


def listing(shown: Sequence[Picture], out: Path, colours: bool | None = None) -> str:
    """One entry per picture. With ``colours`` (default: where standard output is a terminal) a drawn PNG, from ``out`` or, if
    it needs nothing but arithmetic, made on the spot, is shown as half blocks; else its file is named."""
    if colours is None:
        colours = coloured()
    entries = []
    for picture in shown:
        path = out / f"{picture.stem}.png"
        lines = [f"{picture.number:>2}  {picture.name}", *textwrap.wrap(picture.caption, room(94) - 4)]
        if colours and (image := _image(picture, path)):
            lines += half_blocks(image, room(68) - 4)
        elif path.exists():
            lines.append(str(path))
        else:
            lines.append(f"not drawn yet: minids figures {picture.number}")
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
            data = _image(picture, self.out / f"{picture.stem}.png")
            small = base64.b64encode(_smaller(data, 2 * self.width)).decode() if data else ""
            words = html.escape(picture.alternative, quote=True)
            image = f'<img width="{self.width}" alt="{words}" src="data:image/png;base64,{small}">' if small else ""
            about = f"<b>{picture.number}. {picture.name}</b><br>{html.escape(picture.caption)}"
            lines.append(f"<tr>{cell}{image}</td>{cell}{about}</td></tr>")
        return "\n".join([*lines, "</table>"])


def _smaller(png: bytes, width: int) -> bytes:
    """A PNG made ``width`` pixels wide, in few colours."""
    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGB")
    image = image.resize((width, round(width * image.height / image.width)), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.quantize(64).save(out, "PNG", optimize=True)
    return out.getvalue()


def half_blocks(png: bytes, columns: int = 64) -> list[str]:
    """A PNG as lines of the character ▀, whose two halves are two pixels in 24-bit colour."""
    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGB")
    rows = round(columns * image.height / image.width / 2) * 2
    small = image.resize((columns, rows), Image.Resampling.BOX)
    lines = []
    for y in range(0, rows, 2):
        line = ""
        for x in range(columns):
            upper, lower = small.getpixel((x, y)), small.getpixel((x, y + 1))
            line += "\x1b[38;2;{};{};{}m\x1b[48;2;{};{};{}m▀".format(*upper, *lower)
        lines.append(line + "\x1b[0m")
    return lines


def _image(picture: Picture, path: Path) -> bytes | None:
    if path.exists():
        return path.read_bytes()
    if picture.source != "arithmetic":
        return None
    figure = picture()
    with style():
        return encoded(figure, "png")
