"""Fetch a public data set once, check it, keep it.

A file counts as present only when its SHA-256 is the known one, so that half a file or an altered one is never read.
"""

import hashlib
import http.client
import os
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from minids.caches import user_cache, writable
from minids.errors import MinidsError, refuse
from minids.files import write

TIMEOUT = 20.0
"""Seconds without a byte after which a connection counts as cut."""


@dataclass(frozen=True)
class Dataset:
    """One public file, known by its hash."""

    name: str  # what the user types
    filename: str  # in the cache folder
    aliases: tuple[str, ...]  # other names it may have in the folder of MINIDS_DATA
    url: str
    size: int  # bytes
    sha256: str
    about: str  # one line on what it is

    def matches(self, path: Path) -> bool:
        try:
            return path.stat().st_size == self.size and hashlib.sha256(path.read_bytes()).hexdigest() == self.sha256
        except OSError:
            return False

    def __str__(self) -> str:
        where = f"in {found}" if (found := find(self)) else f"not here yet: minids data fetch {self.name}"
        return f"{self.name}  {self.size:,} bytes  {self.about}\n    {where}"


DATASETS = {
    "shakespeare": Dataset(
        name="shakespeare",
        filename="tinyshakespeare.txt",
        aliases=("input.txt",),
        url="https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        size=1_115_394,
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        about="40,000 lines of Shakespeare's plays, put together for char-rnn",
    )
}


def find(dataset: Dataset) -> Path | None:
    """The checked file of a data set: in the folder of ``MINIDS_DATA``, else in the user's cache. No network."""
    given = os.environ.get("MINIDS_DATA")
    places = [Path(given) / name for name in (dataset.filename, *dataset.aliases)] if given else []
    places += [folder / dataset.filename for folder in _cache_folders()]
    return next(filter(dataset.matches, places), None)


def fetch(name: str, url: str | None = None) -> Path:
    """The checked file of the data set ``name``, downloaded unless it is here already. ``url`` is for a mirror."""
    if name not in DATASETS:
        raise refuse("data", name, f"there is no such data set; there is {', '.join(DATASETS)}")
    dataset = DATASETS[name]
    if (found := find(dataset)) is not None:
        return found
    if (folder := next(filter(writable, _cache_folders()), None)) is None:
        raise MinidsError("no folder to keep downloads in can be written to: name one in XDG_CACHE_HOME")
    url, target = url or dataset.url, folder / dataset.filename
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            content = response.read(dataset.size + 1)  # a longer one is not our file, however long it is
    except (OSError, http.client.HTTPException, ValueError) as error:
        content, reason = b"", str(getattr(error, "reason", error)) or type(error).__name__
    else:
        reason = "the connection was cut before the end" if len(content) < dataset.size else "wrong SHA-256: it is another file"
    if hashlib.sha256(content).hexdigest() != dataset.sha256:
        where = f"Get {url} by other means and put it at {target}, or name its folder in MINIDS_DATA"
        raise MinidsError(f"data = {name!r}: cannot be fetched: {reason}. {where}")
    write(target, content)
    return target


def _cache_folders() -> list[Path]:
    """Where downloads may be kept, best first: the user's cache, then a folder for temporary files."""
    return [*filter(None, [user_cache()]), Path(tempfile.gettempdir()) / "minids"]
