"""Puts random small mistakes into the package, one at a time, and tells which of them the tests do not notice.

    python tests/mutants --out FOLDER --rooms ops kernels/rope.py model.py --count 100 --seed 1

The working tree is never touched: all happens in a copy of it within ``--out``. The first run there measures with ``coverage``
which test runs which line (as long as the suite takes, twice). Then each mutant meets the tests that run its line, the mirrored
file's first, until one fails or ``--seconds`` of tests are spent. One line of JSON per mutant goes to ``results.jsonl``; a
second call goes on where the first ended. ``--again`` tries the survivors of an earlier call against the tests of today.

Needs ``fork``: Linux or macOS. Why no ready tool: mutmut wraps every function, and Numba cannot compile the wrapper; cosmic-ray
changes the working tree and knows no dropped terms; mutatest has had no release for years.
"""

from __future__ import annotations

import argparse
import ast
import gc
import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from mutations import Mutant, sample
from which_tests import Measured, Watch, users

ROOMS = (
    "ops kernels layers model.py inference training/optimizer.py training/schedule.py training/batches.py checkpoint/names.py "
    "lab/analysis"
)
MEMORY = 4 << 30  # bytes that a mutant may ask for: a wrong size is to fail in this process, not in a neighbour
PYTEST = ["-x", "-q", "-p", "no:cacheprovider", "--no-header", "--tb=line", "--assert=plain"]  # and no plugins: half the time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the copy of the tree and the results")
    parser.add_argument("--rooms", nargs="+", default=ROOMS.split(), help="files or folders below minids/")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60, help="of tests that one mutant may cost (as measured unchanged)")
    parser.add_argument(
        "--tests", nargs="+", default=[], help="measure these files or folders only; with --again: begin with them"
    )
    parser.add_argument("--again", action="store_true", help="only those that survived before")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    tree = copied(Path(__file__).resolve().parents[2], out / "tree")
    prepare(out, tree)
    if not (out / "lines.json").exists():
        status = in_child(lambda: watched(tree, out / "lines.json", arguments.tests), out / "coverage.log", 7200)
        if not (out / "lines.json").exists():
            sys.exit(f"measuring which test runs which line ended with {status}: see {out / 'coverage.log'}")
    tests = Measured(tree, out / "lines.json")
    results = out / "results.jsonl"
    known = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    known = {row["name"]: row for row in known}  # the last word on each
    if arguments.again:
        survived = [row for row in known.values() if row["outcome"] == "survived"]
        todo = [
            mutant
            for row in survived
            if (mutant := Mutant(*row["mutant"])).diff((tree / mutant.path).read_bytes()) == row["diff"]
        ]
        print(f"{len(survived)} survived before; {len(survived) - len(todo)} of them stood in lines that have changed since")
    else:
        files = [
            file.relative_to(tree).as_posix()
            for room in arguments.rooms
            for file in ([tree / "minids" / room] if room.endswith(".py") else (tree / "minids" / room).rglob("*.py"))
        ]
        todo = [mutant for mutant in sample(tree, files, arguments.count, arguments.seed) if mutant.name not in known]
    for index, mutant in enumerate(todo):
        source = (tree / mutant.path).read_bytes()
        batches, left = tests.of_line(mutant.path, mutant.line, arguments.seconds)
        if arguments.again and arguments.tests:  # may be newer than what was measured
            batches.insert(0, arguments.tests)
        row = {"name": mutant.name, "mutant": mutant, "not run": left, **tried(mutant, batches, tests, out, tree)}
        row["diff"] = mutant.diff(source)
        known[mutant.name] = row
        with results.open("a") as file:
            print(json.dumps(row), file=file)
        print(f"{index + 1} of {len(todo)}: {mutant.path}:{mutant.line} {row['outcome']}, {row['seconds']:.0f} s", flush=True)
        if row["outcome"] == "survived":
            print(row["diff"], flush=True)
    survivors = sum(row["outcome"] == "survived" for row in known.values())
    print(f"{len(known)} mutants, {survivors} not noticed; all in {results}")


