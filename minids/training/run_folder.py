"""A run's folder: what it was asked to do, its metrics, and its checkpoints, of which one is always whole.

    runs/NAME/
      run.json            the model's and the run's configuration, the data and their hash
      metrics.jsonl       one line of numbers every few steps
      latest              the name of the newest whole checkpoint
      lock                held by the process that trains here
      step-000400/        a Hugging Face folder: config.json, *.safetensors, tokenizer.json …
        training_state.json, optimizer.safetensors       … and what only a resumed run needs

A checkpoint is written under another name, renamed when all of it is on the disk, and only then does ``latest`` point to it: a
kill at any moment leaves the last good one. The one before is kept too.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from minids.checkpoint.checksums import verify_checksums, write_checksums
from minids.checkpoint.latest import latest_checkpoint, point_to
from minids.errors import MinidsError, refuse
from minids.files import make_writable, read_json, sync_folder, write
from minids.terminal import name_of, say


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path):
        self.path = path
        self.metrics = path / "metrics.jsonl"
        # The system lets go of the lock when the process ends, however it ends. Any thread may unlock what another locked.
        self._lock = FileLock(path / "lock", thread_local=False)

    def lock(self) -> RunFolder:
        """Keep every other process from training here, until ``unlock`` or the end of this one."""
        file, who = self.path / "lock", "unknown"
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            with suppress(OSError):  # Windows lets nobody else read a locked file
                who = file.read_text(encoding="utf-8", errors="replace")[:20].strip() or who
            raise refuse("out", str(self.path), f"another process ({who}) trains here; wait for it, or stop it") from None
        with suppress(OSError):
            file.write_text(str(os.getpid()), encoding="utf-8")
        return self

    def unlock(self) -> None:
        self._lock.release()

    @staticmethod
    def refuse_taken(path: str | Path, overwrite: bool = False) -> None:
        """Refuse a folder that cannot take a new run, before any work is done for it. One that holds a run without a checkpoint
        can: no step of it is on the disk. Where one is, ``overwrite`` says that it may go."""
        path = Path(path)
        if path.exists() and not path.is_dir():
            raise refuse("out", str(path), "is a file; choose a folder")
        others = [entry.name for entry in path.glob("*") if not _of_a_run(entry.name)]
        if others and not (path / "run.json").exists():
            raise refuse("out", str(path), f"holds {name_of(others[0])}, which no run wrote; choose a new folder")
        if not overwrite and any(path.glob("step-*")):
            other = "continue it with --resume, replace it with --overwrite, or choose another folder"
            raise refuse("out", str(path), f"holds a run already; {other}")

    @classmethod
    def create(cls, path: str | Path, overwrite: bool = False) -> RunFolder:
        """A folder for a new run, made where it is missing; what an older one left there goes, and nothing else."""
        cls.refuse_taken(path, overwrite)
        make_writable(Path(path))
        folder = cls(Path(path)).lock()
        # Its description last: killed on the way, the folder is still known as a run's.
        for entry in sorted(folder.path.glob("*"), key=lambda entry: entry.name == "run.json"):
            if _of_a_run(entry.name) and entry.name != "lock":
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        return folder

    @classmethod
    def open(cls, path: str | Path, lock: bool = True) -> RunFolder:
        """A run's folder, to go on with it. Without ``lock``: as a process whose group's first one has locked it."""
        path = Path(path)
        if not (path / "run.json").is_file():
            raise refuse("out", str(path), "there is no run to resume; leave --resume out to start one")
        if not os.access(path, os.W_OK):
            raise refuse("out", str(path), "cannot be written to; a run cannot be continued there")
        if not lock:
            return cls(path)
        folder = cls(path).lock()
        for left in path.glob(".step-*"):  # a checkpoint that was being written when the last process ended
            shutil.rmtree(left)
        return folder

    def write_description(self, description: dict) -> None:
        write_state(self.path / "run.json", description)

    def description(self) -> dict:
        return read_state(self.path / "run.json")

    def newest(self, say: Callable[[str], None] = say) -> Path | None:
        """The newest whole checkpoint, or None where none was ever written. Where ``latest`` is missing or names what is not
        there, it is the last that is there: a run never begins again while it has a checkpoint."""
        named = latest_checkpoint(self.path)
        if named and named.is_dir():
            return named
        there = self._checkpoints()
        for checkpoint in reversed(there):
            try:
                verify_checksums(checkpoint, must_be_listed=True)
            except MinidsError:
                continue
            what = f"names {named.name}, which is not there" if named else "is missing"
            say(f"{self.path / 'latest'} {what}: going on from {checkpoint.name}, the newest whole checkpoint")
            point_to(checkpoint)
            return checkpoint
        names = ", ".join(checkpoint.name for checkpoint in there) or (f"{named.name} is not there" if named else "")
        if names:
            raise MinidsError(f"{self.path}: holds no whole checkpoint ({names}); start another run in another folder")
        return None

    def before(self, checkpoint: Path) -> Path | None:
        there = self._checkpoints()
        return there[there.index(checkpoint) - 1] if checkpoint in there[1:] else None

    def _checkpoints(self) -> list[Path]:
        """By their steps, which have more digits than six from a million on."""
        there = [path for path in self.path.glob("step-*") if path.is_dir() and path.name[5:].isdecimal()]
        return sorted(there, key=lambda path: int(path.name[5:]))

    def write_checkpoint(self, step: int, write: Callable[[Path], None]) -> Path:
        """Let ``write`` fill a new folder, and make it the run's newest checkpoint once it is whole."""
        final = self.path / f"step-{step:06d}"
        unfinished = self.path / f".{final.name}"
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            unfinished.mkdir()
            write(unfinished)
            write_checksums(unfinished)
            sync_folder(unfinished)
            if final.exists():  # a resumed run passes a step again
                shutil.rmtree(final)
            os.replace(unfinished, final)
            sync_folder(self.path)
        except (MinidsError, OSError) as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            if isinstance(error, MinidsError):
                raise
            raise MinidsError(f"{final}: the checkpoint cannot be written: {error.strerror or error}") from None
        before = latest_checkpoint(self.path)
        point_to(final)
        for old in self.path.glob("step-*"):
            if old not in (final, before):
                shutil.rmtree(old)
        return final


def _of_a_run(name: str) -> bool:
    """Whether a run writes a file or folder of this name into its folder."""
    written = ("run.json", "metrics.jsonl", "latest", "lock", ".writable", "loss.png", "routing", "tensorboard")
    left = name.startswith(".") and name.endswith(".tmp") and name[1:].startswith(("run.json.", "latest."))  # by a kill
    return name in written or left or name.lstrip(".").startswith("step-")


def write_state(path: Path, value: dict) -> None:
    write(path, json.dumps(value, indent=2, allow_nan=False).encode() + b"\n")


def read_state(path: Path) -> dict:
    return read_json(path, 16 << 20)  # at most 16 MiB
