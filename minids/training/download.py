"""Fetch a public data set once, check it, keep it.

A file counts as present only when its SHA-256 is the known one, so a half or altered file is never read. What arrives
goes into a ``.part`` file beside its place; the next attempt asks for the rest of it (HTTP ``Range``), and ``os.replace``
moves it when the hash is right. Where ``MINIDS_DATA`` names a folder that holds the file, no network is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from minids.errors import MinidsError, refuse

ATTEMPTS = 5
"""Connections per fetch. A cut one is followed by the next only if it brought something."""
TIMEOUT = 20.0
"""Seconds without a byte after which a connection counts as cut."""
CHUNK = 1 << 16


@dataclass(frozen=True)
class Dataset:
    """One public file, known by its hash."""

    name: str
    """What the user types."""
    filename: str
    """Its name in the cache folder."""
    aliases: tuple[str, ...]
    """Other names it may have in the folder of ``MINIDS_DATA``."""
    url: str
    size: int
    """Bytes."""
    sha256: str
    about: str
    """One line on what it is."""

    def matches(self, path: Path) -> bool:
        """Whether ``path`` holds exactly this data set."""
        try:
            return path.stat().st_size == self.size and hashlib.sha256(path.read_bytes()).hexdigest() == self.sha256
        except OSError:
            return False


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


@dataclass(frozen=True)
class Listed:
    """A data set and the file that holds it on this machine, or None; as text, a line for the user."""

    dataset: Dataset
    path: Path | None

    def __str__(self) -> str:
        where = f"in {self.path}" if self.path else f"not here yet: minids data fetch {self.dataset.name}"
        return f"{self.dataset.name}  {self.dataset.size:,} bytes  {self.dataset.about} ({where})"


def datasets() -> list[Listed]:
    """Every data set that can be fetched."""
    return [Listed(dataset, find(dataset)) for dataset in DATASETS.values()]


def find(dataset: Dataset) -> Path | None:
    """The checked file of a data set: in the folder of ``MINIDS_DATA``, else in the user's cache. No network."""
    places = [folder / dataset.filename for folder in _cache_folders()]
    if given := os.environ.get("MINIDS_DATA"):
        places = [Path(given) / name for name in (dataset.filename, *dataset.aliases)] + places
    return next((place for place in places if dataset.matches(place)), None)


def fetch(name: str, url: str | None = None) -> Path:
    """The checked file of the data set ``name``, downloaded unless it is here already.

    ``url`` is for a mirror; the hash stays the same. Raises ``MinidsError`` for an unknown name, a failed download and
    content that is not the data set, saying where a file fetched by other means is looked for.
    """
    if name not in DATASETS:
        raise refuse("data", name, f"there is no such data set; there is {', '.join(DATASETS)}")
    dataset = DATASETS[name]
    if (found := find(dataset)) is not None:
        return found
    url = url or dataset.url
    target = _cache_folder() / dataset.filename
    part = target.with_name(target.name + ".part")
    reason = "the connection was cut before the end"
    for _ in range(ATTEMPTS):
        begun = _size(part)
        try:
            _continue(url, part, dataset.size)
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        if dataset.matches(part):
            os.replace(part, target)
            return target
        if _size(part) >= dataset.size:
            reason = "what arrived is not this data set (wrong SHA-256)"
            part.unlink()
            if not begun:  # a stale .part deserves one fresh start; a whole wrong file does not
                break
        elif _size(part) == begun:  # nothing came, nor will it now
            break
    raise MinidsError(
        f"data = {name!r}: cannot be fetched: {reason}. Get {url} by other means and put it at {target}, "
        "or name its folder in MINIDS_DATA"
    )


def _continue(url: str, part: Path, size: int) -> None:
    """Append to ``part`` what the server has beyond it; begin anew where the server sends the whole file.

    A cut connection raises or just ends: the caller compares sizes.
    """
    begun = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={begun}-"} if begun else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        # 206 answers the Range; 200 ignores it. A piece that begins elsewhere cannot be appended.
        if response.status == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {begun}-"):
            raise OSError("the server sent another part of the file than was asked for")
        with open(part, "ab" if response.status == 206 else "wb") as file:
            while file.tell() <= size and (chunk := response.read1(CHUNK)):  # past its size it is not our file
                file.write(chunk)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _cache_folders() -> list[Path]:
    """Where the cache may be, best first: the platform's place for caches, then a folder for temporary files."""
    folders = []
    for variable in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        given = os.environ.get(variable)
        if given and os.path.isabs(given):  # a relative one would move with the working directory
            folders.append(Path(given) / "minids")
    with contextlib.suppress(RuntimeError):  # no HOME and no entry in the password file, as in some containers
        folders.append(Path.home() / ".cache" / "minids")
    return [*folders, Path(tempfile.gettempdir()) / "minids"]


def _cache_folder() -> Path:
    """The first of those folders that can be written to, made if need be."""
    for folder in _cache_folders():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    raise MinidsError("no folder to keep downloads in can be written to: name one in XDG_CACHE_HOME")
