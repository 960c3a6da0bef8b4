"""The command line: ``minids COMMAND [options]``.

Every option is a field of a command's dataclass (``minids/commands``), so its help text is the field's docstring. Whatever is
wrong with what was typed is answered in one line on standard error, with exit code 2.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib
import io
import itertools
import re
import sys
import typing
from collections.abc import Iterator
from types import ModuleType

import tyro

import minids
from minids.commands.arguments import given_options
from minids.errors import MinidsError
from minids.presets import PRESETS

COMMANDS: dict[str, ModuleType] = {
    name: importlib.import_module(f"minids.commands.{name}")
    for name in (
        "train",
        "generate",
        "page",
        "info",
        "tour",
        "route",
        "study",
        "figures",
        "compare",
        "cost",
        "pipeline",
        "claims",
        "bench",
        "doctor",
        "data",
    )
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code. 2 means: what was asked cannot be done, and the last line on standard error says why."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if hasattr(sys.stdout, "reconfigure"):
        # A log file tells of a step when it is done; a stream that cannot write a character (a pipe on Windows) gets a "?".
        sys.stdout.reconfigure(line_buffering=True, errors="replace")
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if arguments[0] == "--version":
        print(f"minids {minids.__version__}")
        return 0
    try:
        command = arguments[0]
        if command not in COMMANDS:
            close = difflib.get_close_matches(command, COMMANDS, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise MinidsError(f"{command}: no such command; {hint}there are {', '.join(COMMANDS)}")
        options = _parsed(command, arguments[1:])
        COMMANDS[command].run(options, given_options(arguments[1:]))
        return 0
    except MinidsError as error:
        print(f"minids: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output, `head` say, has seen enough
        sys.stderr.close()
        return 0
    except MemoryError as error:
        what = str(error).partition(" for an array")[0].replace("Unable", "unable") or "there is none left"
        print(f"minids: not enough memory ({what}); smaller sizes, batches or contexts need less", file=sys.stderr)
        return 2
    except OSError as error:  # what no command has better words for
        print(f"minids: {str(error.filename or '')[:200]!r}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("minids: interrupted", file=sys.stderr)
        return 130


def _overview() -> str:
    about = "DeepSeek-V3 from scratch, to read, to train on a laptop, to explain."
    lines = [about, "", "minids COMMAND --help tells more.", ""]
    lines += [f"  minids {name:<10}{' '.join(module.Options.__doc__.split())}" for name, module in COMMANDS.items()]
    return "\n".join([*lines, "", f"Presets: {', '.join(PRESETS)}"])


def _parsed(command: str, arguments: list[str]):
    """The options as the command's dataclass."""
    module = COMMANDS[command]
    default = module.defaults(arguments) if hasattr(module, "defaults") else None
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                module.Options,
                prog=f"minids {command}",
                args=arguments,
                default=default,
                config=(tyro.conf.AvoidSubcommands,),
            )
    except SystemExit as stop:
        if stop.code == 0:  # --help
            raise
        line = _one_line(said.getvalue())
        if unknown := re.match("Unrecognized options:(.*)", line):
            line = _value_of_a_switch(module.Options, arguments, unknown[1].strip().split(", ")) or line
        raise MinidsError(line if re.match(r"[\w.]+ = ", line) else f"{command}: {line}") from None


def _value_of_a_switch(options: type, arguments: list[str], unknown: list[str]) -> str | None:
    """A line about a switch that was given a value (--model.seq-aux false), which tyro calls an unknown option."""
    switches = dict(_switches(options))
    for option, following in itertools.pairwise([*arguments, "--"]):
        name, has_value, value = option.partition("=")
        value = value if has_value else following
        if name in switches and (has_value or (value in unknown and not value.startswith("--"))):
            field, yes, no = switches[name]
            return f"{field} = {value!r}: is switched without a value, by {yes} or {no}"
    return None


def _switches(options: type, prefix: str = "") -> Iterator[tuple[str, tuple[str, str, str]]]:
    """Every switch of a command as typed, on and off → its field and both spellings.

    By the types, since tyro's message does not always hold the value: of ``study --quick=3 fp8`` it takes 3 for the name.
    """
    for field, kind in typing.get_type_hints(options, include_extras=True).items():
        unnamed = any(getattr(extra, "name", None) == "" for extra in getattr(kind, "__metadata__", ()))
        kind = typing.get_args(kind)[0] if hasattr(kind, "__metadata__") else kind
        if dataclasses.is_dataclass(kind):
            yield from _switches(kind, prefix if unnamed else f"{prefix}{field}.")
        elif kind is bool:
            yes, no = (f"--{prefix}{negation}{field}".replace("_", "-") for negation in ("", "no_"))
            yield from ((name, (prefix + field, yes, no)) for name in (yes, no))


_KINDS = {"INT": "a whole number", "FLOAT": "a number", "[INT": "whole numbers"}
_UNREAD = re.compile(r"""Error parsing --([\w.-]+): .*?: (['"\[].*) Argument helptext: --\S+ (INT|FLOAT|\[INT)\b""")
"""tyro's words for what is no number: the option, what was typed, the kind that was expected."""


def _one_line(boxed: str) -> str:
    """tyro's framed error message, as one line."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", boxed)
    rows = [row.strip("│ ") for row in text.splitlines()]
    rows = [row for row in rows if row and not re.fullmatch(r"─+|[╭╰].*[╮╯]", row)]
    if len(rows) > 1 and re.fullmatch("-+", rows[1]):  # no frame where only ASCII can be shown: a title and a rule
        rows = rows[2:]
    rows = [row for row in rows if not re.fullmatch("-+", row)]
    line = re.sub(r"\s+", " ", " ".join(rows))
    line = re.sub(r"^Error parsing \w+: (?=\w+ = )", "", line)  # our own refusals, met while the dataclass was made
    if unread := _UNREAD.match(line):
        option, typed, kind = unread.groups()
        return f"{option.replace('-', '_')} = {typed}: must be {_KINDS[kind]}"
    return re.split(r" (?:Argument helptext|For full helptext)", line)[0].strip()


if __name__ == "__main__":
    sys.exit(main())
