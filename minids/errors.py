"""The one exception that a user is meant to read."""

from minids.terminal import clean, quoted


class MinidsError(ValueError):
    """Something the user gave cannot be used: one line saying what, its value, and what would work.

    The command line prints the line and exits with code 2; from Python it is an ordinary ``ValueError``. It is one line
    whatever it quotes: line breaks in a file's name or in somebody's JSON are shown as ``\\n``, other control characters as a
    mark.
    """

    def __init__(self, line: str):
        super().__init__(clean("\\n".join(line.splitlines()) or line))


MOST = 300  # characters of a value in a message; somebody's JSON may hold a million


def refuse(field: str, value: object, because: str) -> MinidsError:
    """The error "field = value: because", in the form every message of this package has."""
    shown = quoted(value) if isinstance(value, str) else repr(value)
    return MinidsError(f"{field} = {shown if len(shown) <= MOST else shown[:MOST] + '…'}: {because}")
