"""Limits set by the network."""

import pytest

from minids.lab.analysis import network


def test_experts_per_node():
    assert network.experts_per_node() == 3.2
    assert network.experts_at_no_extra_cost() == 12.8


@pytest.mark.parametrize(
    ("bandwidth", "exchange_us", "tpot_ms", "speed"), [(50e9, 120.96, 14.757, 67.76), (900e9, 6.72, 0.8198, 1219.75)]
)
def test_decode_limits_of_the_isca_paper(bandwidth, exchange_us, tpot_ms, speed):
    limit = network.decode_limit(bandwidth)
    assert limit.exchange * 1e6 == pytest.approx(exchange_us)
    assert limit.layer == 2 * limit.exchange
    assert limit.tpot * 1e3 == pytest.approx(tpot_ms, rel=1e-4)
    assert limit.tokens_per_second == pytest.approx(speed, rel=1e-4)


def test_decode_limit_with_the_true_hidden_size():
    limit = network.decode_limit(50e9, hidden_size=7168)
    assert (round(limit.exchange * 1e6, 2), round(limit.tpot * 1e3, 2)) == (123.86, 15.11)
    assert round(limit.tokens_per_second, 1) == 66.2
