"""Where it must work too: no home folder, one core, no Numba, an installation nobody can write to."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import write_text

import minids

pytestmark = pytest.mark.slow
PACKAGE = Path(minids.__file__).parent
OPTIONS = shlex.split(
    "--steps 3 --batch-size 2 --context-length 16 --eval-every 3 --eval-tokens 64 --sample-every 0 --log-every 1 "
    "--model.num-hidden-layers 2 --model.hidden-size 16 --model.moe-intermediate-size 8"
)

NO_NUMBA = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("numba", "llvmlite"):
            raise ModuleNotFoundError(f"No module named {name!r}")
sys.meta_path.insert(0, Refuse())
"""


def train(tmp_path: Path, before: str = "", environment: dict | None = None) -> str:
    code = before + "\nimport sys\nfrom minids.cli import main\nsys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "train", "--data", *write_text(tmp_path), "--out", str(tmp_path / "run"), *OPTIONS]
    env = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), **(environment or {})}
    env = {name: value for name, value in env.items() if value is not None}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    minids.load(tmp_path / "run")
    return done.stdout


def test_without_a_home_folder(tmp_path):
    nobody = "import pwd; pwd.getpwuid = lambda number: {}[number]"  # else the home is read from the list of users
    train(tmp_path, before=nobody, environment={"HOME": None, "XDG_CACHE_HOME": None, "USERPROFILE": None})


def test_with_a_home_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "not a folder").write_text("")
    train(tmp_path, environment={"HOME": str(tmp_path / "not a folder"), "XDG_CACHE_HOME": None})


def test_on_one_core(tmp_path):
    bind = "import os; hasattr(os, 'sched_setaffinity') and os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    train(tmp_path, before=bind)


def test_with_the_numpy_backend(tmp_path):
    said = train(tmp_path, environment={"MINIDS_BACKEND": "numpy"})
    assert "Compiling" not in said


def test_without_numba(tmp_path):
    said = train(tmp_path, before=NO_NUMBA)
    assert "Compiling" not in said


def test_from_an_installation_that_cannot_be_written(tmp_path):
    """The package as a zip of plain files would be: nothing may be written beside it."""
    home = tmp_path / "installed"
    shutil.copytree(PACKAGE, home / "minids", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (home, *home.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*")}
    environment = {"PYTHONPATH": str(home), "PYTHONDONTWRITEBYTECODE": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    try:
        train(tmp_path, environment=environment)
        assert {path: path.stat().st_mtime_ns for path in home.rglob("*")} == before, "something was written beside the package"
    finally:
        for path in (home, *home.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
