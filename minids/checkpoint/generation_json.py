"""``generation_config.json`` of a Hugging Face folder, and what config.json says of generation beside it: which tokens end a
text, and how the model's makers draw.

    {"bos_token_id": 0, "eos_token_id": [1, 7], "do_sample": true, "temperature": 0.6, "top_p": 0.95}

As in ``transformers`` this file's tokens count before those of config.json, and a missing one leaves config.json's.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minids.checkpoint.config_json import read_config_json, text_model
from minids.config import ModelConfig
from minids.errors import MinidsError, refuse
from minids.files import inside, read_json

GENERATION_NAME = "generation_config.json"
_LIMIT = 1 << 20  # bytes
_DRAWING = {"temperature": (0, None), "top_k": (0, None), "top_p": (0, 1), "min_p": (0, 1), "repetition_penalty": (0, None)}


@dataclass(frozen=True)
class Generation:
    """How a folder says that its model generates; None where it says nothing."""

    stop: tuple[int, ...] = ()  # each of these tokens ends a text
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None

    def settings(self) -> dict[str, Any]:
        """What is said, by the names that ``minids.generate`` has for it, without ``stop``."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "stop" and value is not None}


def read_generation(folder: Path, config: ModelConfig) -> Generation:
    """Of a folder with a config.json; ``config`` is what was made of that."""
    said: dict[str, Any] = {}
    path = folder / GENERATION_NAME
    if path.exists():
        said = read_json(inside(folder, GENERATION_NAME, str(folder)), _LIMIT)
    try:
        tokens = said.get("eos_token_id")
        if tokens is None:
            path, tokens = folder / "config.json", text_model(read_config_json(folder)).get("eos_token_id", config.eos_token_id)
        stop = end_tokens(tokens, config)
        drawing = {name: _number(said, name, *limits) for name, limits in _DRAWING.items()}
    except MinidsError as error:
        raise MinidsError(f"{path}: {error}") from None
    if said.get("do_sample") is False:  # then transformers takes the most likely token, whatever else is there
        drawing = dict.fromkeys(drawing) | {"temperature": 0.0, "repetition_penalty": drawing["repetition_penalty"]}
    return Generation(stop, **drawing)


def end_tokens(tokens: object, config: ModelConfig) -> tuple[int, ...]:
    """Every released form of ``eos_token_id``: a token, a list of them, or null for none."""
    several = tokens if isinstance(tokens, list) else [] if tokens is None else [tokens]
    for token in several:
        if type(token) is not int or not 0 <= token < config.vocab_size:
            raise refuse("eos_token_id", tokens, f"must be token ids of 0 to {config.vocab_size - 1}: one, a list, or null")
    return tuple(dict.fromkeys(several))


def generation_to_json(config: ModelConfig, generation: Generation | None) -> bytes | None:
    """The file that ``read_generation`` turns back into the same; None where config.json says it all."""
    said = {} if generation is None else generation.settings()
    stop = [] if generation is None else list(generation.stop)
    if not said and stop in ([], [config.eos_token_id]):
        return None
    value: dict[str, Any] = {"bos_token_id": config.bos_token_id, "eos_token_id": stop or config.eos_token_id}
    value |= said | ({"do_sample": said["temperature"] > 0} if "temperature" in said else {})
    return json.dumps(value, indent=2).encode() + b"\n"


def _number(said: dict[str, Any], name: str, least: float, most: float | None) -> Any:
    """A number of the file, or None where it says none."""
    value = said.get(name)
    if value is None:
        return None
    kinds = (int,) if name == "top_k" else (int, float)
    if type(value) not in kinds or value < least or (most is not None and value > most):
        limits = f"of at least {least}" if most is None else f"between {least} and {most}"
        raise refuse(name, value, f"must be a {'whole ' if name == 'top_k' else ''}number {limits}")
    return value
