"""Redundant experts: the public example comes out exactly, every place is used, and no output changes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import TINY, assert_close, build

from minids import MinidsError
from minids.backend import op, replaced, use_backend
from minids.ops import grouped_feed_forward
from minids.parallel.eplb import dealt_out, given_places, packed, place, rows_per_gpu, served, spread

LOADS = [
    [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
    [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
]
RNG = np.random.default_rng(0)


def test_the_example_of_the_public_implementation_comes_out_exactly():
    """deepseek-ai/EPLB, README: two layers of 12 experts in 4 groups, 16 places on 8 GPUs of 2 nodes."""
    found = place(LOADS, 16, gpus=8, nodes=2, groups=4)
    assert found.policy == "hierarchical"
    assert found.experts.tolist() == [
        [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
        [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
    ]
    assert found.loads[0].tolist() == [82.5 + 39, 82.5 + 4, 73 + 52, 61 + 52, 91.5 + 56, 91.5 + 40, 90 + 66, 86 + 66]


def test_groups_stay_within_a_node_and_the_global_policy_is_more_even():
    both = {policy: place(LOADS, 16, 8, 2, 4, policy) for policy in ("hierarchical", "global")}
    for layer in both["hierarchical"].experts:
        nodes = [set((node // 3).tolist()) for node in layer.reshape(2, 8)]
        assert nodes[0] | nodes[1] == {0, 1, 2, 3} and not nodes[0] & nodes[1], "a group lies on two nodes"
    assert (both["global"].imbalance < both["hierarchical"].imbalance).all()


def test_nodes_that_do_not_divide_the_groups_take_the_global_policy():
    found = place(LOADS, 15, gpus=15, nodes=3, groups=4)
    assert found.policy == "global"
    assert found.experts.tolist() == place(LOADS, 15, gpus=15).experts.tolist()


def test_the_heaviest_item_goes_first_to_the_lightest_pack_with_room():
    assert packed([1, 9, 4, 5], 2).tolist() == [0, 0, 1, 1], "9, then 5 and 4 opposite, then no room there"
    assert packed([3, 3, 3, 3], 2).tolist() == [0, 1, 0, 1], "of equals the first"
    assert packed([1, 2, 3], 3).tolist() == [0, 1, 2], "one item each: their order stays"


def test_a_spare_place_goes_to_the_expert_whose_copies_have_most_to_do():
    assert given_places(np.array([8.0, 3, 1]), 6).tolist() == [0, 1, 2, 0, 0, 1], "8, then 4, then 3 against 8/3"


@settings(max_examples=40)
@given(st.lists(st.integers(0, 1000), min_size=8, max_size=8), st.integers(1, 3), st.sampled_from([1, 2, 4]))
def test_every_place_is_used_and_no_load_is_lost(loads, spare, nodes):
    found = place([loads], 8 + 4 * (spare - 1), 4, nodes, 4)
    (held,), (copies,) = found.experts, found.copies
    assert np.bincount(held, minlength=8).tolist() == copies.tolist() and (copies > 0).all()
    assert found.loads.sum() == pytest.approx(sum(loads))
    busiest = max(load / n for load, n in zip(loads, copies, strict=True))
    assert found.loads.max() >= busiest - 1e-9


def test_no_load_at_all_is_even():
    assert place(np.zeros((1, 4)), 8, 2).imbalance.tolist() == [1.0]


def test_rows_of_an_expert_go_to_its_copies_in_turn():
    held = np.array([1, 0, 1, 2, 1, 0])
    places = spread(np.array([[1, 2], [1, 0], [1, 0], [1, 0]]), held, 3)
    assert places.tolist() == [[0, 3], [2, 1], [4, 5], [0, 1]]
    assert rows_per_gpu(np.array([[1, 2], [1, 0], [1, 0], [1, 0]]), held, 2, 3).tolist() == [5, 3]


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_outputs_are_those_without_copies(backend):
    model = build(TINY.replace(num_nextn_predict_layers=0))
    layer = model.moe_layers[0]
    x = RNG.normal(size=(3, 40, TINY.hidden_size))
    with use_backend(backend):
        y, saved = layer.forward(x)
        load = saved.plan.counts[None]
        found = place(load, 12, gpus=4, nodes=2, groups=4)
        got = served(layer, x, found.experts[0], 4)
    assert_close(got.y, y, 1e-12, "what the layer gives with copies")
    assert got.rows.sum() == 3 * 40 * TINY.num_experts_per_tok
    assert np.abs(got.rows - found.loads[0]).max() <= 3, "copies share evenly, but for a row each"
    before = rows_per_gpu(saved.routing.chosen, dealt_out(8, 4), 4, 8)
    assert got.rows.max() < before.max(), f"{got.rows} is no more even than {before}"


def test_where_products_do_not_depend_on_the_number_of_rows_the_bits_are_the_same(monkeypatch):
    """BLAS takes other kernels for few rows, and then other last bits: so here every row is multiplied by itself."""

    def row_by_row(rows, starts, w_gate, w_up, w_down):
        expert = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        each = [original(row[None], np.array([0, 1]), w_gate[e : e + 1], w_up[e : e + 1], w_down[e : e + 1])[0]
                for row, e in zip(rows, expert, strict=True)]  # fmt: skip
        return np.concatenate(each), None

    original = grouped_feed_forward.forward
    layer = build(TINY.replace(num_nextn_predict_layers=0), dtype=np.float32).moe_layers[0]
    x = RNG.normal(size=(2, 9, TINY.hidden_size)).astype(np.float32)
    with use_backend("numpy"), replaced(op.grouped_feed_forward, forward=row_by_row):
        y, saved = layer.forward(x)
        held = place(saved.plan.counts[None], 16, gpus=4).experts[0]
        got = served(layer, x, held, 4).y
    assert np.array_equal(got, y), f"differ by up to {np.abs(got - y).max():.2g}"


def test_a_run_without_rows_for_some_gpus_is_served():
    layer = build(TINY.replace(num_nextn_predict_layers=0)).moe_layers[0]
    x = RNG.normal(size=(1, 1, TINY.hidden_size))
    got = served(layer, x, np.arange(8), 8)
    assert_close(got.y, layer.forward(x)[0])
    assert got.rows.sum() == 3 and got.rows.min() == 0


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (dict(gpus=5), "gpus = 5: must be the same number on each of 2 nodes"),
        (dict(gpus=6), "places = 16: must be the same number on each of 6 GPUs"),
        (dict(places=8), "places = 8: 12 experts need one each"),
        (dict(groups=5), "groups = 5: must divide 12 experts evenly"),
        (dict(groups=3, policy="hierarchical"), "policy = 'hierarchical': 3 groups cannot be divided among 2 nodes"),
        (dict(policy="local"), "policy = 'local': must be one of hierarchical, global"),
        (dict(nodes=0), "nodes = 0: must be a whole number of at least 1"),
        (dict(loads=[1, 2]), "loads = 'of shape (2,)': must be numbers of shape (layers, experts)"),
        (dict(loads=[[1] * 11 + [-2]]), "loads = -2.0: a load is a finite number of at least 0"),
        (dict(loads=[[1] * 11 + [np.nan]]), "loads = nan: a load is a finite number of at least 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_placed_is_refused_in_a_line(changes, line):
    with pytest.raises(MinidsError) as refused:
        place(**dict(loads=LOADS, places=16, gpus=8, nodes=2, groups=4) | changes)
    assert str(refused.value).startswith(line)


def test_an_expert_without_a_place_is_named():
    with pytest.raises(MinidsError, match="no place for expert 3, which a token chose"):
        spread(np.array([[0, 3]]), np.array([0, 1, 2, 0]), 4)
    with pytest.raises(MinidsError, match="gpus = 3: must divide 16 experts evenly"):
        dealt_out(16, 3)
    with pytest.raises(MinidsError, match="packs = 2: must divide 3 items evenly"):
        packed([1, 2, 3], 2)
