"""The one exception that a user is meant to read."""

from __future__ import annotations


class MinidsError(ValueError):
    """Something the user gave cannot be used: one line saying what, its value, and what would work.

    The command line prints the line and exits with code 2; from Python it is an ordinary ``ValueError``. It is one line
    whatever it quotes: line breaks in a file's name or in somebody's JSON are shown as ``\\n``.
    """

    def __init__(self, line: str):
        super().__init__("\\n".join(line.splitlines()) or line)


def refuse(field: str, value: object, because: str) -> MinidsError:
    """The error "field = value: because", in the form every message of this package has."""
    return MinidsError(f"{field} = {value!r}: {because}")
