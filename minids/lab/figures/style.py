"""One look for all pictures: two themes, one colour per kind of tensor throughout the set, files without a date in them.

Colours are told apart with any common colour blindness: Okabe & Ito 2008 and Paul Tol's muted scheme, lightened on the dark
theme. Letters are DejaVu Sans, which comes with matplotlib, and are drawn as outlines in SVG: a slide looks the same on a
machine without the font, and the words of a picture are in its alternative text.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from minids.errors import refuse

WIDTH, HEIGHT, DPI = 12.8, 7.2, 150  # inches, inches, dots per inch: 1920 × 1080

SMALLEST = 16
"""Points of the smallest letters on a slide 12.8 inches wide: what the last row still reads."""

# kind of thing → colour on the light theme, colour on the dark theme
_KINDS = {
    "background": ("#FFFFFF", "#14171C"),
    "ink": ("#1A1A1A", "#F2F2F2"),
    "muted": ("#5F6368", "#AEB4BC"),
    "faint": ("#D9DCE0", "#3A4048"),
    "panel": ("#F3F4F6", "#20252C"),
    # tensors
    "hidden": ("#8A9099", "#9AA2AD"),  # the residual stream, and whatever is dense
    "query": ("#0072B2", "#4FA8E0"),
    "latent": ("#E69F00", "#F2B134"),  # c_kv, and the content keys made from it
    "rope": ("#009E73", "#2CC69A"),
    "value": ("#AA4499", "#D67FC6"),
    "routed": ("#56B4E9", "#56B4E9"),
    "shared": ("#D55E00", "#F08040"),
    "mtp": ("#4B3BA8", "#A89BFF"),
    "fp8": ("#7D7A00", "#D2CC4A"),
    "bias": ("#1A1A1A", "#F2F2F2"),  # the router's, on top of scores
    # passes of a pipeline: told apart by brightness, and no tensor's colours
    "forward": ("#AEBBD0", "#6F84A8"),
    "backward": ("#7A5C3E", "#B08A62"),
    "weights": ("#E3C48F", "#EFD9AE"),
    # domains of the text
    "prose": ("#1A1A1A", "#F2F2F2"),
    "code": ("#CC5566", "#F07F8E"),
    "arithmetic": ("#2A9D8F", "#5CCFC0"),
    # what is compared with ours, from nearest to furthest
    "other1": ("#5F6368", "#AEB4BC"),
    "other2": ("#8E949B", "#868D96"),
    "other3": ("#B9BEC4", "#666D76"),
}

THEMES = ("light", "dark")
_theme: ContextVar[str] = ContextVar("theme", default="light")


def colour(kind: str) -> str:
    """The colour of a kind of tensor, or of ink, in the theme at hand."""
    return _KINDS[kind][THEMES.index(_theme.get())]


def theme() -> str:
    """The theme at hand."""
    return _theme.get()


def ink_on(fill: str) -> str:
    """Black or white letters, whichever is read better on ``fill`` (relative luminance of the WCAG)."""
    from matplotlib.colors import to_rgb

    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(fill)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#FFFFFF" if luminance < 0.22 else "#101010"


def tint(fill: str, share: float) -> str:
    """``fill`` mixed with the background: share 1 is the colour itself, 0 the background."""
    from matplotlib.colors import to_hex, to_rgb

    return to_hex([share * a + (1 - share) * b for a, b in zip(to_rgb(fill), to_rgb(colour("background")), strict=True)])


def sequential(kind: str, floor: float = 0.0):
    """Colours of amounts of one kind of tensor: from the panel (``floor`` 0) or a tint up to beyond the colour itself."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    strong = colour(kind)
    end = 0.0 if theme() == "light" else 1.0  # towards black or white, so that the largest stand out
    beyond = [0.4 * c + 0.6 * end for c in to_rgb(strong)]
    low = colour("panel") if not floor else tint(strong, floor)
    return LinearSegmentedColormap.from_list(kind, [low, strong, beyond])


