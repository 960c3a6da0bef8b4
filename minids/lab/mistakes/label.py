"""What a label of the museum says: what is wrong in four lines, where it was seen in public, what one sees, what notices it.

``diff`` shows the right line ("-") and the wrong one ("+") as they would stand in a NumPy program. ``cases`` are reports and
fixes in public repositories, with the month in which each was opened; where there is none, we know of none. "A relative" is
nearly the same mistake; "not a mistake there" is the same thing, wanted.
"""

from typing import NamedTuple


class Case(NamedTuple):
    project: str
    date: str  # "2025-01": when it was opened
    link: str
    note: str = ""  # where it is not quite this mistake, or something came of it


class Label(NamedTuple):
    diff: str
    seen: str
    """What the picture shows, in a sentence."""
    caught: str
    """What notices it, and what does not."""
    cases: tuple[Case, ...] = ()

    @property
    def provenance(self) -> str:
        """The cases in one line of Markdown."""
        if not self.cases:
            return "No public case known."
        listed = (
            f"**{c.project}**, {c.date}: [{_number(c.link)}]({c.link}){f' ({c.note})' if c.note else ''}" for c in self.cases
        )
        return " · ".join(listed)


def _number(link: str) -> str:
    return "#" + link.rpartition("/")[2]


def case(project: str, date: str, path: str, note: str = "") -> Case:
    """``path`` on GitHub: "vllm-project/vllm/pull/12002"."""
    return Case(project, date, f"https://github.com/{path}", note)
