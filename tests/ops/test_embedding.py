"""The embedding against a loop over tokens."""

import numpy as np
import pytest
import support
from hypothesis import given
from hypothesis import strategies as st

from minids import check
from minids.ops import embedding

RNG = np.random.default_rng(0)


def by_loop(tokens, dx, rows):
    want = np.zeros((rows, dx.shape[-1]))
    for place in np.ndindex(*tokens.shape):
        want[int(tokens[place])] += dx[place]
    return want


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32, np.int64, np.uint64])
def test_forward_and_backward_for_every_integer_type(kind):
    weight = RNG.standard_normal((11, 3))
    tokens = RNG.integers(0, 11, (2, 9)).astype(kind)
    x, saved = embedding.forward(tokens, weight)
    for place in np.ndindex(2, 9):
        np.testing.assert_array_equal(x[place], weight[int(tokens[place])])
    dx = RNG.standard_normal(x.shape)
    support.assert_close(embedding.backward(dx, saved), by_loop(tokens, dx, 11))


@given(st.lists(st.integers(0, 6), min_size=0, max_size=30))
def test_repeated_tokens_add_up_and_absent_ones_get_zero(ids):
    tokens = np.array(ids, dtype=np.int64)
    weight = np.arange(14.0).reshape(7, 2)
    dx = np.random.default_rng(len(ids)).standard_normal((len(ids), 2))
    d_weight = embedding.backward(dx, embedding.forward(tokens, weight)[1])
    support.assert_close(d_weight, by_loop(tokens, dx, 7))
    absent = [v for v in range(7) if v not in ids]
    assert not d_weight[absent].any(), "a token that does not occur must get no gradient"


def test_gradient():
    tokens = np.array([[4, 0, 4], [4, 2, 0]])  # 4 three times, 1 and 3 never
    check.gradient(
        lambda weight: embedding.forward(tokens, weight), embedding.backward, {"weight": RNG.standard_normal((5, 3))}
    ).raise_if_wrong()
