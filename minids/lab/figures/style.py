"""One look for all pictures: two themes, one colour per kind of tensor throughout the set, files without a date in them.

Any two colours of ``COLOURS`` are told apart by every common kind of sight: ``tests/lab/figures/test_colours.py`` simulates
them. They began as Okabe & Ito's (2008) and Paul Tol's. Letters are DejaVu Sans, which comes with matplotlib, and stay text in
SVG: a slide program finds and edits them. Verdana, of the same widths, stands in on a machine without the font.
"""

import html
import importlib.util
import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from minids.errors import MinidsError, refuse
from minids.lab.figures import mpl
from minids.lab.figures.glyphs import drawable, families
from minids.words import did_you_mean

WIDTH, DPI = 12.8, 150  # of a slide, inches; dots per inch: 1920 across
MONO = "DejaVu Sans Mono"
SMALLEST = 16  # points of the smallest letters on a slide 12.8 inches wide: what the last row still reads

# kind of thing → colour on the light theme, colour on the dark theme
SURFACES = {"background": ("#FFFFFF", "#14171C"), "panel": ("#F3F4F6", "#20252C"), "faint": ("#D9DCE0", "#3A4048")}
COLOURS = {
    "ink": ("#1A1A1A", "#F2F2F2"),
    "muted": ("#5F6368", "#B4BAC2"),
    # tensors
    "hidden": ("#8E949B", "#888F98"),  # the residual stream, and whatever is dense
    "query": ("#0075B6", "#2F80D0"),
    "latent": ("#E69F00", "#FFC252"),  # c_kv, and the content keys made from it
    "rope": ("#009E73", "#2BC598"),
    "value": ("#A53C90", "#D781CB"),
    "routed": ("#55B3E8", "#7CCBFF"),
    "shared": ("#E86D37", "#EE8042"),
    "mtp": ("#4B3BA8", "#A89BFF"),
    "fp8": ("#7F7D04", "#B9B41D"),
    # passes of a pipeline
    "forward": ("#A2B7CF", "#6E84A7"),
    "backward": ("#7A5B3D", "#B08A62"),
    "weights": ("#E3C48F", "#EFD9AE"),
    # what is compared with ours, from nearest to furthest: muted, hidden, and
    "other": ("#C5CAD0", "#5A616B"),
}
_KINDS = SURFACES | COLOURS

DOMAINS = {"prose": "ink", "code": "value", "arithmetic": "rope"}
"""Of the built-in text → a colour of tensors that no picture of domains shows."""

THEMES = ("light", "dark")
_look: ContextVar[tuple[str, Mapping[str, str]]] = ContextVar("look", default=("light", {}))  # theme, own colours


def colour(kind: str) -> str:
    """The colour of a kind of tensor, or of ink, in the theme at hand."""
    theme, own = _look.get()
    return own.get(kind) or _KINDS[kind][THEMES.index(theme)]


def checked_colours(colours: Mapping[str, str]) -> dict[str, str]:
    """Kind → colour as #RRGGBB. Refuses what is no kind, and what is no colour."""
    for kind, value in colours.items():
        if kind not in _KINDS:
            raise refuse("colours", kind, f"{did_you_mean(kind, _KINDS)}there are {', '.join(_KINDS)}")
        if not mpl.colors.is_color_like(value):
            raise refuse(f"colours.{kind}", value, "is no colour; #0075B6 would be one")
    return {kind: mpl.colors.to_hex(value) for kind, value in colours.items()}


def ink_on(fill: str) -> str:
    """Black or white letters, whichever is read better on ``fill`` (relative luminance of the WCAG)."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in mpl.colors.to_rgb(fill)]
    return "#FFFFFF" if np.dot((0.2126, 0.7152, 0.0722), linear) < 0.22 else "#101010"


def tint(fill: str, share: float) -> str:
    """``fill`` mixed with the background: share 1 is the colour itself, 0 the background."""
    shade, behind = (np.array(mpl.colors.to_rgb(c)) for c in (fill, colour("background")))
    return mpl.colors.to_hex(share * shade + (1 - share) * behind)


def sequential(kind: str, floor: float = 0.0):
    """Colours of amounts of one kind of tensor: from the panel (``floor`` 0) or a tint up to beyond the colour itself."""
    strong, low = colour(kind), tint(colour(kind), floor) if floor else colour("panel")
    end = 0.0 if _look.get()[0] == "light" else 1.0  # towards black or white, so that the largest stand out
    beyond = [0.4 * c + 0.6 * end for c in mpl.colors.to_rgb(strong)]
    return mpl.colors.LinearSegmentedColormap.from_list(kind, [low, strong, beyond])


def diverging():
    """Colours of amounts with a sign."""
    if _look.get()[0] == "light":
        return mpl.colormaps["RdBu_r"]
    # On a dark slide the bright is what is much: little is a dark blue, nothing like the middle.
    return mpl.colors.LinearSegmentedColormap.from_list("dark", ["#0A3A9C", "#31548C", "#565C64", "#D2604A", "#FFBFA8"])


def need_matplotlib() -> None:
    """Refuse in one line where there is nothing to draw with: the model itself does without."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MinidsError('pictures are drawn by matplotlib, which is not installed; pip install "minids[lab]"')


