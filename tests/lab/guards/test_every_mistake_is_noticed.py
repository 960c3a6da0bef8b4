"""For each known mistake: with it, a named test of this suite fails; without it, the test passes."""

import importlib.util
import inspect
from pathlib import Path

import pytest
from guard_table import GUARDS

from minids.checkpoint import model_folder
from minids.inference import speculative
from minids.inference.cache import LatentCache
from minids.lab import mistakes
from minids.lab.mistakes import IN_GENERATION, MISTAKES, made
from minids.lab.mistakes.fp8 import IN_FP8
from minids.lab.mistakes.policy import IN_POLICY
from minids.layers.fp8 import Fp8Linear
from minids.layers.mla import MLA
from minids.layers.moe import MoE
from minids.layers.mtp import MTPModule
from minids.model import DeepSeekV3
from minids.ops import (
    attention,
    balance_loss,
    bias_update,
    float8,
    fp8_accumulation,
    fp8_linear,
    policy_loss,
    quantise,
    rope,
    router,
    yarn,
)
from minids.ops.fp8_linear import Scheme
from minids.training import preferences, process_group, reward_model
from minids.training.batches import Batches

TESTS = Path(__file__).resolve().parent.parent.parent
OWNERS = (attention, balance_loss, bias_update, rope, router, yarn, MLA, MoE, MTPModule, DeepSeekV3, Batches, model_folder)
OWNERS += (speculative, LatentCache)
OWNERS += (policy_loss, process_group, preferences, reward_model)
OWNERS += (float8, quantise, fp8_linear, fp8_accumulation, Scheme, Fp8Linear)
ALL = [*MISTAKES, *IN_GENERATION, *IN_FP8, *IN_POLICY]


def named_test(node: str):
    """The test function that pytest calls ``node``, from a fresh copy of its file, so that its random numbers start anew."""
    file, _, name = node.partition("::")
    spec = importlib.util.spec_from_file_location(f"guarded_{Path(file).stem}", TESTS / file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.mistake.__name__)
def test_the_named_test_fails_with_the_mistake_and_passes_without(guard, tmp_path_factory):
    def run():
        test = named_test(guard.test)
        folder = {"tmp_path": tmp_path_factory.mktemp("run")} if "tmp_path" in inspect.signature(test).parameters else {}
        test(*guard.arguments, **folder)

    run()
    with made(guard.mistake), pytest.raises(AssertionError):
        run()
    run()


def test_every_mistake_has_its_guard():
    assert [guard.mistake for guard in GUARDS] == ALL


def test_a_mistake_that_was_made_is_undone():
    for mistake in ALL:
        before = [dict(vars(owner)) for owner in OWNERS]
        with made(mistake):
            assert [dict(vars(owner)) for owner in OWNERS] != before, f"{mistake.__name__} changes nothing"
        assert [dict(vars(owner)) for owner in OWNERS] == before, f"{mistake.__name__} stays"


def test_every_mistake_says_what_it_does_wrong():
    for mistake in ALL:
        assert mistake.__doc__.strip().endswith((".", ")")), f"{mistake.__name__} has no sentence"
    assert len(set(ALL)) == len(ALL)


def test_the_mistakes_know_nothing_of_the_tests():
    """They are shipped with the package; which test notices one is this folder's business."""
    for path in Path(mistakes.__file__).parent.glob("*.py"):
        assert "test_" not in path.read_text(encoding="utf-8"), path.name
