"""Where this package may keep what another run would otherwise compile or fetch again."""

from pathlib import Path

import platformdirs


def user_cache() -> Path | None:
    """This package's folder among the user's caches, as the platform has them; None where the user has no home."""
    try:
        folder = Path(platformdirs.user_cache_dir("minids", appauthor=False))
    except RuntimeError:
        return None
    return folder if folder.is_absolute() else None  # without a home, older platformdirs answer "~/.cache"


def writable(folder: Path) -> bool:
    """Whether ``folder`` takes files; it is made where it is missing."""
    try:
        try_to_write(folder)
    except OSError:
        return False
    return True


def try_to_write(folder: Path) -> None:
    """Make ``folder`` where it is missing and put a file into it, which is removed again. Raises ``OSError``."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / ".writable"
    probe.touch()
    probe.unlink(missing_ok=True)  # another process may be trying the same