@contextmanager
def style(
    theme: str = "light", scale: float = 1.0, letters: float = 1.0, colours: Mapping[str, str] | None = None,
    transparent: bool = False,
) -> Iterator[None]:  # fmt: skip
    """Within it, figures look like ours. ``scale`` is the size of letters and lines against a whole slide's, ``letters`` that
    of letters alone; ``colours``: kind → another colour; a ``transparent`` picture has no background."""
    need_matplotlib()
    if theme not in THEMES:
        raise refuse("theme", theme, f"must be one of {', '.join(THEMES)}")
    before = _look.set((theme, checked_colours(colours or {})))
    try:
        defaults = {key: value for key, value in mpl.rcParamsDefault.items() if key != "backend"}  # a notebook keeps its own
        with mpl.rc_context({**defaults, **_settings(scale, letters, transparent)}):
            yield
    finally:
        _look.reset(before)


def _settings(scale: float, letters: float, transparent: bool) -> dict:
    ink, muted, background = colour("ink"), colour("muted"), "none" if transparent else colour("background")
    tick = {"color": muted, "labelcolor": ink, "labelsize": SMALLEST * scale * letters}
    tick |= {"major.width": 1.2 * scale, "major.size": 5 * scale, "minor.size": 0}
    sizes = {"font.size": 18 * letters, "axes.labelsize": 18 * letters, "axes.linewidth": 1.2, "grid.linewidth": 1.0}
    sizes |= {"lines.linewidth": 3.0, "lines.markersize": 9, "hatch.linewidth": 1.5}
    return {
        **{f"{side}tick.{name}": value for side in "xy" for name, value in tick.items()},
        **{name: size * scale for name, size in sizes.items()},
        "font.family": families(), "mathtext.fontset": "dejavusans",
        "figure.dpi": DPI, "savefig.dpi": "figure",
        "figure.facecolor": background, "savefig.facecolor": background, "text.color": ink,
        "axes.facecolor": "none", "axes.edgecolor": muted, "axes.labelcolor": ink, "grid.color": colour("faint"),
        "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "hatch.color": ink,
        "svg.hashsalt": "minids", "svg.fonttype": "none", "pdf.fonttype": 42, "path.simplify_threshold": 0.2,
    }  # fmt: skip


def encoded(figure, form: str, title: str = "", description: str = "") -> bytes:
    """The figure as the bytes of an svg (with title and description), png or pdf, the same for the same numbers: no date."""
    metadata = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[form]
    for words in figure.findobj(mpl.text.Text):
        words.set_text(drawable(words.get_text()))
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, metadata=metadata | ({"Title": title} if title and form != "png" else {}))
    return _for_a_slide_program(buffer.getvalue().decode(), title, description) if form == "svg" else buffer.getvalue()


def _for_a_slide_program(svg: str, title: str, description: str) -> bytes:
    """An SVG that says what it shows, names fonts that other machines have, and marks what appears with each build of the
    slide: class "fragment" and its index are reveal.js's."""
    head, tag, rest = svg.partition("<svg ")
    attributes, close, body = rest.partition(">\n")
    told = (html.escape(words, quote=False) for words in (title, description))
    words = " <title>{}</title>\n <desc>{}</desc>\n".format(*told) if description else ""
    body = body.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
    body = body.replace("'DejaVu Sans Mono'", "'DejaVu Sans Mono', Menlo, monospace")
    body = re.sub(r'<g id="(step(\d+)-)', r'<g class="fragment" data-fragment-index="\2" id="\1', body)
    return (head + tag + ('role="img" ' if description else "") + attributes + close + words + body).encode()
