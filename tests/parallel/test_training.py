"""Training on several ranks is training on one: losses, weights, moments, checkpoints."""

import json
from pathlib import Path

import numpy as np
import pytest
from several_ranks import on_ranks
from small_run import MODEL

from minids.config import ParallelConfig, TrainConfig
from minids.model import DeepSeekV3
from minids.parallel.group import process_group
from minids.training.loop import training_steps

pytestmark = pytest.mark.parallel

TRAIN = TrainConfig(steps=50, batch_size=4, context_length=12, learning_rate=3e-3, warmup_steps=5)


class Given:
    """The same batches on all ranks."""

    def __init__(self, sequences: list[int], vocabulary: int):
        self.rng, self.sequences, self.made, self.vocabulary = np.random.default_rng(5), sequences, 0, vocabulary

    def next(self):
        count = self.sequences[self.made % len(self.sequences)]
        self.made += 1
        rows = self.rng.integers(0, self.vocabulary, (count, TRAIN.context_length + 1))
        return rows[:, :-1], rows[:, 1:]


def trained(
    where: str,
    parallel: dict,
    train: dict,
    model: dict,
    dtype: str = "float64",
    sequences: list[int] = (4,),
    favoured: int = 0,
) -> dict:
    """Losses, norms and loads of every step; all weights, biases and moments go to the file ``where``, as of one process.
    ``favoured``: the number of experts, the first ones, that are chosen before all others."""
    group = process_group(ParallelConfig(**parallel))
    config = MODEL.replace(vocab_size=32, bos_token_id=None, eos_token_id=None, **model)
    settings = TRAIN.replace(**train)
    group.check(config, settings)
    whole = DeepSeekV3(config, seed=3, dtype=dtype)
    for bias in whole.parameters.buffers.values():
        bias[:favoured] = 10
    mine = group.parted(whole)
    optimizer = group.optimizer(mine.parameters, settings)
    lines = []
    with group.workers(mine, settings.workers or 1) as workers:
        for done in training_steps(mine, optimizer, Given(list(sequences), 32), settings, workers):
            each, loads = done.losses, np.zeros((len(mine.moe_layers), config.n_routed_experts))
            loads[: len(each.counts)] = each.counts  # MTP modules that rest have no loads and no losses
            modules = each.mtp or (0.0,) * len(mine.mtp)
            lines.append([each.total, each.main, each.balance, *modules, done.norm, *loads.reshape(-1)])
    moments = optimizer.state()
    with group.whole(mine) as model:
        arrays = {p.name: p.value for p in model.parameters} | model.parameters.buffers
        if group.first:
            np.savez(where, **arrays, m=moments["m"], v=moments["v"])
    kept = {"moments": optimizer.m.nbytes + optimizer.v.nbytes, "weights": mine.parameters.values.nbytes}
    return {"lines": lines if group.first else None, **kept}


def both(tmp_path: Path, ranks: int, parallel: dict, train: dict | None = None, model: dict | None = None, alone=None, **how):
    """(one process, several): what each did, and its arrays. ``alone``: settings that only the single process has."""
    found = []
    for n, its, settings in ((1, {}, (train or {}) | (alone or {})), (ranks, parallel, train or {})):
        where = str(tmp_path / f"{n}-{len(found)}.npz")
        arguments = where, its, settings, model or {}, *how.values()
        each = on_ranks(n, trained, *arguments) if n > 1 else [trained(*arguments)]
        with np.load(where) as arrays:
            found.append((np.array(each[0]["lines"]), {name: arrays[name] for name in arrays.files}, each))
    return found


def assert_same(one, several, tolerance: float, scale: float = 1e-9) -> None:
    """Equal to the bit for tolerance 0; else relative to the largest number of an array, or to ``scale`` if that is more."""
    named = [("losses", one[0], several[0]), *((name, one[1][name], several[1][name]) for name in one[1])]
    for name, a, b in named:
        assert a.shape == b.shape, name
        off = float(np.max(np.abs(a - b), initial=0)) / max(float(np.max(np.abs(a), initial=0)), scale)
        assert off <= tolerance, f"{name} differs by {off:.2g}, more than {tolerance:g}"


@pytest.mark.parametrize(("ranks", "workers"), [(4, 1), (2, 2), (3, 1)])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_data_parallel_with_zero_1_has_the_bits_of_as_many_threads(tmp_path, ranks, workers, optimizer):
    train = {"workers": workers, "optimizer": optimizer, "steps": 20}
    one, several = both(tmp_path, ranks, {}, train, alone={"workers": ranks * workers}, dtype="float32")
    assert_same(one, several, 0)


