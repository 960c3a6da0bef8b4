"""For each known mistake: with it, a named test of this suite fails; without it, the test passes."""

import importlib.util
import inspect
from pathlib import Path

import pytest

from minids.checkpoint import model_folder
from minids.inference import speculative
from minids.inference.cache import LatentCache
from minids.lab.mistakes import IN_GENERATION, MISTAKES, made
from minids.lab.mistakes.fp8 import IN_FP8
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
    quantise,
    rope,
    router,
    yarn,
)
from minids.ops.fp8_linear import Recipe
from minids.training.batches import Batches

TESTS = Path(__file__).resolve().parent.parent.parent
OWNERS = (attention, balance_loss, bias_update, rope, router, yarn, MLA, MoE, MTPModule, DeepSeekV3, Batches, model_folder)
OWNERS += (speculative, LatentCache)
OWNERS += (float8, quantise, fp8_linear, fp8_accumulation, Recipe, Fp8Linear)
ALL = [*MISTAKES, *IN_GENERATION, *IN_FP8]


def named_test(node: str):
    """The test function that pytest calls ``node``, from a fresh copy of its file, so that its random numbers start anew."""
    file, _, name = node.partition("::")
    spec = importlib.util.spec_from_file_location(f"guarded_{Path(file).stem}", TESTS / file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


@pytest.mark.parametrize("mistake", ALL, ids=lambda m: m.put_in.__name__)
def test_the_named_test_fails_with_the_mistake_and_passes_without(mistake, monkeypatch, tmp_path_factory):
    def run():
        test = named_test(mistake.noticed_by)
        folder = {"tmp_path": tmp_path_factory.mktemp("run")} if "tmp_path" in inspect.signature(test).parameters else {}
        test(*mistake.arguments, **folder)

    run()
    with monkeypatch.context() as patch:
        mistake.put_in(patch)
        with pytest.raises(AssertionError):
            run()
    run()


def test_a_mistake_that_was_made_is_undone():
    for mistake in ALL:
        before = [dict(vars(owner)) for owner in OWNERS]
        with made(mistake.put_in):
            assert [dict(vars(owner)) for owner in OWNERS] != before, f"{mistake.put_in.__name__} changes nothing"
        assert [dict(vars(owner)) for owner in OWNERS] == before, f"{mistake.put_in.__name__} stays"


def test_every_mistake_says_what_it_does_wrong():
    for mistake in ALL:
        assert mistake.put_in.__doc__.strip().endswith((".", ")")), f"{mistake.put_in.__name__} has no sentence"
    assert len({m.put_in for m in ALL}) == len(ALL)
