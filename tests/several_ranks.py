"""Run a function of a test module on several processes: ``on_ranks(4, function, …)``, or this file as their program."""

import importlib.util
import inspect
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE, BIN = Path(__file__).parent, Path(sys.executable).parent
SECONDS = 120  # after which ranks that wait for each other for ever are ended


def environment() -> dict[str, str]:
    """Of this process, without what an mpiexec around it would have left; one thread for each library."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PMI_", "PMIX_", "OMPI_", "MPI_"))}
    path = os.pathsep.join((str(HERE.parent), str(HERE)))
    return ours | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


def mpiexec(ranks: int, *command: str, seconds: float = SECONDS, **settings) -> subprocess.CompletedProcess:
    """``mpiexec -n RANKS python COMMAND``, with what it printed."""
    line = [str(BIN / "mpiexec"), "-n", str(ranks), sys.executable, *command]
    settings = {"env": environment(), "stdin": subprocess.DEVNULL, **settings}
    return subprocess.run(line, capture_output=True, text=True, timeout=seconds, **settings)


def on_ranks(ranks: int, function, *arguments) -> list:
    """What ``function(*arguments)``, of a test module, returns on each rank. Both are put into JSON."""
    with tempfile.TemporaryDirectory() as folder:
        what = inspect.getsourcefile(function), function.__name__, json.dumps(arguments), folder
        done = mpiexec(ranks, str(Path(__file__)), *what)
        assert done.returncode == 0, f"on {ranks} ranks: {done.stdout}\n{done.stderr}"
        found = [Path(folder) / f"{rank}.json" for rank in range(ranks)]
        return [json.loads(path.read_text(encoding="utf-8")) for path in found]


def program(source: str, name: str, arguments: str, folder: str) -> None:
    from minids.parallel.mpi import world

    spec = importlib.util.spec_from_file_location("program", source)
    module = importlib.util.module_from_spec(spec)
    sys.modules["program"] = module
    spec.loader.exec_module(module)
    result = getattr(module, name)(*json.loads(arguments))
    (Path(folder) / f"{world().rank}.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    program(*sys.argv[1:])
