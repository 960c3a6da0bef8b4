"""The command line: ``minids COMMAND [options]``.

Every option is a field of a dataclass, so its help text is the field's docstring. Whatever is wrong with what was typed is
answered in one line on standard error, with exit code 2.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from minids.config import ModelConfig, TrainConfig
from minids.errors import MinidsError, refuse
from minids.presets import PRESETS, TRAINABLE, model_preset, train_preset


@dataclass(frozen=True)
class Train:
    """Train a model on your own text, or on the built-in corpus, and write a Hugging Face folder."""

    preset: str = "tiny"
    """Sizes of the model and length of the run: tiny, small or laptop. Other options change single settings of it."""
    data: tuple[str, ...] = ("builtin",)
    """builtin, shakespeare, or files and folders of text, each of which is one domain."""
    out: str = ""
    """Folder of the run; runs/PRESET if not given."""
    resume: bool = False
    """Continue the run in that folder from its newest checkpoint, with its own settings."""
    train: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)
    model: ModelConfig = field(default_factory=lambda: model_preset("tiny"))


@dataclass(frozen=True)
class Generate:
    """Continue a text with a trained model."""

    checkpoint: str
    """A run's folder, or any Hugging Face DeepSeek folder."""
    prompt: str = ""
    """Text to continue; if empty, a new document is begun."""
    max_new_tokens: int = 200
    """Tokens to write."""
    temperature: float = 0.7
    """0 always takes the most likely token; 1 draws from the model's own distribution."""
    top_k: int = 0
    """Draw among the k most likely tokens only; 0 for all."""
    top_p: float = 0.95
    """Draw among the fewest tokens that together have this probability."""
    seed: int = 0
    """Seed of the draws."""
    cache: Literal["latent", "full", "none"] | None = None
    """What is kept of the tokens read: the latent (default for MLA), all keys and values, or nothing."""
    stream: bool = False
    """Leave the weights on disk and read each layer when it is needed, for models larger than memory."""


@dataclass(frozen=True)
class Info:
    """Parameters, cache, arithmetic and memory of a model, from its configuration alone."""

    preset: str | None = None
    """Name of a preset."""
    checkpoint: str | None = None
    """Or a run's folder or Hugging Face folder."""
    context: int = 4096
    """Tokens in the context, for the cache and for attention's arithmetic."""
    batch: int = 1
    """Sequences decoded side by side."""
    json: bool = False
    """Print JSON, with the formula and the source of every number."""


@dataclass(frozen=True)
class Tour:
    """Walk one batch through a model, forward and backward: equations, names, shapes, bytes, FLOPs."""

    preset: str = "tiny"
    """Name of a preset; the large ones are walked on paper, without a weight."""


TOUR_TEXT = "DeepSeek-V3 adopts Multi-head Latent Attention and DeepSeekMoE; a token meets one shared expert and four others. "


@dataclass(frozen=True)
class Data:
    """List what there is to train on, or fetch a data set."""

    action: tyro.conf.Positional[Literal["list", "fetch"]] = "list"
    """list shows the built-in corpus and what can be fetched; fetch NAME fetches it once into the user's cache."""
    name: tyro.conf.Positional[str] = ""
    """Data set to fetch."""


def train(options: Train, given: set[str]) -> None:
    from minids.figures.training_run import draw
    from minids.training.trainer import Trainer

    out = options.out or f"runs/{options.preset}"
    for name in given & {"model.vocab_size", "model.bos_token_id", "model.eos_token_id"}:
        value = getattr(options.model, name.removeprefix("model."))
        raise refuse(name, value, "follows from the tokenizer; choose that with --tokenizer and --bpe-vocab-size")
    if options.resume:
        trainer = Trainer.resume(out, _asked(options, given))
        print(f"Resuming {out} after step {trainer.step} of {trainer.train.steps}")
    else:
        trainer = Trainer.start(out, options.model, options.train, list(options.data), options.preset)
        print(f"Training {options.preset} on {', '.join(options.data)}: {trainer.model.parameters.values.size:,} parameters,")
        print(f"{options.train.steps} steps of {options.train.tokens_per_step:,} tokens, into {out}")
    checkpoint = trainer.run()
    picture = draw(Path(out))
    print(f"Checkpoint (a Hugging Face folder): {checkpoint}\nLoss picture: {picture}")
    print(f'Write more: minids generate --checkpoint {out} --prompt "def "')


def generate(options: Generate, given: set[str]) -> None:
    from minids.checkpoint.model_folder import load
    from minids.checkpoint.streaming import load_streamed
    from minids.inference.generate import prompt_ids, stream

    model = (load_streamed if options.stream else load)(options.checkpoint)
    if model.tokenizer is None:
        raise refuse("checkpoint", options.checkpoint, "has no tokenizer.json, so there is no text to read or write")
    ids = prompt_ids(model, options.prompt)
    if options.prompt and model.config.bos_token_id is not None:
        ids = [model.config.bos_token_id, *ids]  # as in training: a document begins with it
    stop = () if model.config.eos_token_id is None else (model.config.eos_token_id,)
    print(options.prompt, end="", flush=True)
    shown, new = "", []
    for token in stream(
        model,
        ids,
        options.max_new_tokens,
        options.temperature,
        options.top_k,
        options.top_p,
        options.seed,
        options.cache,
        stop,
    ):
        new.append(token)
        text = model.tokenizer.decode(new)
        if not text.endswith("�"):  # the rest of a character may be still to come
            print(text[len(shown) :], end="", flush=True)
            shown = text
    print(model.tokenizer.decode(new)[len(shown) :])


