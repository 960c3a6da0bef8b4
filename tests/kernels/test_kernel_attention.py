import numpy as np
import pytest
from agreement import DTYPES, assert_same, assert_twins, dtypes, examples, layouts, normal, seeds, twins, uncompiled
from hypothesis import given
from hypothesis import strategies as st

from minids.kernels import _blas, attention


@st.composite
def cases(draw):
    """(queries, keys, heads, kv_heads, d_qk, d_v): MHA, GQA and MQA; queries fewer than keys too."""
    kv_heads, group = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    queries = draw(st.integers(1, 21))
    keys = queries + draw(st.sampled_from([0, 0, 1, 6]))
    return queries, keys, kv_heads * group, kv_heads, draw(st.integers(1, 9)), draw(st.integers(1, 9))


@pytest.fixture(params=["one tile", "one tile, weights formed again", "many tiles"])
def tiling(request, monkeypatch):
    if "again" in request.param:
        monkeypatch.setattr(attention, "KEPT", 0)
    if request.param == "many tiles":
        monkeypatch.setattr(attention, "QUERIES", 4)
    return request.param


def arrays(rng, batch, case, dtype, layout="C order"):
    queries, keys, heads, kv_heads, d_qk, d_v = case
    q = normal(rng, (batch, queries, heads, d_qk), dtype, layout)
    k, v = (normal(rng, (batch, keys, kv_heads, d), dtype, layout) for d in (d_qk, d_v))
    return q, k, v, normal(rng, (batch, queries, heads, d_v), dtype, layout)


@pytest.mark.parametrize("queries_per_tile, kept", [(64, 64), (64, 0), (4, 64), (4, 0)])
def test_agrees_with_ops(monkeypatch, queries_per_tile, kept):
    monkeypatch.setattr(attention, "KEPT", kept)
    monkeypatch.setattr(attention, "QUERIES", queries_per_tile)

    @examples
    @given(seed=seeds, dtype=dtypes, layout=layouts, batch=st.integers(0, 3), case=cases(), scale=st.sampled_from([0.3, 5.0]))
    def check(seed, dtype, layout, batch, case, scale):
        q, k, v, do = arrays(np.random.default_rng(seed), batch, case, dtype, layout)
        # Logits grow with the scale, to 100 and more: the rounding of an exponent is a relative error of its weight.
        assert_twins("attention", (q, k, v, scale), (do,), floor=15 * scale)

    check()


@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_where_neighbours_in_memory_are_neighbours_in_time(dtype):
    """BLAS wants the elements of a head side by side."""
    rng = np.random.default_rng(0)
    q, k, v, do = (normal(rng, (2, 3, d, 7), dtype).transpose(0, 3, 1, 2) for d in (5, 5, 4, 4))
    assert q.strides[1] == q.itemsize
    assert_twins("attention", (q, k, v, 0.3), (do,))


@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_over_several_full_blocks_of_queries(dtype):
    q, k, v, do = arrays(np.random.default_rng(0), 2, (150, 150, 2, 2, 12, 8), dtype)
    assert_twins("attention", (q, k, v, 0.3), (do,))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("which", [0, 1, 2, 3], ids=["q", "k", "v", "do"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_shows_wherever_causality_lets_it_and_nowhere_that_ops_is_finite(tiling, dtype, which, value):
    inputs = arrays(np.random.default_rng(1), 1, (9, 9, 2, 2, 5, 5), dtype)
    inputs[which][0, 5, 1, 2] = value
    results = []
    with np.errstate(all="ignore"):
        for module in twins("attention"):
            o, saved = module.forward(*inputs[:3], 0.3)
            results.append((o, *module.backward(inputs[3], saved)))
    for reference, ours in zip(*results, strict=True):
        broken, ours_broken = ~np.isfinite(reference), ~np.isfinite(ours)
        assert not (ours_broken & ~broken).any(), "not finite where ops is"
        assert_same(ours[~broken], reference[~broken])
    o, ours_o = results[0][0], results[1][0]
    if which < 3:
        # Query 5 of head 1 sees the bad element; for one in k or v so does every later query.
        assert_same(ours_o[0, 5:, 1], o[0, 5:, 1], "o from the bad element on")
        assert np.isfinite(ours_o[0, :, 0]).all(), "the other head was touched"


def test_weights_are_kept_of_short_sequences_only():
    for length, kept in ((attention.KEPT, True), (attention.KEPT + 1, False)):
        q, k, v, _ = arrays(np.random.default_rng(0), 1, (length, length, 1, 1, 4, 4), np.float32)
        assert (attention.forward(q, k, v, 0.5)[1].probs is not None) == kept, length


def test_only_the_softmax_statistics_are_kept_not_the_weights():
    q, k, v, _ = arrays(np.random.default_rng(0), 2, (70, 70, 2, 2, 4, 4), np.float32)
    _, saved = attention.forward(q, k, v, 0.5)
    assert saved.probs is None
    assert max(x.size for x in saved[:5]) == q.size, "something of size T × T is kept"
    assert np.shares_memory(saved.q, q) and np.shares_memory(saved.k, k), "q and k were copied"


@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_where_blas_cannot_be_called_from_a_kernel(monkeypatch, tiling, dtype):
    monkeypatch.setattr(_blas, "address", lambda dtype: 0)
    q, k, v, do = arrays(np.random.default_rng(0), 2, (6, 8, 4, 2, 5, 3), dtype)
    assert_twins("attention", (q, k, v, 0.3), (do,))


@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_uncompiled(monkeypatch, tiling, dtype):
    uncompiled(monkeypatch, attention)
    q, k, v, do = arrays(np.random.default_rng(0), 2, (6, 8, 4, 2, 5, 3), dtype)
    assert_twins("attention", (q, k, v, 0.3), (do,))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [9, 40, 150])
def test_packed_samples_agree_with_ops(tiling, dtype, length):
    rng = np.random.default_rng(length)
    q, k, v, do = arrays(rng, 2, (length, length, 4, 2, 12, 8), dtype)
    begins = rng.random((2, length)) < 0.1
    starts = np.maximum.accumulate(np.where(begins, np.arange(length), 0), axis=1)
    assert_twins("attention", (q, k, v, 0.3, starts), (do,))
