"""The builder is a script beside the notebooks, not a module of the package: loaded by its path."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def load_builder():
    spec = importlib.util.spec_from_file_location("build_notebooks", ROOT / "notebooks" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BUILDER = load_builder()


@pytest.fixture(scope="session")
def builder():
    return BUILDER


def pytest_generate_tests(metafunc):
    """Every test that takes ``source`` runs for every notebook."""
    if "source" in metafunc.fixturenames:
        metafunc.parametrize("source", BUILDER.sources(), ids=lambda path: path.stem)
