"""The table of ``minids info``: every leaf of ``info`` on a line, with the way to its formula and source."""

import textwrap
from collections.abc import Iterator

from minids.lab.analysis.info import Leaf
from minids.terminal import cut, room
from minids.words import si

WIDTH = 98


def leaves(data: dict) -> Iterator[tuple[str, str, Leaf]]:
    """All leaves of what ``info`` returned, in order, each with its section and label."""
    for section, entries in data.items():
        if isinstance(entries, dict):
            yield from ((section, label, leaf) for label, leaf in entries.items())


def show(leaf: Leaf) -> str:
    """A leaf's number as printed: whole from a million on and where it is whole, six digits otherwise."""
    value = leaf["value"]
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1e6 else f"{value:,.6g}"


def short(leaf: Leaf) -> str:
    """The same from a million on, with four digits and a prefix: "671.0 G"."""
    if abs(leaf["value"]) < 1e6:
        return ""
    number, prefix = si(leaf["value"], digits=4).split()
    return f"{float(number):#.4g} {prefix}"


def format_info(data: dict, explain: bool = True) -> str:
    """The data of ``info`` as a table of at most 98 columns, on a narrower terminal as many as that has; a number behind a line
    leads to its formula and source. ``explain`` False leaves both out.
    """
    width = room(WIDTH)
    roomy = width >= WIDTH - 9  # else the short form of a number goes, then the ends of labels
    label_columns = max(min(37, width - (60 if roomy else 42)), 8)
    lines = [f"{data['name']}   context {data['context']:,} tokens, batch {data['batch']:,}"]
    notes: dict[tuple[str, str], int] = {}
    here = None
    for section, label, leaf in leaves(data):
        if section != here:
            here = section
            lines += ["", f"── {section} ".ljust(width, "─")]
        note = notes.setdefault((leaf["formula"], leaf["source"]), len(notes) + 1)
        mark = f"[{note}]" if explain else ""
        number = f"{show(leaf):>23} {short(leaf):>9}" if roomy else f"{show(leaf):>19}"
        unit = cut(leaf["unit"], 18 if roomy else 12)
        line = f"  {cut(label, label_columns):<{label_columns}} {number} {unit:<{18 if roomy else 12}}{mark:>5}"
        lines.append(line.rstrip())
    return "\n".join(lines + _explanation(notes, width) if explain else lines)


def _explanation(notes: dict[tuple[str, str], int], width: int) -> list[str]:
    """Formulas by number, each with the letter of its source, then the sources by letter."""
    sources = list(dict.fromkeys(source for _, source in notes))
    letters = {source: chr(ord("a") + i) for i, source in enumerate(sources)}
    lines = ["", "── formulas ".ljust(width, "─")]
    for (formula, source), note in notes.items():
        lines += _wrapped(f"{f'[{note}]':>6} ", f"{formula}  ({letters[source]})", width)
    lines += ["", "── sources ".ljust(width, "─")]
    for source in sources:
        lines += _wrapped(f"{f'({letters[source]})':>6} ", source, width)
    return lines


def _wrapped(mark: str, text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=mark, subsequent_indent=" " * len(mark))