def test_fifty_steps_of_four_ranks_have_the_bits_of_four_threads(tmp_path):
    one, several = both(tmp_path, 4, {}, {"workers": 1}, alone={"workers": 4}, dtype="float32")
    assert_same(one, several, 0)


def test_zero_1_and_whole_moments_have_the_same_bits_and_other_sizes(tmp_path):
    train, kept = {"steps": 10}, {}
    for zero in (True, False):
        where = str(tmp_path / f"{zero}.npz")
        kept[zero] = on_ranks(4, trained, where, {"zero_1": zero}, train, {}, "float32")
    with np.load(tmp_path / "True.npz") as a, np.load(tmp_path / "False.npz") as b:
        assert all(np.array_equal(a[name], b[name]) for name in a.files)
    whole = kept[False][0]["moments"]
    assert [each["moments"] for each in kept[False]] == [whole] * 4
    assert sum(each["moments"] for each in kept[True]) == whole
    assert all(abs(each["moments"] - whole / 4) <= 16 for each in kept[True]), "moments are not a quarter each"


def test_micro_batches_that_add_up_and_batches_smaller_than_the_ranks(tmp_path):
    train = {"gradient_accumulation_steps": 2, "steps": 8}
    one, several = both(tmp_path, 4, {}, train, {}, {"workers": 4}, dtype="float32", sequences=[2, 2, 5, 5, 1, 1])
    assert_same(one, several, 0)


EXPERTS = {
    "two ranks": (2, {"expert_parallel": 2}),
    "three ranks, experts dealt unevenly": (3, {"expert_parallel": 3}),
    "four ranks": (4, {"expert_parallel": 4}),
    "two replicas of two": (4, {"expert_parallel": 2, "data_parallel": 2}),
    "two nodes of two, two hops": (4, {"expert_parallel": 4, "ranks_per_node": 2}),
    "one node of four": (4, {"expert_parallel": 4, "ranks_per_node": 4}),
}


@pytest.mark.parametrize("layout", EXPERTS)
def test_fifty_steps_of_expert_parallelism_are_those_of_one_process(tmp_path, layout):
    one, several = both(tmp_path, *EXPERTS[layout])
    assert_same(one, several, 1e-12)
    parts = [each["weights"] for each in several[2]]
    assert max(parts) < one[2][0]["weights"], "a rank holds all experts"


@pytest.mark.parametrize(
    "train",
    [
        {"optimizer": "muon"},
        {"gradient_accumulation_steps": 2},
        {"qk_clip": 0.05},
        {"clip_norm": 0.0},
        {"mtp_from": 0.5},
    ],
    ids=json.dumps,
)
def test_expert_parallelism_with_other_settings(tmp_path, train):
    one, several = both(tmp_path, 4, EXPERTS["two replicas of two"][1], train | {"steps": 10})
    assert_same(one, several, 1e-11)


def test_expert_parallelism_in_float32(tmp_path):
    one, several = both(tmp_path, 4, EXPERTS["two nodes of two, two hops"][1], {"steps": 50}, {}, {}, dtype="float32")
    assert_same(one, several, 1e-6, scale=1.0)


def test_a_rank_without_a_sequence_serves_the_others(tmp_path):
    train = {"gradient_accumulation_steps": 2, "steps": 8, "mtp_from": 0.3}
    sequences = {"dtype": "float64", "sequences": [2, 2, 4, 4, 1, 1]}
    for name in ("four ranks", "two replicas of two"):
        one, several = both(tmp_path, *EXPERTS[name], train, {}, {}, **sequences)
        assert_same(one, several, 1e-12)


def test_ranks_whose_experts_no_token_chooses(tmp_path):
    """Of sixteen experts the first five alone are chosen: two ranks of four have nothing to do, and one has one busy expert."""
    model = {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "balance": "none"}
    how = {"dtype": "float64", "sequences": [4], "favoured": 5}
    for layout in ("four ranks", "two nodes of two, two hops"):
        one, several = both(tmp_path, *EXPERTS[layout], {"steps": 20}, model, {}, **how)
        assert_same(one, several, 1e-12)
        assert several[0][:, -16:-11].all() and not several[0][:, -11:].any(), "other experts were chosen"
