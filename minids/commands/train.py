"""minids train: a model from text, as a Hugging Face folder."""

import dataclasses
import shlex
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from minids.config import ModelConfig, TrainConfig
from minids.config.presets import PRESETS, TRAINABLE
from minids.errors import refuse
from minids.terminal import fit, say


@dataclass(frozen=True)
class Options:
    """Train a model on your own text, or on the built-in corpus, and write a Hugging Face folder."""

    preset: str = "tiny"
    """Model and run: tiny, small, laptop or shakespeare. Other options change single settings of it."""
    data: tuple[str, ...] = ("builtin",)
    """builtin, shakespeare, or files and folders of text, each of which is one domain."""
    out: str = ""
    """Folder of the run; runs/PRESET if not given."""
    resume: bool = False
    """Continue the run in that folder from its newest checkpoint, with its own settings. --steps above its own extend it, and
    --data says where its text is now, if that has moved."""
    overwrite: bool = False
    """Begin anew in a folder that holds a run: its checkpoints are deleted. One without a checkpoint begins anew anyway."""
    train: Annotated[TrainConfig, "flat"] = field(default_factory=TrainConfig)
    model: ModelConfig = field(default_factory=lambda: ModelConfig.preset("tiny"))
    """The model; defaults are those of the preset."""


def run(options: Options, given: set[str]) -> None:
    from minids.lab.analysis import routing_trace
    from minids.lab.figures.run_curves import draw
    from minids.training.run import Run

    out = options.out or f"runs/{options.preset}"
    for name in given & {"model.vocab_size", "model.bos_token_id", "model.eos_token_id"}:
        value = getattr(options.model, name.removeprefix("model."))
        raise refuse(name, value, "follows from the tokenizer; choose that with --tokenizer and --bpe-vocab-size")
    needs = {"bpe_vocab_size": ("tokenizer", "bpe"), **dict.fromkeys(("muon_momentum", "muon_rounds"), ("optimizer", "muon"))}
    for name, (owner, value) in needs.items():
        if name in given and getattr(options.train, owner) != value and not options.resume:
            raise refuse(name, getattr(options.train, name), f"concerns {owner} = {value}; say --{owner} {value} too")
    if options.resume and options.overwrite:
        raise refuse("overwrite", True, "deletes what --resume goes on from; say one of them")
    if options.resume:
        training = Run.resume(out, _asked(options, given))
        over = " It is finished; more --steps extend it." if training.step == training.train.steps else ""
        say(f"Resuming {out} after step {training.step} of {training.train.steps}.{over}")
    else:
        training = Run.start(out, options.model, options.train, list(options.data), options.preset, overwrite=options.overwrite)
        size = training.model.parameters.values.size
        say(fit(f"Training {options.preset} on {', '.join(options.data)}: {size:,} parameters,"))
        say(f"{options.train.steps} steps of {options.train.tokens_per_step:,} tokens, into {out}")
    training.observers.append(routing_trace.record)
    checkpoint = training.run()
    if checkpoint is None:
        return
    say(f"Checkpoint (a Hugging Face folder): {checkpoint}")
    if find_spec("matplotlib") is None:
        say('No loss picture: matplotlib is not installed; pip install "minids[lab]"')
    elif (picture := draw(Path(out))) is not None:
        say(f"Loss picture: {picture}")
    say(f'Write more: minids generate --checkpoint {shlex.quote(out)} --prompt "def "')


def defaults(typed: dict[str, object]) -> Options:
    """The preset that was typed sets the defaults of all other options."""
    name = str(typed.get("preset", Options.preset))
    if name in PRESETS and name not in TRAINABLE:
        raise refuse("preset", name, f"is too large to train here; choose one of {', '.join(TRAINABLE)}")
    data = ("shakespeare",) if name == "shakespeare" else Options.data
    return Options(preset=name, data=data, train=TrainConfig.preset(name), model=ModelConfig.preset(name))


def _asked(options: Options, given: set[str]) -> dict:
    """The settings typed beside --resume, by the names that a run's description has."""
    own = {"data": list(options.data), "preset": options.preset}
    train, model = dataclasses.asdict(options.train), {f"model.{n}": v for n, v in dataclasses.asdict(options.model).items()}
    return {name.removeprefix("model."): (own | train | model)[name] for name in given - {"out", "resume", "overwrite"}}