def copied(root: Path, tree: Path) -> Path:
    """The files that git knows or would add, as they lie in the working tree, with their times; others are removed."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=root, check=True, capture_output=True
    ).stdout.decode()
    names = {name for name in names.split("\0") if name and (root / name).is_file()}
    for file in tree.rglob("*"):
        if file.is_file() and file.suffix != ".pyc" and file.relative_to(tree).as_posix() not in names:
            file.unlink()
    for name in names:
        if not (tree / name).exists() or (tree / name).read_bytes() != (root / name).read_bytes():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, tree / name)
    return tree


def prepare(out: Path, tree: Path) -> None:
    """This process becomes what every test run is forked from: what they all import is imported, but nothing of the package."""
    os.chdir(tree)
    os.environ |= {
        "PYTHONPATH": str(tree),
        "NUMBA_CACHE_DIR": str(out / "kernels"),
        "XDG_CACHE_HOME": str(out / "cache"),
        "OPENBLAS_NUM_THREADS": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    sys.path[:1] = [str(tree), str(tree / "tests")]
    sys.pycache_prefix = None
    for name in ("numpy", "numba", "pytest", "hypothesis", "ml_dtypes", "safetensors", "tokenizers", "matplotlib.pyplot"):
        importlib.import_module(name)
    gc.freeze()  # pytest collects garbage at its end, twice: not all of this every time


def in_child(work, log: Path, seconds: float) -> int:
    """``work()`` in a fork of this process, its words in ``log`` → its status; −9 if it had to be stopped."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.setsid()
        written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(written, 1), os.dup2(written, 2)
        status = 70
        try:
            status = int(work())
        finally:
            os._exit(status)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -9


def watched(tree: Path, file: Path, paths: list[str]) -> int:
    import pytest

    watch = Watch(tree)
    status = pytest.main([*(argument for argument in PYTEST if argument != "-x"), *paths], plugins=[watch])
    watch.write(file)
    return status


def to_compile(mutant: Mutant, source: bytes, tree: Path) -> set[str]:
    """The modules whose kernels are others with this mutant: of what stands in ``ops``, constants alone are compiled in."""
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    within = any(function.lineno <= mutant.line <= (function.end_lineno or 0) for function in functions)
    if within and not mutant.path.startswith("minids/kernels/"):
        return set()
    return {Path(path).stem for path in users(tree, mutant.path)}


def tried(mutant: Mutant, batches: list[list[str]], tests: Measured, out: Path, tree: Path) -> dict:
    """Put the mutant in, run tests until one fails, take it out again."""
    file, began = tree / mutant.path, time.monotonic()
    source, times = file.read_bytes(), file.stat()
    result: dict = {"outcome": "survived", "tests": 0}
    changed = to_compile(mutant, source, tree)
    kernels = out / f"kernels-{mutant.name}"
    try:
        file.write_bytes(mutant.applied(source))
        os.utime(file, (times.st_atime + 1e6, times.st_mtime + int(mutant.name[:6], 16)))  # old byte code looks at the time
        for names in batches:
            limit = 40 + 10 * sum(tests.seconds.get(name, 20) for name in names)
            status = in_child(lambda names=names: run(names, changed, out, kernels), out / "tests.log", limit)
            result["tests"] += len(names)
            if status != 0:
                words = [line for line in (out / "tests.log").read_text(errors="replace").splitlines() if "FAILED" in line]
                result |= {"outcome": "noticed", "by": words[-1] if words else f"status {status}"}
                break
    finally:
        file.write_bytes(source)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        shutil.rmtree(kernels, ignore_errors=True)
    return {**result, "seconds": round(time.monotonic() - began, 1)}


def run(names: list[str], changed: set[str], out: Path, kernels: Path) -> int:
    """The tests, in this process. Kernels of modules that have not ``changed`` are taken as compiled before."""
    import pytest

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.environ["NUMBA_CACHE_DIR"] = str(kernels)
    jit = importlib.import_module("minids.kernels._jit")
    for compiled in (out / "kernels").rglob("*.nb?"):
        if compiled.name.partition(".")[0] not in changed and jit.CACHE_FOLDER is not None:
            target = jit.CACHE_FOLDER / compiled.parent.name / compiled.name
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                os.link(compiled, target)
    return pytest.main([*PYTEST, *names])


if __name__ == "__main__":
    main()
