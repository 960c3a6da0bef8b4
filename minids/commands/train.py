"""minids train: a model from text, as a Hugging Face folder."""

import dataclasses
import shlex
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from minids.config import ModelConfig, ParallelConfig, TrainConfig
from minids.config.presets import PRESETS, TRAINABLE
from minids.errors import refuse
from minids.terminal import fit, say

SEVERAL_PROCESSES = True


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
    init_from: str = ""
    """Begin from the weights and the tokenizer of this checkpoint, a run's folder or any Hugging Face DeepSeek folder, with
    another text or other settings; the optimizer begins anew, and the model's settings are the checkpoint's."""
    tensorboard: bool = False
    """Write TensorBoard's event files too, into RUN/tensorboard (needs the extra tensorboard)."""
    train: Annotated[TrainConfig, "flat"] = field(default_factory=TrainConfig)
    parallel: Annotated[ParallelConfig, "flat"] = field(default_factory=ParallelConfig)
    model: ModelConfig = field(default_factory=lambda: ModelConfig.preset("tiny"))
    """The model; defaults are those of the preset."""


def run(options: Options, given: set[str]) -> None:
    from minids.lab.analysis import routing_trace
    from minids.lab.figures.training import draw
    from minids.model import DeepSeekV3
    from minids.parallel.group import process_group
    from minids.training.run import Run
    from minids.training.tensorboard import FOLDER, EventFiles, need_tensorboard
    from minids.training.text import readable_prompt

    out = options.out or f"runs/{options.preset}"
    for name in given & {"model.vocab_size", "model.bos_token_id", "model.eos_token_id"}:
        value = getattr(options.model, name.removeprefix("model."))
        raise refuse(name, value, "follows from the tokenizer; choose that with --tokenizer and --bpe-vocab-size")
    if "batch_ramp_from" in given and not options.train.batch_ramp_until and not options.resume:
        because = "concerns a batch that grows; say --batch-ramp-until 0.032 too"
        raise refuse("batch_ramp_from", options.train.batch_ramp_from, because)
    needs = {"bpe_vocab_size": ("tokenizer", "bpe"), **dict.fromkeys(("muon_momentum", "muon_rounds"), ("optimizer", "muon"))}
    for name, (owner, value) in needs.items():
        if name in given and getattr(options.train, owner) != value and not options.resume:
            raise refuse(name, getattr(options.train, name), f"concerns {owner} = {value}; say --{owner} {value} too")
    if options.tensorboard:
        need_tensorboard()
    if options.resume and options.overwrite:
        raise refuse("overwrite", True, "deletes what --resume goes on from; say one of them")
    group = process_group(options.parallel)
    if options.resume:
        training = Run.resume(out, _asked(options, given), say, group)
        over = " It is finished; more --steps extend it." if training.step == training.train.steps else ""
        say(f"Resuming {out} after step {training.step} of {training.train.steps}.{over}")
    else:
        model, train = _of_checkpoint(options, given) if options.init_from else (options.model, options.train)
        how = options.overwrite, options.init_from, group
        training = Run.start(out, model, train, list(options.data), options.preset, say, *how)
        what = f"{options.init_from} further" if options.init_from else options.preset
        size = sum(p.size for p in DeepSeekV3.declared(training.model.config))
        say(fit(f"Training {what} on {', '.join(options.data)}: {size:,} parameters,"))
        at_most = "up to " * (options.train.batch_ramp_until > 0)
        say(f"{options.train.steps} steps of {at_most}{options.train.tokens_per_step:,} tokens, into {out}")
    if group.size > 1:
        say(group.in_words())
    training.observers.append(routing_trace.record)
    if not group.first:
        training.run()
        return
    if options.tensorboard or (options.resume and (Path(out) / FOLDER).is_dir() and find_spec("tensorboardX")):
        training.metrics.followers.append(EventFiles(Path(out)))
    checkpoint = training.run()
    if checkpoint is None:
        return
    say(f"Checkpoint (a Hugging Face folder): {checkpoint}")
    if find_spec("matplotlib") is None:
        say('No loss picture: matplotlib is not installed; pip install "minids[lab]"')
    elif (picture := draw(Path(out))) is not None:
        say(f"Loss picture: {picture}")
    start, there = readable_prompt(training.tokenizer, training.prompts.values()), shlex.quote(out)
    say(f"Write with it: minids chat --checkpoint {there}")
    say(f"Measure it: minids evaluate --checkpoint {there}")
    say(f"Write more: minids generate --checkpoint {there}" + (f' --prompt "{start}"' if start else ""))


def defaults(typed: dict[str, object]) -> Options:
    """The preset that was typed sets the defaults of all other options."""
    name = str(typed.get("preset", Options.preset))
    if name in PRESETS and name not in TRAINABLE:
        raise refuse("preset", name, f"is too large to train here; choose one of {', '.join(TRAINABLE)}")
    chosen = {"optimizer": typed["optimizer"]} if typed.get("optimizer") == "adamw" else {}  # its own rate and schedule
    data = ("shakespeare",) if name == "shakespeare" else Options.data
    return Options(preset=name, data=data, train=TrainConfig.preset(name, **chosen), model=ModelConfig.preset(name))


def _asked(options: Options, given: set[str]) -> dict:
    """The settings typed beside --resume, by the names that a run's description has."""
    own = {"data": list(options.data), "preset": options.preset, "init_from": options.init_from}
    train, model = dataclasses.asdict(options.train), {f"model.{n}": v for n, v in dataclasses.asdict(options.model).items()}
    here = {"out", "resume", "overwrite", "tensorboard", *dataclasses.asdict(options.parallel)}
    return {name.removeprefix("model."): (own | train | model)[name] for name in given - here}


def _of_checkpoint(options: Options, given: set[str]) -> tuple[ModelConfig, TrainConfig]:
    """The model of --init-from with the settings that were typed, and the run with the name of its tokenizer. A preset that
    was typed is asked for with its whole shape."""
    from minids.checkpoint.config_json import read_config
    from minids.checkpoint.extension import run_setting
    from minids.checkpoint.latest import resolved

    path = resolved(options.init_from)
    there, tokenizer = read_config(path), str(run_setting(path, "tokenizer", ""))
    for name in given & {"tokenizer", "bpe_vocab_size"}:
        if name == "bpe_vocab_size" or options.train.tokenizer != tokenizer:
            its = f"the checkpoint has its own ({tokenizer or 'tokenizer.json'}), which goes with its weights"
            raise refuse(name, getattr(options.train, name), f"{its}; leave --{name.replace('_', '-')} out")
    typed = {name.removeprefix("model.") for name in given if name.startswith("model.")}
    model = options.model if "preset" in given else there.replace(**{name: getattr(options.model, name) for name in typed})
    return model, options.train.replace(tokenizer=tokenizer) if tokenizer else options.train
