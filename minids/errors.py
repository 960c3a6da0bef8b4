"""The one exception that a user is meant to read."""

from __future__ import annotations


class MinidsError(ValueError):
    """Something the user gave cannot be used: one line saying what, its value, and what would work.

    The command line prints the line and exits with code 2; from Python it is an ordinary ``ValueError``.
    """


def refuse(field: str, value: object, because: str) -> MinidsError:
    """The error "field = value: because", in the form every message of this package has."""
    return MinidsError(f"{field} = {value!r}: {because}")