def info(options: Info, given: set[str]) -> None:
    import json

    from minids.analysis.info import info as account
    from minids.analysis.info_table import format_info

    if (options.preset is None) == (options.checkpoint is None):
        raise MinidsError("info: give either --preset NAME or --checkpoint FOLDER")
    if options.preset:
        config, name = model_preset(options.preset), options.preset
    else:
        from minids.checkpoint.config_json import read_config
        from minids.checkpoint.latest import resolved

        config, name = read_config(resolved(options.checkpoint)), options.checkpoint
    found = account(config, name, context=options.context, batch=options.batch)
    print(json.dumps(found, indent=2) if options.json else format_info(found))


def tour(options: Tour, given: set[str]) -> None:
    from minids.analysis.tour import tour as walk

    config = model_preset(options.preset)
    if options.preset not in TRAINABLE:
        print(walk(config, options.preset))
        return
    from minids.analysis.tour_values import step_values
    from minids.model import DeepSeekV3
    from minids.training.tokenizer import byte_tokenizer

    model = DeepSeekV3(config)
    ids = np.resize(byte_tokenizer().encode(TOUR_TEXT), (2, 65))
    values = step_values(model, ids[:, :-1], ids[:, 1:])
    print(walk(config, options.preset, *ids[:, 1:].shape, values=values))


def data(options: Data, given: set[str]) -> None:
    from minids.training.corpus import describe, load_corpus
    from minids.training.download import datasets, fetch

    if options.action == "fetch":
        if not options.name:
            raise refuse("name", options.name, "which one? minids data list shows them")
        print(fetch(options.name))
        return
    print(describe(load_corpus(["builtin"])))
    for dataset in datasets():
        print(dataset)


COMMANDS: dict[str, tuple[type, Callable]] = {
    "train": (Train, train),
    "generate": (Generate, generate),
    "info": (Info, info),
    "tour": (Tour, tour),
    "data": (Data, data),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code. 2 means: what was asked cannot be done, and the last line on standard error says why."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0
    try:
        command = arguments[0]
        if command not in COMMANDS:
            close = difflib.get_close_matches(command, COMMANDS, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise MinidsError(f"{command}: no such command; {hint}there are {', '.join(COMMANDS)}")
        kind, run = COMMANDS[command]
        options = _parsed(kind, command, arguments[1:])
        run(options, _given(arguments[1:]))
        return 0
    except MinidsError as error:
        print(f"minids: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("minids: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, `head` say, has seen enough
        sys.stderr.close()
        return 0


def _overview() -> str:
    about = "DeepSeek-V3 from scratch, to read, to train on a laptop, to explain."
    lines = [about, "", "minids COMMAND --help tells more.", ""]
    lines += [f"  minids {name:<10}{' '.join(kind.__doc__.split())}" for name, (kind, _) in COMMANDS.items()]
    return "\n".join([*lines, "", f"Presets: {', '.join(PRESETS)}"])


def _parsed(kind: type, command: str, arguments: list[str]):
    """The options as a dataclass. A preset named among them sets the defaults of all others."""
    default = None
    if kind is Train:
        name = _value_of("--preset", arguments) or "tiny"
        if name in PRESETS and name not in TRAINABLE:
            raise refuse("preset", name, f"is too large to train here; choose one of {', '.join(TRAINABLE)}")
        default = Train(preset=name, train=train_preset(name), model=model_preset(name))
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                kind,
                prog=f"minids {command}",
                args=arguments,
                default=default,
                config=(tyro.conf.AvoidSubcommands,),
            )
    except SystemExit as stop:
        if stop.code == 0:  # --help
            raise
        line = _one_line(said.getvalue())
        raise MinidsError(line if re.match(r"[\w.]+ = ", line) else f"{command}: {line}") from None


def _one_line(boxed: str) -> str:
    """tyro's framed error message, as one line."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", boxed)
    rows = [row.strip("│ ").strip() for row in text.splitlines()]
    rows = [row for row in rows if row and not re.fullmatch(r"[╭╰─╮╯ \w]*[─╭╰][─╮╯ \w]*", row)]
    line = re.sub(r"\s+", " ", " ".join(rows))
    line = re.sub(r"^Error parsing \w+: (?=\w+ = )", "", line)  # our own refusals, met while the dataclass was made
    return re.split(r" (?:Argument helptext|For full helptext)", line)[0].strip()


def _value_of(option: str, arguments: list[str]) -> str | None:
    for i, argument in enumerate(arguments):
        if argument == option and i + 1 < len(arguments):
            return arguments[i + 1]
        if argument.startswith(option + "="):
            return argument.split("=", 1)[1]
    return None


def _given(arguments: list[str]) -> set[str]:
    """Names of the options that were typed, as fields: --model.n-group → model.n_group."""
    return {a[2:].split("=", 1)[0].replace("-", "_") for a in arguments if a.startswith("--")}


def _asked(options: Train, given: set[str]) -> dict:
    """The settings typed beside --resume, by the names that a run's description has."""
    asked = {}
    for name in given - {"out", "resume"}:
        if name == "data":
            asked["data"] = list(options.data)
        elif name == "preset":
            asked["preset"] = options.preset
        else:
            owner = options.model if name.startswith("model.") else options.train
            name = name.removeprefix("model.")
            name = name if hasattr(owner, name) else name.removeprefix("no_")  # --model.no-seq-aux is seq_aux = False
            asked[name] = getattr(owner, name)
    return asked


if __name__ == "__main__":
    sys.exit(main())
