"""The house has floors, and an import only ever points down."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "minids"

# Rooms on one floor may use each other; training, checkpoint and inference are one floor.
FLOORS = [
    {"errors", "processor"},
    {"config", "presets"},
    {"ops"},
    {"kernels"},
    {"backend", "check"},
    {"layers"},
    {"model"},
    {"checkpoint", "training", "inference"},
    {"analysis", "studies", "mistakes", "mistakes_in_fp8"},
    {"figures", "bench", "lab"},
    {"commands", "notebook"},
    {"cli"},
]
OUTSIDE = {"__init__", "__main__", "pico", "equations"}
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0].removesuffix(".py") not in OUTSIDE)


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path):
    """Every module that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            if node.module == "minids":
                yield from (f"minids.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    here = room_of(path)
    assert here in LEVEL, f"{here} is on no floor"
    for module in imported(path):
        parts = module.split(".")
        if parts[0] != "minids" or len(parts) == 1 or parts[1] in OUTSIDE:
            continue
        if (here, parts[1]) == ("config", "presets"):
            continue  # ModelConfig.preset looks its table up when it is called
        assert LEVEL[parts[1]] <= LEVEL[here], f"{module} is above {here}"


@pytest.mark.parametrize("path", [p for p in FILES if room_of(p) == "ops"], ids=lambda path: path.name)
def test_operations_know_numpy_and_each_other_and_nothing_else(path):
    allowed = {"__future__", "collections", "math", "numpy", "typing"}
    for module in imported(path):
        assert module.split(".")[0] in allowed or module.startswith("minids.ops"), module


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_numba_is_met_in_the_kernels_alone_and_tyro_in_the_command_line(path):
    for module in imported(path):
        top = module.split(".")[0]
        assert top != "numba" or room_of(path) == "kernels"
        assert top != "tyro" or room_of(path) in ("cli", "commands")
        assert top not in ("torch", "transformers") or room_of(path) == "bench", module
        assert top not in ("pickle", "scipy"), module
