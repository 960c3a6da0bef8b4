"""A model ↔ a Hugging Face folder, ours or theirs."""

import os
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from minids import arguments
from minids.checkpoint.checksums import verify_checksums
from minids.checkpoint.config_json import CONFIG_NAME, config_to_json, read_config
from minids.checkpoint.extension import extended
from minids.checkpoint.folder import CheckpointFolder, write_folder
from minids.checkpoint.generation_json import GENERATION_NAME, generation_to_json, read_generation
from minids.checkpoint.latest import POINTER, resolved
from minids.checkpoint.names import assemble, check_names, shards, with_own_matrices
from minids.checkpoint.released import QUANTISATION, as_released
from minids.checkpoint.tokenizer import FILES as TOKENIZER_FILES
from minids.checkpoint.tokenizer import Tokenizer
from minids.config import ModelConfig
from minids.errors import refuse
from minids.model import DeepSeekV3
from minids.model_checks import checked_dtype


def opened(
    folder: str | Path, mtp: bool, extend: float | None, trained_length: int, allow_nonfinite: bool
) -> tuple[CheckpointFolder, ModelConfig, Tokenizer | None]:
    """A folder that holds what its configuration asks for, that configuration as it is to be used, and the tokenizer."""
    arguments.switch("mtp", mtp)
    arguments.switch("allow_nonfinite", allow_nonfinite)
    path = resolved(folder)
    verify_checksums(path)
    source = CheckpointFolder(path, allow_nonfinite=allow_nonfinite)
    config, note = check_names(read_config(path), source, mtp)
    if note:
        warnings.warn(note, stacklevel=3)
    tokenizer = Tokenizer.load(path) if (path / "tokenizer.json").exists() else None
    return source, extended(config, path, extend, trained_length), tokenizer


def load(
    folder: str | Path,
    dtype: DTypeLike = np.float32,
    mtp: bool = True,
    extend: float | None = None,
    trained_length: int = 0,
    allow_nonfinite: bool = False,
) -> DeepSeekV3:
    """The model in a Hugging Face folder of a model type that minids reads, or in the newest checkpoint of a run.

    ``mtp=False`` leaves the multi-token-prediction modules out. ``dtype`` is the type to compute in, whatever is stored.
    ``extend=4`` stretches the context to four times the length it was trained with, by YaRN. That length is ``trained_length``;
    if 0, the context length of its run, else what its configuration says. ``allow_nonfinite=True`` opens a folder with a NaN or
    an infinity in a weight or routing bias, to study it; otherwise it is refused with the tensor's name.
    """
    dtype = checked_dtype(dtype)
    source, config, tokenizer = opened(folder, mtp, extend, trained_length, allow_nonfinite)
    config = with_own_matrices(config, source)
    model = DeepSeekV3(config, seed=None, dtype=dtype)
    for parameter in model.parameters:
        assemble(source, parameter.name, dtype, out=parameter.value)
    for name, buffer in model.parameters.buffers.items():
        assemble(source, name, out=buffer)
    model.tokenizer, model.generation = tokenizer, read_generation(source.path, config)
    return model


def save(model: DeepSeekV3, folder: str | Path, weights: str = "float32") -> None:
    """Write ``model``, and its tokenizer if it has one, as a folder that ``load`` and ``transformers`` open. It may replace
    another model's folder, tokenizer included, but not a run's, whose other files would speak of other weights.

    ``weights``: "float32", or "fp8" as DeepSeek-V3 is released, a quarter of the bytes (see ``checkpoint/released.py``)."""
    arguments.instance("model", model, DeepSeekV3, "a model: minids.load(folder), or minids.DeepSeekV3(config)")
    arguments.instance("folder", folder, (str, os.PathLike), "the path of a folder")
    arguments.one_of("weights", weights, ("float32", "fp8"))
    for name in ("run.json", POINTER, "training_state.json"):
        if (Path(folder) / name).is_file():
            raise refuse("folder", str(folder), f"belongs to a training run (it has {name}); choose another one")
    tokenizer = {} if model.tokenizer is None else model.tokenizer.files()
    if model.tokenizer is None and (Path(folder) / CONFIG_NAME).is_file():  # another model's tokenizer goes with it
        tokenizer = dict.fromkeys(TOKENIZER_FILES)
    others = tokenizer | {GENERATION_NAME: generation_to_json(model.config, model.generation)}
    arrays = {p.name: p.value for p in model.parameters} | model.parameters.buffers
    files, config = shards(model.config, arrays), config_to_json(model.config)
    types: dict[str, str] = {}
    if weights == "fp8":
        config = config_to_json(model.config, "bfloat16") | {"quantization_config": QUANTISATION}
        for name, tensors in files.items():
            files[name], found = as_released(tensors)
            types |= found
    write_folder(folder, config, files, others=others, types=types)
