"""A command's options: the fields of its dataclass, as they are typed and as ``--help`` shows them.

    steps: int                               --steps 3 or --steps=3
    resume: bool                             --resume or --no-resume
    cache: Literal["latent", "full"]         --cache full
    seeds: tuple[int, ...]                   --seeds 1 2 3
    model: ModelConfig                       --model.hidden-size 64, and so on for every field of it
    train: Annotated[TrainConfig, "flat"]    --learning-rate 1e-3: the same without the first name
    prompt: Annotated[tuple[str, …], "each"] --prompt "To be" --prompt "Or not": one value for each time it is said
    name: Annotated[str, "positional"]       a word by itself, as in ``minids study fp8``

The docstring below a field is its help. Whatever is wrong is refused in one line.
"""

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from minids.errors import MinidsError, refuse
from minids.other_names import SETTINGS, perhaps
from minids.terminal import room
from minids.words import did_you_mean

WIDTH = 80  # columns of the help, at most
KINDS = {int: ("N", "a whole number", "whole numbers"), float: ("X", "a number", "numbers"), str: ("TEXT",), bool: ("",)}
REQUIRED = dataclasses.MISSING
TRUTH = ("true", "false", "yes", "no", "on", "off", "1", "0")  # what people write after a switch, which takes no value


class Option(NamedTuple):
    name: str  # as errors and ``given`` call it: "model.n_group"
    group: str  # the field of the command that holds its dataclass, "model"; "" where it is the command's own
    field: str  # in its dataclass: "n_group"
    owner: type  # that dataclass
    kind: type  # int, float, str or bool
    choices: tuple[str, ...]  # of a Literal
    many: bool
    each: bool  # many, but one each time
    optional: bool  # "none" may be typed
    positional: bool
    default: object  # REQUIRED where there is none

    @property
    def flag(self) -> str:
        return self.name.upper() if self.positional else "--" + self.name.replace("_", "-")

    @property
    def off(self) -> str:
        """How a switch is switched off: --model.no-seq-aux."""
        prefix, dot, last = self.flag[2:].rpartition(".")
        return f"--{prefix}{dot}no-{last}"


def options_of(owner: type, default: Any = None, group: str = "", flat: bool = True) -> Iterator[Option]:
    """Every option of a dataclass and of those in it; defaults are those of the instance ``default`` where there is one."""
    hints = typing.get_type_hints(owner, include_extras=True)
    for field in dataclasses.fields(owner):
        kind, mark = hints[field.name], ""
        if typing.get_origin(kind) is typing.Annotated:
            kind, mark = typing.get_args(kind)
        optional = typing.get_origin(kind) in (typing.Union, types.UnionType)  # only ever with None
        kind = typing.get_args(kind)[0] if optional else kind
        value = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        value = value if default is None else getattr(default, field.name)
        if dataclasses.is_dataclass(kind):
            if isinstance(kind, type) and not optional:  # YaRN is set in Python, or by generate --extend
                yield from options_of(kind, value, field.name, mark == "flat")
            continue
        many = typing.get_origin(kind) is tuple
        kind = typing.get_args(kind)[0] if many else kind
        choices = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
        name = field.name if flat else f"{group}.{field.name}"
        kind = str if choices else kind
        yield Option(name, group, field.name, owner, kind, choices, many, mark == "each", optional, mark == "positional", value)


def typed(command: str, options: Sequence[Option], arguments: Sequence[str]) -> dict[str, object]:
    named = {option.flag: option for option in options if not option.positional}
    named |= {option.off: option for option in options if option.kind is bool}
    found: dict[str, Any] = {}
    words, rest = [], list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word == "-":
            words.append(word)
            continue
        spelling, equals, value = word.partition("=")
        spelling = spelling.replace("_", "-")
        if spelling not in named:
            hint = perhaps(spelling, named, SETTINGS) or did_you_mean(spelling, named)
            raise MinidsError(f"{command}: there is no option {spelling}; {hint}minids {command} --help lists them")
        option = named[spelling]
        if option.kind is bool:
            on = spelling == option.flag
            if equals or (rest and rest[0].lower() in TRUTH):
                value = value if equals else rest[0]
                raise refuse(option.name, value, f"is switched without a value, by {option.flag} or {option.off}")
            if found.setdefault(option.name, on) != on:
                raise refuse(option.name, on, f"is said twice, {option.flag} and {option.off}; leave one out")
            continue
        texts = [value] if equals else list(itertools.takewhile(lambda text: not text.startswith("--"), rest))
        texts = texts if option.many and not option.each else texts[:1]
        if not equals:
            del rest[: len(texts)]
        value = _value(option, texts)
        found[option.name] = (*found.get(option.name, ()), *value) if option.each else value
    for option in options:
        if option.positional and words:
            taken = words if option.many else words[:1]
            found[option.name], words = _value(option, taken), words[len(taken) :]
    if words:
        raise MinidsError(f"{command}: {words[0]!r} belongs to no option; minids {command} --help lists them")
    return found


