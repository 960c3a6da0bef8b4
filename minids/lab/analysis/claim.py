"""A claim of a paper beside the arithmetic: what is printed, what comes out, and how far the two agree.

The verdict is no opinion but follows from the printed number and the worth of its last digit:

    rounded          the computed number rounds to the printed one; for whole numbers, is the printed one
    cut              the printed number is the computed one with digits cut off
    rounded up       it is the next higher one
    within 0.5 %     none of these, but close
    differs          further apart: then ``words`` says why
    not printed      there is nothing to compare with
"""

import textwrap
from collections.abc import Callable, Iterable
from typing import NamedTuple

VERDICTS = ("rounded", "cut", "rounded up", "within 0.5 %", "differs")
"""From best to worst; a claim of several numbers gets its worst."""


class Claim(NamedTuple):
    """One checkable statement."""

    name: str
    title: str
    compute: Callable[[], float | tuple[float, ...]]
    formula: str
    source: str
    printed: tuple[float, ...] = ()  # in the order of the computed ones; empty where nobody printed any
    digit: float | tuple[float, ...] = 0.0  # worth of the last printed digit, of each or of all; 0 where they are exact
    unit: str = ""
    words: str = ""  # on the agreement, or why there is none; may be empty where all is well

    def computed(self) -> tuple[float, ...]:
        """The numbers, always as a tuple."""
        found = self.compute()
        return found if isinstance(found, tuple) else (found,)

    def verdict(self) -> str:
        """How far printed and computed numbers agree, as described above."""
        if not self.printed:
            return "not printed"
        digits = self.digit if isinstance(self.digit, tuple) else (self.digit,) * len(self.printed)
        trios = zip(self.computed(), self.printed, digits, strict=True)
        return max((agreement(value, printed, digit) for value, printed, digit in trios), key=VERDICTS.index)


def agreement(value: float, printed: float, digit: float) -> str:
    """Verdict on one pair; ``digit`` is the worth of the last printed digit."""
    slack = 1e-9 * abs(value)  # of binary fractions such as 1.85
    if abs(value - printed) <= digit / 2 + slack:
        return "rounded"
    if abs(value - printed) < digit - slack:
        return "cut" if abs(value) > abs(printed) else "rounded up"
    return "within 0.5 %" if abs(value / printed - 1) <= 0.005 else "differs"


def format_claims(claims: Iterable[Claim], width: int = 98) -> str:
    """One paragraph a claim: verdict, printed and computed numbers, formula, source, and the words."""
    lines = []
    for c in claims:
        lines.append(f"{c.title:<{width - 16}.{width - 16}} {c.verdict():>15}")
        printed = f"printed {_numbers(c.printed)}; " if c.printed else ""
        rest = [f"{printed}computed {_numbers(c.computed())} {c.unit}".rstrip(), f"{c.formula}   [{c.source}]", c.words]
        for text in filter(None, rest):
            lines += textwrap.wrap(text, width, initial_indent="    ", subsequent_indent="      ")
    return "\n".join(lines)


def _numbers(values: tuple[float, ...]) -> str:
    """Whole numbers and those from a million on with separators, others to nine digits."""
    whole = [(float(v).is_integer() and abs(v) >= 1) or abs(v) >= 1e6 for v in values]
    return " and ".join(f"{v:,.0f}" if is_whole else f"{v:.9g}" for v, is_whole in zip(values, whole, strict=True))
