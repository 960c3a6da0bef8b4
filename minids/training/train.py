"""``minids.train``: what the command of that name does, from Python."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minids import arguments
from minids.config import ModelConfig, TrainConfig
from minids.config.presets import TRAINABLE
from minids.errors import refuse
from minids.model import DeepSeekV3
from minids.other_names import SETTINGS, perhaps
from minids.terminal import say
from minids.training.printing import Say
from minids.training.run import Run
from minids.words import did_you_mean


def train(
    out: str | Path,
    data: str | Path | Sequence[str | Path] | None = None,
    preset: str = "tiny",
    resume: bool = False,
    say: Say = say,
    **settings: Any,
) -> DeepSeekV3:
    """Train a model on text, with checkpoints in the folder ``out``, and return it.

        model = minids.train("runs/mine", data="my_texts", steps=500, hidden_size=96)

    ``data``: "builtin", "shakespeare", or files and folders of text, each of which is one domain; the preset's if not given.
    ``settings`` are fields of ``TrainConfig`` and ``ModelConfig`` that shall not be the preset's. ``resume=True`` goes on with
    the run that is in the folder, which has its own settings. ``say`` is given every line that is to be shown.
    """
    arguments.instance("out", out, (str, os.PathLike), "the path of a folder")
    arguments.one_of("preset", preset, TRAINABLE)
    arguments.switch("resume", resume)
    if not callable(say):
        raise refuse("say", say, "must be a function that is given a line, such as print")
    if data is None:
        data = "shakespeare" if preset == "shakespeare" else "builtin"
    texts = [data] if isinstance(data, str | os.PathLike) else data
    if not isinstance(texts, Sequence) or not texts or not all(isinstance(text, str | os.PathLike) for text in texts):
        raise refuse("data", data, "must be builtin, shakespeare, or paths of files and folders")
    of_run, of_model = ({field.name for field in dataclasses.fields(kind)} for kind in (TrainConfig, ModelConfig))
    known = sorted(of_run | of_model)
    for name in settings:
        if name not in known:
            hint = perhaps(name, known, SETTINGS) or did_you_mean(name, known)
            raise refuse(name, settings[name], f"no such setting; {hint}TrainConfig and ModelConfig have them all")
    if resume:
        run = Run.resume(out, settings, say)
    else:
        model = ModelConfig.preset(preset).replace(**{name: settings[name] for name in settings.keys() & of_model})
        config = TrainConfig.preset(preset, **{name: settings[name] for name in settings.keys() & of_run})
        run = Run.start(out, model, config, [os.fspath(text) for text in texts], preset, say)
    run.run()
    return run.model