def _value(option: Option, texts: Sequence[str]) -> Any:
    if not texts:
        raise MinidsError(f"{option.name}: has no value; one that begins with -- is written {option.flag}=--…")
    if option.optional and texts[0].lower() == "none" and "none" not in option.choices:
        return None
    for text in texts:
        if option.choices and text not in option.choices:
            raise refuse(option.name, text, f"must be one of {', '.join(option.choices)}")
    try:
        values = tuple(option.kind(text) for text in texts)
    except ValueError:
        shown = texts if option.many else texts[0]
        raise refuse(option.name, shown, f"must be {KINDS[option.kind][1 + option.many]}") from None
    return values if option.many else values[0]


def built(command: str, owner: type, options: Sequence[Option], found: dict[str, object], default: Any = None) -> Any:
    for option in options:
        if option.default is REQUIRED and option.name not in found:
            asked = ", ".join(option.choices) or _words(option.owner)[option.field]
            raise MinidsError(f"{command}: {option.flag} is missing: {asked}")
    base = default if default is not None else owner(**{o.name: found[o.name] for o in options if o.default is REQUIRED})
    changes: dict[str, dict[str, object]] = {"": {}}
    for option in options:
        if option.name in found:
            changes.setdefault(option.group, {})[option.field] = found[option.name]
    own = changes.pop("")
    return dataclasses.replace(base, **own, **{g: dataclasses.replace(getattr(base, g), **c) for g, c in changes.items()})


def help_of(command: str, owner: type, options: Sequence[Option]) -> str:
    words = [o.name.upper() if o.default is REQUIRED else f"[{o.name.upper()}]" for o in options if o.positional]
    width = room(WIDTH)
    lines = [" ".join(["minids", command, *words, "[OPTIONS]"]), "", *textwrap.wrap(inspect.getdoc(owner) or "", width)]
    for group, members in itertools.groupby(options, lambda option: (option.group, option.owner)):
        about = _words(owner).get(group[0]) or inspect.getdoc(group[1]) if group[0] else "Options"
        lines += ["", *textwrap.wrap(about or "", width)]
        for o in members:
            switch = f", {o.off}" if o.kind is bool else f" {KINDS[o.kind][0]}"
            value = " {" + ",".join(o.choices) + "}" if o.choices else switch
            lines.append(f"  {o.flag}{value}{' …' * o.many}")
            text = _words(o.owner).get(o.field, "") + _default(o.default)
            lines += textwrap.wrap(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def _default(value: object) -> str:
    """ " (default: 1000)", or nothing where there is none worth a word."""
    if value in (REQUIRED, "", (), None):
        return ""
    if isinstance(value, bool):
        value = "on" if value else "off"
    shown = f"{value:g}" if isinstance(value, float) else " ".join(value) if isinstance(value, tuple) else value
    return f" (default: {shown})"


@functools.cache
def _words(owner: type) -> dict[str, str]:
    """The docstrings below the fields of a dataclass. Python does not keep them, so they are read from its source."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    assert isinstance(definition, ast.ClassDef)
    words = {}
    for field, text in itertools.pairwise(definition.body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            words[ast.unparse(field.target)] = " ".join(str(ast.literal_eval(text.value)).split())
    return words


def begins_from(options: Any, *needed: str) -> None:
    """What a command that teaches a trained model needs, unless it resumes a run: the options called ``needed``."""
    if options.resume and options.overwrite:
        raise refuse("overwrite", True, "deletes what --resume goes on from; say one of them")
    owner: type = type(options)
    for name in needed if not options.resume else ():
        if not getattr(options, name):
            raise refuse(name, "", f"is needed, say --{name.replace('_', '-')}: {_words(owner)[name]}")


def asked_of_resumed(options: Any, given: set[str], settings: Any) -> dict[str, Any]:
    """Of the options ``given`` with --resume those that the run there has to have, of the command or of ``settings``."""
    names = given - {"out", "resume", "overwrite"}
    return {name: getattr(options if hasattr(options, name) else settings, name) for name in names}
