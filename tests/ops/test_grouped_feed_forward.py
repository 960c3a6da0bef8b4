"""The experts' networks against one network per row."""

import numpy as np
import pytest
import support

from minids import check
from minids.ops import grouped_feed_forward, swiglu

RNG = np.random.default_rng(0)
WIDTH, HIDDEN = 4, 3


def some(counts):
    experts = len(counts)
    return {
        "rows": RNG.standard_normal((sum(counts), HIDDEN)),
        "starts": np.concatenate([[0], np.cumsum(counts)]),
        "w_gate": RNG.standard_normal((experts, WIDTH, HIDDEN)),
        "w_up": RNG.standard_normal((experts, WIDTH, HIDDEN)),
        "w_down": RNG.standard_normal((experts, HIDDEN, WIDTH)),
    }


LOADS = [[1], [3, 0, 2], [0, 0, 4], [5, 1, 0, 0], [0, 2, 0, 1, 3]]


@pytest.mark.parametrize("counts", LOADS, ids=str)
def test_forward_serves_each_row_with_its_own_expert(counts):
    given = some(counts)
    got = grouped_feed_forward.forward(**given)[0]
    row = 0
    for e, count in enumerate(counts):
        for _ in range(count):
            x = given["rows"][row]
            act, _ = swiglu.forward(given["w_gate"][e] @ x, given["w_up"][e] @ x)
            support.assert_close(got[row], given["w_down"][e] @ act, what=f"row {row} of expert {e}")
            row += 1


@pytest.mark.parametrize("counts", LOADS, ids=str)
def test_gradient(counts):
    check.gradient(grouped_feed_forward.forward, grouped_feed_forward.backward, some(counts), samples=30).raise_if_wrong()


def test_an_unused_expert_gets_a_gradient_of_exactly_zero():
    given = some([2, 0, 3])
    y, saved = grouped_feed_forward.forward(**given)
    _, *d_weights = grouped_feed_forward.backward(np.ones_like(y), saved)
    for d_weight, name in zip(d_weights, ("gate", "up", "down"), strict=True):
        assert not d_weight[1].any(), f"d_w_{name} of the unused expert"
        assert d_weight[0].any() and d_weight[2].any()
