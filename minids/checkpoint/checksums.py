"""A list of what every file of a checkpoint held when it was written, so that a damaged one is never taken for a model.

``checksums.json`` maps file names to SHA-256. A run's checkpoints have one; folders from elsewhere need none. A disk that
flips a bit in a weight gives another number and no error: only a hash can tell.
"""

import hashlib
import json
from pathlib import Path

from minids.errors import MinidsError
from minids.files import inside, read_json, write

NAME = "checksums.json"
_LARGEST = 1 << 20  # bytes
_READ = (
    "config.json",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
)  # beside the weights
_ELSE = f"use another checkpoint, or delete {NAME} if the change is yours"


def write_checksums(folder: Path) -> None:
    sums = {path.name: _sha256(path) for path in sorted(folder.iterdir()) if path.is_file() and path.name != NAME}
    write(folder / NAME, json.dumps(sums, indent=2).encode() + b"\n")


class Damaged(MinidsError):
    """A file of a checkpoint is not what was written."""


def verify_checksums(folder: Path, must_be_listed: bool = False) -> None:
    """Refuse a folder whose files are not what its list says, or not in it; and one without a list if it ``must_be_listed``."""
    if not (folder / NAME).exists():
        if must_be_listed:
            raise Damaged(f"{folder}: has no {NAME}")
        return
    listed = read_json(folder / NAME, _LARGEST)
    for path in sorted(folder.iterdir()):
        if (path.suffix == ".safetensors" or path.name in _READ) and path.name[0] != "." and path.name not in listed:
            raise Damaged(f"{path}: is not listed in {NAME}, so nobody can tell whether it is what was written; {_ELSE}")
    for name, expected in listed.items():
        path = inside(folder, name, str(folder / NAME))
        if not path.is_file():
            raise Damaged(f"{path}: is missing; {NAME} lists it")
        if _sha256(path) != expected:
            raise Damaged(f"{path}: is not what was written: damaged, or edited by hand; {_ELSE}")


def _sha256(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise MinidsError(f"{path}: cannot be read: {error.strerror}") from None
