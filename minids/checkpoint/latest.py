"""Which checkpoint of a run's folder is the newest whole one: the file ``latest`` names it."""

import errno
import os
from pathlib import Path

from minids import arguments
from minids.errors import MinidsError
from minids.files import inside, write

POINTER = "latest"


def latest_checkpoint(run: str | Path) -> Path | None:
    """The newest whole checkpoint of a run's folder, or None where nothing is said about one."""
    run = Path(run)
    try:
        name = (run / POINTER).read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        if getattr(error, "errno", None) == errno.ENAMETOOLONG:  # then the path is no folder at all
            return None
        why = f"cannot be read ({getattr(error, 'strerror', None) or 'it is no text'})"
        raise MinidsError(f"{run / POINTER}: {why}; it names the newest checkpoint, such as step-000400") from None
    return inside(run, name, str(run / POINTER)) if name else None


def point_to(checkpoint: Path) -> None:
    write(checkpoint.parent / POINTER, checkpoint.name.encode() + b"\n")


def resolved(path: str | Path) -> Path:
    """The Hugging Face folder meant by ``path``: itself, or the newest checkpoint of a run's folder."""
    arguments.instance("folder", path, (str, os.PathLike), "the path of a folder")
    return latest_checkpoint(path) or Path(path)
