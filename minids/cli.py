"""The command line: ``minids COMMAND [options]``.

Whatever is wrong with what was typed is answered in one line on standard error, with exit code 2.
"""

import importlib
import sys
import textwrap
import warnings
from typing import Any

import minids
from minids.commands.options import built, help_of, options_of, typed
from minids.config.presets import PRESETS
from minids.errors import MinidsError
from minids.other_names import COMMANDS as ELSEWHERE
from minids.other_names import NO_NEED, perhaps
from minids.parallel.mpi import world
from minids.parallel.together import together
from minids.terminal import columns, quoted, room, say
from minids.words import did_you_mean, table

CORE = ("train", "sft", "reward-model", "grpo", "generate", "chat", "evaluate", "export", "data")
LAB = (
    "info", "tour", "route", "experts", "study", "figures", "page", "compare", "cost", "pipeline", "claims", "bench", "doctor",
)  # fmt: skip
COMMANDS: dict[str, Any] = {  # modules
    name: importlib.import_module(f"minids.{room}.{name.replace('-', '_')}")
    for room, names in (("commands", CORE), ("lab.commands", LAB))
    for name in names
}

OVERVIEW = """DeepSeek-V3 from scratch, to read, to train on a laptop, to explain.

minids COMMAND --help tells more.

{core}

The lab: look inside, measure, draw.

{lab}

Presets: {presets}"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code. On every process that was started together, the first of which speaks."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        ranks = world()
    except MinidsError as error:
        say(f"minids: {error}", file=sys.stderr)
        return 2
    return together(ranks, lambda: _answered(arguments))


def _answered(arguments: list[str]) -> int:
    """The exit code of a command; what is wrong is said in one line."""
    if hasattr(sys.stdout, "reconfigure"):
        # A log file tells of a step when it is done; a stream that cannot write a character (a pipe on Windows) gets a "?".
        sys.stdout.reconfigure(line_buffering=True, errors="replace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn  # type: ignore[assignment]  # where a warning comes from is not told
            if not sys.warnoptions:
                warnings.simplefilter("always", UserWarning)
            _run(arguments)
        return 0
    except BrokenPipeError:  # the reader of our output, `head` say, has seen enough
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        say("minids: interrupted", file=sys.stderr)
        return 130
    except MinidsError as error:
        why = str(error)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("matplotlib", "PIL"):
            raise
        why = f'{error.name} is not installed, which pictures need: pip install "minids[lab]"'
    except MemoryError as error:
        what = str(error).partition(" for an array")[0].replace("Unable", "unable") or "there is none left"
        why = f"not enough memory ({what}); smaller sizes, batches or contexts need less"
    except OSError as error:  # what no command has better words for
        why = f"{quoted(str(error.filename or '')[:200])}: {error.strerror or error}"
    line = f"minids: {why}"
    if sys.stderr is not None and sys.stderr.isatty() and (wide := columns()):  # between words, not wherever it is full
        line = textwrap.fill(line, wide, break_long_words=False, break_on_hyphens=False)
    say(line, file=sys.stderr)
    return 2


def _warn(message: Warning | str, *_: Any) -> None:
    """What the user's input has made the package say, in a line as an error has it."""
    say(f"minids: {' '.join(str(message).splitlines())}", file=sys.stderr)


def _presets() -> str:
    return textwrap.fill(", ".join(PRESETS), room(118) - 9, subsequent_indent=" " * 9, break_on_hyphens=False)


def _run(arguments: list[str]) -> None:
    match arguments:
        case [] | ["-h" | "--help", *_]:
            rows = {name: ("", f"minids {name}", " ".join(module.Options.__doc__.split())) for name, module in COMMANDS.items()}
            core, lab = (table([rows[name] for name in names], align="l", width=columns()) for names in (CORE, LAB))
            say(OVERVIEW.format(core=core, lab=lab, presets=_presets()))
        case ["--version", *_]:
            say(f"minids {minids.__version__}")
        case [command, *rest] if command in COMMANDS:
            module = COMMANDS[command]
            options = list(options_of(module.Options))
            found = typed(command, options, [word for word in rest if word not in ("-h", "--help")])
            default = module.defaults(found) if hasattr(module, "defaults") else None
            if {"-h", "--help"} & set(rest):
                say(help_of(command, module.Options, list(options_of(module.Options, default))))
            else:
                if (ranks := world().size) > 1 and not getattr(module, "SEVERAL_PROCESSES", False):
                    able = ", ".join(name for name, other in COMMANDS.items() if hasattr(other, "SEVERAL_PROCESSES"))
                    raise MinidsError(f"{command}: works in one process, not in {ranks}; mpiexec is for {able}")
                module.run(built(command, module.Options, options, found, default), set(found))
        case [command, *_]:
            if command in NO_NEED:
                raise MinidsError(f"{command}: no such command, and no need of one: {NO_NEED[command]}")
            hint = perhaps(command, COMMANDS, ELSEWHERE) or did_you_mean(command, COMMANDS)
            raise MinidsError(f"{command}: no such command; {hint}there are {', '.join(COMMANDS)}")


if __name__ == "__main__":
    sys.exit(main())
