"""For each known mistake: with it, a named test of this suite fails; without it, the test passes."""

import importlib.util
from pathlib import Path

import pytest
from mistakes import MISTAKES

TESTS = Path(__file__).resolve().parent.parent


def named_test(node: str):
    """The test function that pytest calls ``node``, from a fresh copy of its file, so that its random numbers start anew."""
    file, _, name = node.partition("::")
    spec = importlib.util.spec_from_file_location(f"guarded_{Path(file).stem}", TESTS / file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: m.put_in.__name__)
def test_the_named_test_fails_with_the_mistake_and_passes_without(mistake, monkeypatch):
    named_test(mistake.noticed_by)(*mistake.arguments)
    with monkeypatch.context() as patch:
        mistake.put_in(patch)
        with pytest.raises(AssertionError):
            named_test(mistake.noticed_by)(*mistake.arguments)
    named_test(mistake.noticed_by)(*mistake.arguments)


def test_every_mistake_says_what_it_does_wrong():
    for mistake in MISTAKES:
        assert mistake.put_in.__doc__.strip().endswith((".", ")")), f"{mistake.put_in.__name__} has no sentence"
    assert len({m.put_in for m in MISTAKES}) == len(MISTAKES)
