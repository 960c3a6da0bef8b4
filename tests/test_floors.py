"""The house has floors, and an import only ever points down."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "minids"

# Ground first. Rooms on one floor do not know each other.
FLOORS = [
    {"terminal"},
    {"errors", "heap", "processor", "words", "caches"},
    {"files", "blas", "arguments", "other_names"},
    {"config"},
    {"ops"},
    {"kernels"},
    {"backend", "check"},
    {"layers"},
    {"model_checks"},
    {"model"},
    {"checkpoint"},
    {"inference"},
    {"training"},
    {"parallel"},
    {"lab"},
    {"commands"},
    {"cli"},
]
# Within the lab likewise.
LAB = [
    {"equations"},
    {"analysis"},
    {"mistakes", "studies"},
    {"bench", "sections"},
    {"figures", "page"},
    {"notebook"},
    {"lessons"},
    {"plots"},
    {"commands"},
]
OUTSIDE = {"__init__", "__main__", "pico"}
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
CORNERS = {corner: level for level, corners in enumerate(LAB) for corner in corners}
FILES = sorted(path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0].removesuffix(".py") not in OUTSIDE)


def room_of(module: str) -> tuple[str, str]:
    """minids.lab.figures.style → ("lab", "figures"); minids.training.loop → ("training", "")."""
    parts = [*module.split(".")[1:], ""]
    return parts[0], parts[1] if parts[0] == "lab" else ""


def module_of(path: Path) -> str:
    return ".".join(("minids", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


def imported(path: Path):
    """Every module that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            if node.module in ("minids", "minids.lab"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    (room, corner) = here = room_of(module_of(path))
    assert room in LEVEL, f"{room} is on no floor"
    for module in imported(path):
        there = room_of(module)
        if not module.startswith("minids.") or there[0] in OUTSIDE or there == here:
            continue
        if there[0] == room == "lab":
            if corner and there[1] in CORNERS:  # lab/__init__.py opens doors only when they are asked for
                assert CORNERS[there[1]] < CORNERS[corner], f"{module} is not below minids.lab.{corner}"
        elif there[0] in LEVEL:
            assert LEVEL[there[0]] < LEVEL[room], f"{module} is not below {room}"


@pytest.mark.parametrize("path", [p for p in FILES if room_of(module_of(p))[0] == "ops"], ids=lambda path: path.name)
def test_operations_know_numpy_and_each_other_and_nothing_else(path):
    allowed = {"__future__", "collections", "math", "numpy", "types", "typing"}
    for module in imported(path):
        assert module.split(".")[0] in allowed or module.startswith("minids.ops"), module


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_numba_is_met_in_the_kernels_alone_and_matplotlib_in_the_lab(path):
    room, corner = room_of(module_of(path))
    for module in imported(path):
        top = module.split(".")[0]
        assert top != "numba" or room == "kernels"
        assert top not in ("matplotlib", "PIL") or room == "lab"
        assert top not in ("torch", "transformers") or corner == "bench", module
        assert top not in ("pickle", "scipy"), module
        assert top != "mpi4py" or path.name == "mpi.py", module


def test_no_model_that_a_test_or_a_run_has_left_lies_at_the_top():
    left = [path.name for path in ROOT.parent.iterdir() if path.suffix in (".safetensors", ".json")]
    assert not left, f"{sorted(left)}: a model's files in the project's own folder"
