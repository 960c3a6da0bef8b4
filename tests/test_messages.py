"""What messages name exists: every ``minids.NAME`` and every ``--option`` in a text of the package."""

import ast
import importlib
import re
from pathlib import Path

import pytest

import minids
from minids.cli import COMMANDS
from minids.commands.options import options_of

ROOT = Path(minids.__file__).parent
FILES = sorted(path for path in ROOT.rglob("*.py") if path.name != "other_names.py")  # which lists the names of others
FLAGS = {
    name: {f for o in options_of(module.Options) if not o.positional for f in (o.flag, o.off)}
    for name, module in COMMANDS.items()
}
ALL_FLAGS = set().union(*FLAGS.values()) | {"--help", "--version"}
# Options of other programs in what they are called with, each with the program before it in the same text.
OTHERS = {"tensorboard --logdir": {"--logdir"}, "mlx_lm": {"--hf-path", "--mlx-path", "--dequantize"}, "python train.py": None}


def texts(path):
    """Every text of a file with its line: docstrings too, pieces of f-strings joined with … for what is put in."""
    inside = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            inside |= {id(piece) for piece in node.values}
            yield node.lineno, "".join(p.value if isinstance(p, ast.Constant) else "…" for p in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, node.value


def exists(dotted):
    """Whether ``minids.a.b.c`` can be had, by imports and attributes."""
    thing, path = minids, "minids"
    for name in dotted.split(".")[1:]:
        path = f"{path}.{name}"
        if not hasattr(thing, name):
            try:
                importlib.import_module(path)
            except ModuleNotFoundError:
                return False
        thing = getattr(thing, name)
    return True


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_name_in_a_text_exists(path):
    for line, text in texts(path):
        for dotted in re.findall(r"(?<![\w./-])minids(?:\.[A-Za-z]\w*)+", text):
            if not dotted.rpartition(".")[2].isupper() and not dotted.endswith(
                (".py", ".git", ".css", ".js", ".org", ".mplstyle")
            ):
                assert exists(dotted), f"{path.name}:{line}: {dotted}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_option_in_a_text_exists(path):
    if path.suffix == ".py" and path.parent.name == "page":  # what it holds is a page's CSS and a browser's options
        return
    for line, text in texts(path):
        if any(flags is None and program in text for program, flags in OTHERS.items()):
            continue
        others = set().union(*(flags or () for program, flags in OTHERS.items() if program in text))
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z0-9.-]*[a-z0-9]", text):
            assert flag in ALL_FLAGS | others, f"{path.name}:{line}: {flag} in {text!r}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_an_option_that_a_text_gives_to_a_command_is_one_of_its_own(path):
    for line, text in texts(path):
        for command, rest in re.findall(r"\bminids ([a-z]+)((?: [^\n]*)?)", text):
            if command not in COMMANDS:
                continue
            for flag in re.findall(r"(?<![\w-])--[a-z][a-z0-9.-]*[a-z0-9]", re.split("[;,]", rest)[0]):
                assert flag in FLAGS[command] | {"--help"}, f"{path.name}:{line}: minids {command} {flag}"