def diverging():
    """Colours of amounts with a sign."""
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    if theme() == "light":
        return colormaps["RdBu_r"]
    middle = colour("panel")  # nothing must not be the brightest colour on a dark slide
    return LinearSegmentedColormap.from_list("dark", ["#9AD0FF", "#2F7BC4", middle, "#C9523D", "#FFBFA8"])


@contextmanager
def style(theme: str = "light", scale: float = 1.0) -> Iterator[None]:
    """Within it, figures look like ours. ``scale`` is the size of letters and lines against a whole slide's."""
    import matplotlib as mpl

    if theme not in THEMES:
        raise refuse("theme", theme, f"must be one of {', '.join(THEMES)}")
    token = _theme.set(theme)
    try:
        defaults = {key: value for key, value in mpl.rcParamsDefault.items() if key != "backend"}  # a notebook keeps its own
        with mpl.rc_context({**defaults, **_settings(scale)}):
            yield
    finally:
        _theme.reset(token)


def _settings(scale: float) -> dict:
    ink, faint = colour("ink"), colour("faint")
    return {
        "figure.figsize": (WIDTH, HEIGHT),
        "figure.dpi": DPI,
        "savefig.dpi": DPI,
        "font.family": ["DejaVu Sans"],
        "font.size": 18 * scale,
        "mathtext.fontset": "dejavusans",
        "axes.labelsize": 18 * scale,
        "xtick.labelsize": SMALLEST * scale,
        "ytick.labelsize": SMALLEST * scale,
        "legend.fontsize": SMALLEST * scale,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 1.2 * scale,
        "axes.axisbelow": True,
        "lines.linewidth": 3.0 * scale,
        "lines.markersize": 9 * scale,
        "grid.color": faint,
        "grid.linewidth": 1.0 * scale,
        "legend.frameon": False,
        "figure.facecolor": colour("background"),
        "savefig.facecolor": colour("background"),
        "axes.facecolor": "none",
        "axes.edgecolor": colour("muted"),
        "axes.labelcolor": ink,
        "text.color": ink,
        "xtick.color": colour("muted"),
        "ytick.color": colour("muted"),
        "xtick.labelcolor": ink,
        "ytick.labelcolor": ink,
        "xtick.major.width": 1.2 * scale,
        "ytick.major.width": 1.2 * scale,
        "xtick.major.size": 5 * scale,
        "ytick.major.size": 5 * scale,
        "xtick.minor.size": 0,
        "ytick.minor.size": 0,
        "svg.hashsalt": "minids",
        "svg.fonttype": "path",
        "pdf.fonttype": 42,
        "path.simplify_threshold": 0.2,
    }


def encoded(figure, form: str, title: str = "", description: str = "") -> bytes:
    """The figure as the bytes of an svg, png or pdf, the same for the same numbers: no date, no random name.

    An SVG carries its title and description for those who hear pictures instead of seeing them.
    """
    metadata = {
        "svg": {"Date": None, "Title": title or None},
        "pdf": {"CreationDate": None, "Title": title or None},
        "png": {"Software": None},
    }[form]
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, metadata=metadata)
    data = buffer.getvalue()
    if form == "svg" and description:
        from xml.sax.saxutils import escape

        head, tag, rest = data.partition(b"<svg ")
        attributes, close, body = rest.partition(b">\n")
        words = f" <title>{escape(title)}</title>\n <desc>{escape(description)}</desc>\n".encode()
        data = head + tag + b'role="img" ' + attributes + close + words + body
    return data


def write_bytes(path: Path, data: bytes) -> Path:
    """Put a whole file in its place at once; what was there before stays until then."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_bytes(data)
        os.replace(unfinished, path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise refuse("out", str(path.parent), f"cannot be written to ({error.strerror}); choose another folder") from None
    return path
