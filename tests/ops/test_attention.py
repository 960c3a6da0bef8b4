"""Causal attention against a loop over queries and keys; grouped heads; more keys than queries."""

import naive
import numpy as np
import pytest
import support
from hypothesis import given
from hypothesis import strategies as st

from minids import check
from minids.ops import attention

RNG = np.random.default_rng(0)

# batch, queries, keys, heads, key-value heads, d_qk, d_v
SHAPES = [
    (1, 1, 1, 1, 1, 1, 1),  # one token
    (2, 5, 5, 3, 3, 4, 2),  # d_qk ≠ d_v
    (1, 4, 4, 6, 2, 3, 5),  # GQA: three query heads read one
    (2, 3, 3, 4, 1, 2, 3),  # MQA
    (1, 2, 5, 2, 2, 3, 4),  # two queries at the end of five keys
    (1, 1, 6, 4, 2, 5, 3),  # one decoded token
]


def some(batch, queries, keys, heads, kv_heads, d_qk, d_v):
    return (
        RNG.standard_normal((batch, queries, heads, d_qk)),
        RNG.standard_normal((batch, keys, kv_heads, d_qk)),
        RNG.standard_normal((batch, keys, kv_heads, d_v)),
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward_is_the_definition(shape):
    q, k, v = some(*shape)
    support.assert_close(attention.forward(q, k, v, 0.37)[0], naive.attention(q, k, v, 0.37))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradient(shape):
    q, k, v = some(*shape)
    check.gradient(attention.forward, attention.backward, {"q": q, "k": k, "v": v, "scale": 0.37}, samples=40).raise_if_wrong()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rows_of_the_softmax_gradient_sum_to_zero(shape):
    """Adding one number to all scores of a query changes nothing: Σ_j dz_ij = 0 for every query i. Moving all keys by one
    vector adds such a number, so Σ_j dk_j = σ Σ_i (Σ_j dz_ij) q_i must vanish."""
    q, k, v = some(*shape)
    _, saved = attention.forward(q, k, v, 0.37)
    support.assert_close(saved.probs.sum(-1), np.ones(saved.probs.shape[:-1]), what="rows of the probabilities")
    dq, dk, _ = attention.backward(RNG.standard_normal((*q.shape[:3], v.shape[-1])), saved)
    assert np.abs(dk.sum(axis=1)).max() < 1e-12, "rows of dz do not sum to zero"
    assert dq.shape == q.shape


@given(st.integers(1, 6), st.integers(0, 5), st.integers(0, 2**31))
def test_a_later_key_or_value_changes_nothing(length, position, seed):
    position = min(position, length - 1)
    rng = np.random.default_rng(seed)
    q, k, v = rng.standard_normal((3, 1, length, 2, 3))
    before = attention.forward(q, k, v, 1.0)[0]
    k, v = k.copy(), v.copy()
    k[:, position:] += rng.standard_normal(k[:, position:].shape)
    v[:, position:] += 1.0
    after = attention.forward(q, k, v, 1.0)[0]
    np.testing.assert_array_equal(after[:, :position], before[:, :position])
    assert (after[:, position:] != before[:, position:]).all(), "every later query must see the change"


def test_huge_scores_do_not_overflow():
    q = np.full((1, 2, 1, 2), 1e3, np.float32)
    with np.errstate(over="raise", invalid="raise"):
        out, saved = attention.forward(q, q, q, 1.0)
        gradients = attention.backward(out, saved)
    assert out.dtype == np.float32 and all(np.isfinite(g).all() for g in (out, *gradients))


def packed_starts(batch, queries, keys, rng):
    """Where each query's sample begins: at or before itself, never earlier than the one before's."""
    begins = rng.random((batch, keys)) < 0.4
    return np.maximum.accumulate(np.where(begins, np.arange(keys), 0), axis=1)[:, keys - queries :]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_query_sees_its_own_sample_and_nothing_before_it(shape):
    q, k, v = some(*shape)
    batch, queries, keys = shape[:3]
    starts = packed_starts(batch, queries, keys, np.random.default_rng(5))
    o = attention.forward(q, k, v, 0.37, starts)[0]
    for b in range(batch):
        for i in range(queries):
            seen = slice(starts[b, i], keys - queries + i + 1)
            alone = attention.forward(q[b : b + 1, i : i + 1], k[b : b + 1, seen], v[b : b + 1, seen], 0.37)[0]
            support.assert_close(o[b, i], alone[0, 0])
    inputs = {"q": q, "k": k, "v": v, "scale": 0.37, "starts": starts}
    check.gradient(attention.forward, attention.backward, inputs, samples=40).raise_if_wrong()
