"""Numbers and rows as people read them: prefixes, aligned columns, and the name that was probably meant."""

import difflib
from collections.abc import Iterable, Sequence

from minids.terminal import cells, cut, padded

NARROWEST = 8
"""Columns that a column of words keeps in any table."""


def si(value: float, unit: str = "", digits: int = 3) -> str:
    """671026419200 → "671 G", (70272, "B") → "70.3 kB": decimal prefixes, as in the papers; small values as they are."""
    for prefix in ("", "k", "M", "G", "T", "P", "E", "Z"):
        if abs(value) < 1000 - 0.5 * 10 ** (3 - digits):  # else the digits shown would be 1000
            return f"{value:.{digits}g} {prefix}{unit}".rstrip()
        value /= 1000
    return f"{value:.{digits}g} Y{unit}"


def table(
    rows: Iterable[Sequence[object]], head: Sequence[str] = (), align: str = "lr", rule: bool = False, width: int | None = None
) -> str:
    """Rows under an optional head as aligned text. align: a letter for each column, l or r; the last one holds for the columns
    that follow. rule: a line under the head. A row may be shorter than others. Cells are shown by ``str``. width: columns of
    the terminal, where they are few; the widest columns of words (l) give way, no number does."""
    lines = [[str(cell) for cell in row] for row in ([head] if head else []) + list(rows)]
    widths = [max(cells(line[i]) if i < len(line) else 0 for line in lines) for i in range(max(map(len, lines), default=0))]
    align += align[-1] * len(widths)
    words = [i for i in range(len(widths)) if align[i] == "l"]
    while width is not None and words and sum(widths) + 2 * (len(widths) - 1) > width:
        widest = max(words, key=lambda i: widths[i])
        if widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1
    text = []
    for line in lines:
        put = (
            padded(cut(c, wide), wide, side == "r") for c, wide, side in zip(line, widths, align, strict=False)
        )  # a row may be short
        text.append("  ".join(put).rstrip())
    if head and rule:
        text.insert(1, "─" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(text)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """ "did you mean tiny? " for "tinny", nothing where no name is close: to stand before what is said of all names."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"did you mean {close[0]}? " if close else ""
