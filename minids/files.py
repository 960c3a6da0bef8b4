"""Reading small files strictly, and writing any file so that it appears whole or not at all.

Everything a checkpoint folder holds came from somewhere else, so nothing in it is believed: JSON is parsed with a limit on its
size, no duplicate keys and no NaN; a file named by another file must be a plain file of the same folder.
"""

import glob
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NoReturn

from minids.caches import try_to_write
from minids.errors import MinidsError, refuse
from minids.terminal import quoted


def make_writable(folder: Path) -> None:
    """Make ``folder`` where it is missing and see that it takes a file, before any work is done for what shall lie there."""
    try:
        try_to_write(folder)
    except OSError as error:
        raise refuse("out", str(folder), f"cannot be written to ({error.strerror}); choose another folder") from None


def parse_json(data: bytes, source: str) -> dict:
    """The JSON object in ``data``. ``source`` opens the error line. Refused are also a key given twice (readers disagree on
    which one counts), NaN, infinities, numbers of absurd length, and nesting that would exhaust the interpreter's stack."""
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant)
    except RecursionError:
        raise MinidsError(f"{source}: JSON nested too deeply; no file of a checkpoint is") from None
    except UnicodeDecodeError as error:
        raise MinidsError(f"{source}: not UTF-8 text (byte {error.start})") from None
    except ValueError as error:  # JSONDecodeError, the two hooks below, and integers of thousands of digits
        raise MinidsError(f"{source}: not valid JSON: {error}") from None
    if not isinstance(value, dict):
        kinds = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
        raise MinidsError(f"{source}: must be a JSON object, not {kinds.get(type(value), 'a number')}")
    return value


def read_json(path: Path, limit: int) -> dict:
    """The JSON object in a file of at most ``limit`` bytes."""
    if (size := file_size(path)) > limit:
        raise MinidsError(f"{path}: {size:,} bytes; more than {limit:,} cannot be right")
    try:
        return parse_json(path.read_bytes(), str(path))
    except OSError as error:
        raise MinidsError(f"{path}: cannot be read: {error.strerror}") from None


def file_size(path: Path) -> int:
    """Bytes in a regular file. Anything else (a folder, a pipe that would block for ever) is refused."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise MinidsError(f"{path}: cannot be opened: {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(status.st_mode):
        raise MinidsError(f"{path}: not a regular file")
    return status.st_size


def inside(folder: Path, name: object, source: str) -> Path:
    """The path of the file called ``name`` in ``folder``; refused when it could be anywhere else.

    ``name`` comes from a file, so it must be a bare file name: no separator of any system, no drive, no "..". A symbolic link
    must end in the folder too, but for the hub's cache: its ``snapshots/REVISION/`` link into ``blobs/`` beside ``snapshots``.
    """
    if not isinstance(name, str) or name in ("", ".", "..") or len(name) > 200 or any(c in name for c in '/\\:\0\n"'):
        raise MinidsError(f"{source}: file name {shortened(name)} is refused: it must be a bare name in the same folder")
    path = folder / name
    if path.is_symlink():
        home = folder.resolve()
        allowed = [home, *([home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [])]
        if not any(path.resolve().is_relative_to(root) for root in allowed):
            raise MinidsError(f"{source}: file name {shortened(name)} is refused: it is a link that leaves the folder")
    return path


def shortened(value: object, limit: int = 80) -> str:
    """``repr`` of something read from a file: one printable line of bearable length, whatever it holds."""
    try:
        text = quoted(value) if isinstance(value, str) else repr(value)
    except RecursionError:
        text = "(deeply nested)"
    return text if len(text) <= limit else text[: limit - 1] + "…"


class Staged:
    """Files that are first written beside their final names, and then appear, in the order they were written."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Path, Path]] = []  # (temporary, final)

    @contextmanager
    def create(self, path: Path) -> Iterator[BinaryIO]:
        """A file that will be called ``path``, on the disk (fsync) when the block ends; leftovers of a kill are removed."""
        for leftover in path.parent.glob(f".{glob.escape(path.name)}.????????.tmp"):
            leftover.unlink(missing_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            with open(temporary, "xb") as file:
                self._waiting.append((temporary, path))
                yield file
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise MinidsError(f"{path}: cannot be written: {error.strerror or error}") from error

    def publish(self) -> None:
        """Give every file its final name, replacing what had it."""
        while self._waiting:
            temporary, final = self._waiting[0]
            try:
                os.replace(temporary, final)
            except OSError as error:
                raise MinidsError(f"{final}: cannot be replaced: {error.strerror}") from error
            self._waiting.pop(0)
            sync_folder(final.parent)

    def discard(self) -> None:
        for temporary, _ in self._waiting:
            temporary.unlink(missing_ok=True)


def write(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Put one file in its place, whole or not at all: ``content`` itself, or what the function writes to an open file."""
    with staged() as files:
        with files.create(path) as file:
            file.write(content) if isinstance(content, bytes) else content(file)
        files.publish()


@contextmanager
def staged() -> Iterator[Staged]:
    """``with staged() as files``: whatever is not published when the block ends, however it ends, is removed."""
    files = Staged()
    try:
        yield files
    finally:
        files.discard()


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` durable. Windows has no such call and needs none."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _object(pairs: list[tuple[str, object]]) -> dict:
    result: dict[str, object] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"key {shortened(key)} is given twice")
        result[key] = value
    return result


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number that JSON knows")
