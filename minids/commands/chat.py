"""minids chat: type, and the model goes on."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from minids.checkpoint.extension import run_setting
from minids.checkpoint.latest import resolved
from minids.checkpoint.model_folder import load
from minids.checkpoint.tokenizer import Tokenizer
from minids.errors import MinidsError, refuse
from minids.inference.generate import stream
from minids.inference.sampling import MIN_P, TEMPERATURE, Sampling, Token
from minids.model import DeepSeekV3
from minids.terminal import say
from minids.words import did_you_mean

HELP = """Type a text and press Enter: the model goes on from it. An empty line goes on from where it stopped.
  /temperature X   how bold: 0 always takes the likeliest token, 1 draws as the model believes
  /domain NAME     begin inside a text of this domain; /domain alone shows them, /domain none begins with your text
  /length N        tokens to write at most
  /help            these lines
  /quit            the end, as Ctrl-D; Ctrl-C stops a text"""


@dataclass(frozen=True)
class Options:
    """Type a text, and a trained model goes on: a prompt on the terminal, or lines from a pipe."""

    checkpoint: str
    """A run's folder, or any Hugging Face DeepSeek folder with a tokenizer."""
    temperature: float = TEMPERATURE
    """0 always takes the most likely token; 1 draws from the model's own distribution."""
    top_p: float = 1.0
    """Draw among the fewest tokens that together have this probability."""
    min_p: float = MIN_P
    """Draw among the tokens that are at least so many times as likely as the likeliest; 0 for all."""
    domain: str = ""
    """Begin inside a text of this domain of the run, which sets the kind of text that follows."""
    max_new_tokens: int = 200
    """Tokens to write at most; a text ends before that with its paragraph."""
    seed: int = 0
    """Seed of the draws."""

    def __post_init__(self) -> None:
        Sampling(self.temperature, top_p=self.top_p, min_p=self.min_p, seed=self.seed)
        if self.max_new_tokens < 1:
            raise refuse("max_new_tokens", self.max_new_tokens, "must be at least 1")


def run(options: Options, given: set[str]) -> None:
    model = load(options.checkpoint)
    if model.tokenizer is None:
        raise refuse("checkpoint", options.checkpoint, "has no tokenizer.json, so there is no text to read or write")
    trained = run_setting(resolved(options.checkpoint), "context_length", 0)
    if model.config.rope_scaling is None and 0 < trained < model.config.max_position_embeddings:
        # Beyond the length that it was trained with a model writes no words any more: what is older is forgotten.
        model.config = model.config.replace(max_position_embeddings=trained)
    chat = Chat(model, options)
    if options.domain:
        chat.choose_domain(options.domain)
    typing = sys.stdin.isatty()
    if typing:
        with suppress(ImportError):  # Windows has none; with it the arrow keys bring back what was typed
            importlib.import_module("readline")
        say(HELP)
    for line in typed() if typing else sys.stdin:
        try:
            if chat.hear(line.rstrip("\r\n")):
                return
        except MinidsError as error:
            say(error)
        except KeyboardInterrupt:  # before the first word was written
            if not typing:
                raise
            say(" …")


def typed() -> Iterator[str]:
    """Lines from the terminal until Ctrl-D. Ctrl-C leaves a line half typed."""
    while True:
        try:
            yield input("\n> ")
        except EOFError:
            say()
            return
        except KeyboardInterrupt:
            say("\n/quit or Ctrl-D ends")


