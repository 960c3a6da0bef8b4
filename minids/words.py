"""Numbers and rows as people read them: prefixes, aligned columns, and the name that was probably meant."""

import difflib
from collections.abc import Iterable, Sequence


def si(value: float, unit: str = "", digits: int = 3) -> str:
    """671026419200 → "671 G", (70272, "B") → "70.3 kB": decimal prefixes, as in the papers; small values as they are."""
    for prefix in ("", "k", "M", "G", "T", "P", "E", "Z"):
        if abs(value) < 1000 - 0.5 * 10 ** (3 - digits):  # else the digits shown would be 1000
            return f"{value:.{digits}g} {prefix}{unit}".rstrip()
        value /= 1000
    return f"{value:.{digits}g} Y{unit}"


def table(rows: Iterable[Sequence[object]], head: Sequence[str] = (), align: str = "lr", rule: bool = False) -> str:
    """Rows under an optional head as aligned text. align: a letter for each column, l or r; the last one holds for the columns
    that follow. rule: a line under the head. A row may be shorter than others. Cells are shown by ``str``."""
    lines = [[str(cell) for cell in row] for row in ([head] if head else []) + list(rows)]
    widths = [max(len(line[i]) if i < len(line) else 0 for line in lines) for i in range(max(map(len, lines), default=0))]
    align += align[-1] * len(widths)
    put = {"l": str.ljust, "r": str.rjust}
    text = []
    for line in lines:
        cells = (put[side](cell, wide) for cell, wide, side in zip(line, widths, align, strict=False))  # a row may be short
        text.append("  ".join(cells).rstrip())
    if head and rule:
        text.insert(1, "─" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(text)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """ "did you mean tiny? " for "tinny", nothing where no name is close: to stand before what is said of all names."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"did you mean {close[0]}? " if close else ""
