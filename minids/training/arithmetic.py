"""Worked arithmetic for the built-in corpus: pages of tables, drill, long sums, differences, and problems in words.

An answer is reached by chains of equal terms, each one small step: what a small model can learn to write. Pages are made to
teach: a table has each fact of one number once, in any order; a block of long sums keeps its first number, so that the new
thing in a line is the step, not the question. Two-digit problems that the exam keeps for itself (``reserved.py``) stand on no
page.
"""

import random
from collections.abc import Iterable, Iterator

from minids.training.reserved import reserved

SEED, KINDS = 1729, 8
"""What the problems are drawn by, and how many kinds of question there are."""
PEOPLE = ("Ann", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana", "Ida", "Jon", "Kim", "Lena", "Max", "Nora", "Omar", "Pia")
THINGS = ("apple", "book", "button", "card", "coin", "cup", "marble", "pencil", "shell", "stamp", "stone", "ticket")
OPERATIONS = ("Adding", "Taking away", "Times", "Divided by")  # in the order of ``drill``
SUMS = 4
"""Facts of adding in tables and drill, for one of each other operation."""
SMALL = 0.4
"""Share of the numbers in problems that have one digit."""


def pages(size: int) -> Iterator[tuple[str, bytes]]:
    """(name, text) of pages, ``size`` bytes or a little more. Three of nine are long sums, two tables, two problems."""
    draw = Draw()
    kinds = (_tables, _sums, _problems, _drill_page, _sums, _tables, _problems, _sums, _differences)
    page = written = 0
    while written < size:
        text = kinds[page % len(kinds)](draw)
        page, written = page + 1, written + len(text)
        yield f"page {page:04}", text.encode()


class Draw:
    """Numbers drawn in an order that every version of Python keeps."""

    def __init__(self) -> None:
        self.share = random.Random(SEED).random  # the one method whose sequence Python promises

    def number(self, low: int, high: int) -> int:
        return low + int(self.share() * (high - low + 1))

    def sums_first(self, kinds: int, times: int = 2) -> int:
        """One of so many kinds, the first of which, sums, is ``times`` as likely as any other: all others rest on them."""
        return max(0, self.number(1 - times, kinds - 1))

    def shuffled(self, numbers: Iterable[int]) -> list[int]:
        found = list(numbers)
        for i in range(len(found) - 1, 0, -1):
            j = self.number(0, i)
            found[i], found[j] = found[j], found[i]
        return found


def _tables(draw: Draw) -> str:
    """All facts of one operation and one number, a block each."""

    def table(operation: int, number: int) -> str:
        facts = (drill(operation, other, number) for other in draw.shuffled(range(operation // 2, 10)))
        return f"{OPERATIONS[operation]} {number}\n" + "".join(f"{fact}\n" for fact in facts)

    return "Tables\n\n" + "\n".join(table(draw.sums_first(len(OPERATIONS), SUMS), draw.number(1, 9)) for _ in range(15))


def _drill_page(draw: Draw) -> str:
    """Facts of any operation, one behind another."""
    return "Drill\n\n" + "".join(
        drill(draw.sums_first(len(OPERATIONS), SUMS), draw.number(0, 9), draw.number(1, 9)) + "\n" for _ in range(150)
    )


def _sums(draw: Draw) -> str:
    def block() -> str:
        a = draw.number(11, 99)
        others = [b for b in draw.shuffled(range(10, 100)) if not reserved(a, "+", b)][:12]
        return f"Adding to {a}\n" + "".join(f"{total(a, b)}\n" for b in others)

    return "Sums\n\n" + "\n".join(block() for _ in range(6))


def _differences(draw: Draw) -> str:
    def block() -> str:
        a = draw.number(20, 99)
        others = [b for b in draw.shuffled(range(10, a)) if not reserved(a, "-", b)][:12]
        return f"Taking from {a}\n" + "".join(f"{difference(a, b)}\n" for b in others)

    return "Differences\n\n" + "\n".join(block() for _ in range(6))


def _problems(draw: Draw) -> str:
    found: list[str] = []
    while len(found) < 20:
        kind = draw.sums_first(KINDS)
        who, thing = (names[draw.number(0, len(names) - 1)] for names in (PEOPLE, THINGS))
        a, b = (draw.number(1, 9 if draw.share() < SMALL else 99) for _ in range(2))
        asks = (a, "+", b), (max(a, b), "-", min(a, b)), (a, "*", factor(b))  # whichever the kind asks for
        if not any(reserved(*each) for each in asks):
            found.append(problem(kind, who, thing, a, b))
    return "Problems\n\n" + "\n\n".join(found) + "\n"


def drill(operation: int, a: int, b: int) -> str:
    return (f"{a} + {b} = {a + b}", f"{a + b} - {b} = {a}", f"{a} * {b} = {a * b}", f"{a * b} / {b} = {a}")[operation]


def factor(b: int) -> int:
    """The one-digit factor or divisor, 2 to 9, that a problem makes of its second number."""
    return 2 + b % 8


def problem(kind: int, who: str, thing: str, a: int, b: int) -> str:
    """One of ``KINDS`` kinds of question about two numbers from 1 to 99, and its answer on the next line."""
    low, high, small, step = min(a, b), max(a, b), factor(b), 1 + b % 10
    match kind:
        case 0:
            return f"What is {a} + {b}?\n{total(a, b)}."
        case 1:
            question = f"{who} has {count(a, thing)} and gets {b} more. How many {thing}s does {who} have now?"
            return f"{question}\n{total(a, b)}. {who} has {count(a + b, thing)} now."
        case 2:
            question = f"{who} had {count(high, thing)} and gave away {low}. How many {thing}s does {who} have now?"
            return f"{question}\n{difference(high, low)}. {who} has {count(high - low, thing)} now."
        case 3:
            other = PEOPLE[PEOPLE.index(who) - 1]
            question = f"{who} has {count(a, thing)} and {other} has {b}. Who has more?"
            if a == b:
                return f"{question}\n{a} = {b}. They have the same."
            return f"{question}\n{difference(high, low)}. {who if a > b else other} has {high - low} more."
        case 4:
            question = f"One {thing} costs {count(a, 'cent')}. {who} buys {small} {thing}s. How much is that?"
            return f"{question}\n{product(a, small)}. That is {count(a * small, 'cent')}."
        case 5:
            question = f"{who} shares {a * small} {thing}s among {small} friends. How many does each friend get?"
            return f"{question}\n{a * small} / {small} = {a}. Each friend gets {count(a, thing)}."
        case 6:
            full, over = divmod(a, small)
            question = f"How many boxes are full, and how many {thing}s are over?"
            answer = f"{full} * {small} = {full * small}. {a} - {full * small} = {over}. Full: {full}. Over: {over}."
            return f"{who} packs {count(a, thing)} in boxes of {small}. {question}\n{answer}"
        case _:
            row = ", ".join(str(a + i * step) for i in range(4))
            return f"{who} counts {row}. What comes next?\nThe step is {step}. {a + 3 * step} + {step} = {a + 4 * step}."


def total(a: int, b: int) -> str:
    """47 + 25 = 60 + 12 = 72: tens and ones apart."""
    steps = f"{a - a % 10 + b - b % 10} + {a % 10 + b % 10} = " if a > 9 and b > 9 else ""
    return f"{a} + {b} = {steps}{a + b}"


def difference(a: int, b: int) -> str:
    """52 - 27 = 32 - 7 = 25: the tens first."""
    steps = f"{a - b + b % 10} - {b % 10} = " if b > 9 and b % 10 else ""
    return f"{a} - {b} = {steps}{a - b}"


def product(a: int, b: int) -> str:
    """14 * 6 = 60 + 24 = 84: tens and ones of the first factor apart."""
    steps = f"{(a - a % 10) * b} + {a % 10 * b} = " if a > 9 and a % 10 else ""
    return f"{a} * {b} = {steps}{a * b}"


def count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