class Chat:
    """A model, how it is sampled, and the text that it goes on from."""

    def __init__(self, model: DeepSeekV3, options: Options):
        self.model, self.options = model, options
        self.tokenizer: Tokenizer = model.tokenizer
        self.before = ""  # a text of the chosen domain, which is read and not shown
        self.ids: list[int] = []  # what was typed last, and written after it
        self.turns = 0

    def hear(self, line: str) -> bool:
        """Answer one line; whether it was the last."""
        if line.startswith("/"):
            return self.obey(*line[1:].split(maxsplit=1))
        if line:
            self.ids = [*self.tokenizer.beginning, *self.tokenizer.encode(self.before + line).tolist()]
            if not self.ids:
                raise refuse("text", line[:80], "none of its characters is in the model's vocabulary")
        if not self.ids:  # nothing to go on from
            return False
        say(line, end="")
        try:
            for piece in self.written():
                say(piece, end="")
        except KeyboardInterrupt:
            say(" …", end="")
        say()
        return False

    def obey(self, command: str = "", value: str = "") -> bool:
        commands = {"temperature": self.set_temperature, "domain": self.choose_domain, "length": self.set_length}
        if command == "quit":
            return True
        if command == "help":
            say(HELP)
        elif command in commands:
            commands[command](value.strip())
        else:
            hint = did_you_mean(command, [*commands, "help", "quit"])
            say(f"/{command}: no such command; {hint}/help lists them. A text that begins with / is typed after a space")
        return False

    def written(self) -> Iterator[str]:
        """What the model writes after ``ids``, piece by piece, up to the end of its paragraph."""
        o, eos = self.options, self.tokenizer.eos_id
        sampled: dict[str, Any] = {
            "temperature": o.temperature,
            "top_p": o.top_p,
            "min_p": o.min_p,
            "seed": o.seed + self.turns,
        }
        self.turns += 1
        tokens = stream(self.model, self.ids, o.max_new_tokens, **sampled, stop=[] if eos is None else [eos])
        new = ""
        for piece in self.tokenizer.decode_stream(token.id for token in self.kept(tokens)):
            new += piece
            end = new.find("\n\n", len(new) - len(new.lstrip("\n")))  # line breaks before the first word end nothing
            if end >= 0:
                yield piece[: max(len(piece) - (len(new) - end), 0)]
                return
            yield piece

    def kept(self, tokens: Iterable[Token]) -> Iterator[Token]:
        """The same tokens, each of them part of the text from now on."""
        self.ids = list(self.ids)  # what ``stream`` was given stays as it is
        for token in tokens:
            self.ids.append(token.id)
            yield token

    def set_temperature(self, value: str) -> None:
        self.options = replace(self.options, temperature=_number("temperature", value, float))
        say(f"temperature {self.options.temperature:g}")

    def set_length(self, value: str) -> None:
        self.options = replace(self.options, max_new_tokens=int(_number("length", value, int)))
        say(f"at most {self.options.max_new_tokens} tokens")

    def choose_domain(self, name: str) -> None:
        """Have what is typed stand in a text of this domain."""
        if name == "none":
            self.before, self.ids = "", []
        elif name in self.domains:
            self.before, self.ids = self.domains[name], []
            say(f"{self.before.strip()}\n…" if sys.stdin.isatty() else f"domain {name}")
        elif not self.domains:
            raise refuse("domain", name, f"{self.options.checkpoint} has no run.json that names its text")
        elif name:
            raise refuse("domain", name, f"{did_you_mean(name, self.domains)}there are {', '.join(self.domains)}, none")
        else:
            say(", ".join([*self.domains, "none"]))

    @cached_property
    def domains(self) -> dict[str, str]:
        """The domains of the run's text, each with some paragraphs that were held out of its training."""
        from minids.training.corpus import load_corpus
        from minids.training.run_folder import RunFolder
        from minids.training.text import held_out_prompt

        path = resolved(self.options.checkpoint)
        run = next((folder for folder in (path, path.absolute().parent) if (folder / "run.json").is_file()), None)
        if run is None:
            return {}
        data = [str(entry) for entry in RunFolder(Path(run)).description().get("data", ())]
        if not data:
            return {}
        held_out = load_corpus(data).split(run_setting(path, "validation_share", 0.1))[1]
        return {name: f"{held_out_prompt(held_out, name, 200)}\n\n" for name in held_out.domains}


def _number(name: str, value: str, kind: type) -> float:
    try:
        return kind(value)
    except ValueError:
        raise refuse(name, value, f"must be a {'whole ' if kind is int else ''}number, as in /{name} {kind(1)}") from None
