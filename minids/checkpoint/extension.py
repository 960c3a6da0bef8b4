"""A trained model read with a longer context, by YaRN: the same weights, other rotary angles and another softmax scale.

    minids.load("runs/tiny", extend=4)                             minids generate --checkpoint runs/tiny --extend 4

The length that is multiplied is that of the sequences it was *trained* with, which a run's description knows.
"""

from pathlib import Path
from typing import TypeVar

from minids import arguments
from minids.config import ModelConfig
from minids.errors import MinidsError, refuse
from minids.files import read_json

_LARGEST = 16 << 20  # bytes of a run's description
MOST = 1024  # times a context may be stretched


def extended(config: ModelConfig, path: Path, factor: float | None, trained_length: int = 0) -> ModelConfig:
    """``config`` of the checkpoint at ``path`` for a context ``factor`` times as long; as it is if None. ``trained_length``
    in tokens; if 0, what the description of its run says, else what its configuration does."""
    arguments.whole("trained_length", trained_length, because="0 is what the run or its configuration says")
    if factor is None:
        if trained_length:
            raise refuse("trained_length", trained_length, "is what extend multiplies; give that too")
        return config
    arguments.number("extend", factor, 1, MOST)
    if config.rope_scaling is None and not trained_length:
        try:
            trained_length = int(run_setting(path, "context_length", 0))
        except MinidsError as error:
            raise MinidsError(f"{error}; say trained_length") from None
    return config.extended(factor, trained_length)


Setting = TypeVar("Setting", int, float, str)


def run_setting(checkpoint: Path, name: str, otherwise: Setting) -> Setting:
    """A setting of the run that a checkpoint belongs to, from ``run.json`` beside it; ``otherwise`` where there is none."""
    description = checkpoint.absolute().parent / "run.json"
    if not description.is_file():
        return otherwise
    try:
        described = read_json(description, _LARGEST)  # without "train" it is somebody else's run.json
        return type(otherwise)(described["train"][name]) if "train" in described else otherwise
    except (KeyError, TypeError, ValueError) as error:
        raise MinidsError(f"{description}: is not what this version writes ({error})") from None
