"""Query heads: what carries no position stays, the rest is RoPE's."""

import numpy as np
import pytest

from minids import check
from minids.ops import query_heads, rope

RNG = np.random.default_rng(0)
PHI = RNG.uniform(-9, 9, (3, 2))  # three tokens, d_r = 4


@pytest.mark.parametrize("interleave", [True, False])
def test_the_last_numbers_of_a_head_are_turned_and_the_others_copied(interleave):
    q = RNG.standard_normal((2, 3, 2, 7))
    y, _ = query_heads.forward(q, np.cos(PHI), np.sin(PHI), interleave)
    np.testing.assert_array_equal(y[..., :3], q[..., :3])
    np.testing.assert_array_equal(y[..., 3:], rope.forward(q[..., 3:], np.cos(PHI), np.sin(PHI), interleave)[0])


@pytest.mark.parametrize("interleave", [True, False])
def test_gradient(interleave):
    def forward(q):
        return query_heads.forward(q, np.cos(PHI), np.sin(PHI), interleave)

    check.gradient(forward, query_heads.backward, {"q": RNG.standard_normal((1, 3, 2, 7))}).raise_if_wrong()
