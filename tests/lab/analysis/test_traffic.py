"""The all-to-all meter: bytes by hand, V3's own arithmetic, and what a limit on nodes does to a model."""

import numpy as np
import pytest
import support

from minids.checkpoint.model_folder import save
from minids.checkpoint.streaming import load_streamed
from minids.errors import MinidsError
from minids.lab.analysis.network import experts_per_node
from minids.lab.analysis.routing import nodes_touched
from minids.lab.analysis.routing_trace import trace
from minids.lab.analysis.traffic import against_limit, limited_to, meter, of_model
from minids.model import DeepSeekV3

RNG = np.random.default_rng(0)


def test_bytes_by_hand():
    """Two tokens of width 256 on 4 nodes of 2 experts: one needs 1 node, the other 3."""
    found = meter(np.array([[0, 1, 1], [0, 2, 7]]), experts=8, nodes=4, hidden_size=256)
    assert found.nodes == 2 and found.experts_per_node == pytest.approx((3 / 1 + 3 / 3) / 2)
    assert found.dispatch_bytes == 2 * (256 + 2 * 4), "a byte each, and a float32 scale for each 128"
    assert found.combine_bytes == 2 * 2 * 256
    assert found.bytes == found.dispatch_bytes + found.combine_bytes
    assert found.infiniband_seconds == pytest.approx(found.bytes / 50e9)
    assert found.nvlink_seconds == pytest.approx(3 * (264 + 512) / 160e9)


def test_the_node_where_a_token_lies_is_not_crossed_to():
    chosen = np.array([[0, 2], [4, 5]])
    assert meter(chosen, 8, 4, 128, home=np.array([0, 0])).nodes == pytest.approx((1 + 1) / 2)
    assert meter(chosen, 8, 4, 128, home=np.array([3, 2])).nodes == pytest.approx((2 + 0) / 2)


def test_v3s_own_numbers():
    """8 of 256 experts, 8 nodes, at most 4, d = 7168: random scores touch 5.3 nodes without the limit, and 4 with it."""
    found = {f.limit: f.traffic for f in against_limit(RNG.random((4000, 256)), 8, 8, 7168)}
    assert list(found) == list(range(1, 9))
    # Without a limit: each node is missed by all 8 with C(224, 8) / C(256, 8).
    missed = np.prod([(224 - i) / (256 - i) for i in range(8)])
    assert found[8].nodes == pytest.approx(8 * (1 - missed), rel=0.01)
    assert found[4].nodes == pytest.approx(4, rel=0.02) and found[4].nodes <= 4
    assert found[4].dispatch_bytes / found[4].nodes == 7168 + 4 * 56
    assert found[4].bytes < 0.78 * found[8].bytes


def test_nvlink_and_infiniband_take_as_long_at_3_2_experts_per_node():
    """One node, n experts: NVLink is the faster up to n = 3, and the slower from n = 4 on."""
    three, four = (meter(np.arange(n)[None], 32, 1, 7168) for n in (3, 4))
    assert three.nvlink_seconds < three.infiniband_seconds and four.nvlink_seconds > four.infiniband_seconds
    assert three.nvlink_seconds / three.infiniband_seconds == pytest.approx(3 / experts_per_node())


def test_limits_without_room_for_all_experts_are_left_out():
    assert [f.limit for f in against_limit(RNG.random((9, 8)), 3, 4, 16)] == [2, 3, 4]


def test_a_model_under_every_limit():
    model = support.build()
    tokens, targets = support.batch(size=4, length=16)
    found = of_model(model, tokens, targets)
    assert [f.limit for f in found] == [2, 3, 4]
    assert found[0].traffic.nodes <= found[1].traffic.nodes <= found[2].traffic.nodes
    assert found[0].loss == pytest.approx(model.losses(tokens, targets, mtp=False).main), "2 is the model's own limit"
    assert len({f.loss for f in found}) == 3, "another limit chooses other experts"
    for limit in (2, 3, 4):
        chosen = trace(limited_to(model, limit), tokens).layers[0].chosen
        assert nodes_touched(chosen, 8, 4).max() <= limit
    assert model.config.topk_group == model.moe_layers[0].config.topk_group == 2, "the model itself stays"
    with pytest.raises(MinidsError, match="hold only 2"):
        limited_to(model, 1)


def test_a_model_on_disk_is_limited_as_one_in_memory(tmp_path):
    model = DeepSeekV3(support.TINY, 0)
    save(model, tmp_path / "model")
    tokens, targets = support.batch(size=4, length=16)
    streamed = of_model(load_streamed(tmp_path / "model"), tokens, targets)
    assert [f.traffic for f in streamed] == [f.traffic for f in of_model(model, tokens, targets)]
    for found, expected in zip(streamed, of_model(model, tokens, targets), strict=True):
        assert found.loss == pytest.approx(expected.loss, rel=1e-6)
