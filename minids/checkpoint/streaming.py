"""Models larger than memory: weights stay on disk, and are converted when a layer needs them and forgotten after it.

A 16-billion-parameter folder in BF16 is 31 GB on disk and 63 GB in float32. Read one layer at a time, with only those experts
that tokens really chose, it runs in a few: the largest thing ever converted is one matrix outside the experts.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from minids import arguments
from minids.checkpoint.config_json import read_config
from minids.checkpoint.folder import CheckpointFolder
from minids.checkpoint.generation_json import read_generation
from minids.checkpoint.latest import resolved
from minids.checkpoint.model_folder import opened
from minids.checkpoint.names import ExpertStack, assemble, check_layer, is_stack
from minids.config import ModelConfig
from minids.layers.block import Block
from minids.layers.parameters import Array, Parameter, Parameters
from minids.model import DeepSeekV3
from minids.model_checks import checked_dtype

ROWS = 4096  # of the output head that are converted at once


class _OnDisk(Parameter):
    """A parameter that is read whenever its value is asked for. Experts come one by one."""

    __slots__ = ("folder",)

    def __init__(self, name: str, shape: tuple[int, ...], init: str, folder: CheckpointFolder):
        self.name, self.shape, self.init, self.folder = name, shape, init, folder

    @property
    def value(self) -> Array | ExpertStack:  # type: ignore[override]
        return ExpertStack(self.folder, self.name) if is_stack(self.name) else self.folder.tensor(self.name)


class _ParametersOnDisk(Parameters):
    """Parameters that stay on disk, but for the routing biases, and with ``hold`` for all that are not experts."""

    def __init__(self, folder: CheckpointFolder, hold: DTypeLike | None = None):
        super().__init__()
        self.folder, self.hold = folder, hold

    def add(self, name: str, shape: tuple[int, ...], init: str = "normal") -> Parameter:
        self._by_name[name] = _OnDisk(name, shape, init, self.folder)
        if self.hold is not None and not is_stack(name):
            self._by_name[name] = Parameter(name, shape, init)
            self._by_name[name].value = self.folder.tensor(name, dtype=self.hold)
        return self._by_name[name]

    def add_buffer(self, name: str, shape: tuple[int, ...]) -> None:
        self.buffers[name] = assemble(self.folder, name)


class StreamedDeepSeekV3(DeepSeekV3):
    """A model to generate with (``minids.generate``), not to train: its weights live in a folder."""

    def __init__(self, config: ModelConfig, folder: CheckpointFolder):
        super().__init__(config, parameters=_ParametersOnDisk(folder))
        embedding = self.embed_tokens.weight.name
        self.embed_tokens = _EmbeddingOnDisk(folder, embedding)  # type: ignore[assignment]  # generating calls forward alone
        head = embedding if config.tie_word_embeddings else self.head.weight.name
        self.head = _HeadOnDisk(folder, head)  # type: ignore[assignment]


@dataclass
class _MatrixOnDisk:
    folder: CheckpointFolder
    name: str


class _EmbeddingOnDisk(_MatrixOnDisk):
    def forward(self, tokens: Array) -> tuple[Array, None]:
        wanted, place = np.unique(tokens, return_inverse=True)
        return self.folder.tensor(self.name, rows=wanted)[place.reshape(tokens.shape)], None


class _HeadOnDisk(_MatrixOnDisk):
    def forward(self, hidden: Array) -> tuple[Array, None]:
        rows = self.folder.shape(self.name)[0]
        parts = [hidden @ self.folder.tensor(self.name, rows=slice(start, start + ROWS)).T for start in range(0, rows, ROWS)]
        return np.concatenate(parts, axis=-1), None


def load_streamed(
    folder: str | Path, extend: float | None = None, trained_length: int = 0, allow_nonfinite: bool = False
) -> StreamedDeepSeekV3:
    """The model in ``folder``, without holding its weights. MTP modules are left out. ``extend`` and ``allow_nonfinite`` as for
    ``load``; a weight that is not finite is found when it is first read, a routing bias at once."""
    source, config, tokenizer = opened(folder, False, extend, trained_length, allow_nonfinite)
    model = StreamedDeepSeekV3(config, source)
    model.tokenizer, model.generation = tokenizer, read_generation(source.path, config)
    return model


def load_layer(folder: str | Path, layer: int, dtype: DTypeLike = np.float32, allow_nonfinite: bool = False) -> Block:
    """Block ``layer`` (from 0; MTP modules' blocks follow the main ones) of the model in ``folder``, forward only.

    ``y, saved = layer.forward(x, rotary(read_config(folder), np.arange(T), dtype))`` takes x (B, T, d) of that ``dtype`` and
    gives y (B, T, d); ``rotary`` is in ``minids.layers.positions``, ``read_config`` in ``minids.checkpoint.config_json``.
    Experts stay on disk until a token chooses them, and of a model not downloaded whole the layer's shards are enough.
    """
    arguments.switch("allow_nonfinite", allow_nonfinite)
    dtype, path = checked_dtype(dtype), resolved(folder)
    config, source = read_config(path), CheckpointFolder(path, partial=True, allow_nonfinite=allow_nonfinite)
    check_layer(config, source, layer)
    return Block(config, _ParametersOnDisk(source, hold=dtype), layer)
