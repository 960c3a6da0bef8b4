import numpy as np
import pytest
from agreement import DTYPES, assert_twins, dtypes, examples, layouts, normal, poison, seeds, twins, uncompiled
from hypothesis import given
from hypothesis import strategies as st

IGNORE = -100


def targets_of(rng, rows, vocabulary, ignored):
    targets = rng.integers(0, vocabulary, rows)
    targets[rng.random(rows) < ignored] = IGNORE
    return targets


@examples
@given(
    seed=seeds, dtype=dtypes, layout=layouts, rows=st.integers(0, 12), vocabulary=st.integers(1, 70),
    ignored=st.sampled_from([0, 0.5, 1]), divisor=st.sampled_from([None, 3, 17.5]), spread=st.sampled_from([1, 30]),
)  # fmt: skip
def test_agrees_with_ops(seed, dtype, layout, rows, vocabulary, ignored, divisor, spread):
    rng = np.random.default_rng(seed)
    logits = normal(rng, (rows, vocabulary), dtype, layout) * dtype(spread)
    assert_twins("cross_entropy", (logits, targets_of(rng, rows, vocabulary, ignored), divisor), (0.7,))


@examples
@given(seed=seeds, dtype=dtypes, value=st.sampled_from([np.nan, np.inf, -np.inf]), ignored=st.sampled_from([0, 0.5]))
def test_nan_and_infinity_go_where_they_go_in_ops(seed, dtype, value, ignored):
    rng = np.random.default_rng(seed)
    logits = normal(rng, (5, 23), dtype)
    poison(rng, logits, [value])
    assert_twins("cross_entropy", (logits, targets_of(rng, 5, 23, ignored)), (1.0,))


def test_the_loss_is_summed_in_float64():
    # 2²⁵ equal surprises cannot be added up one by one in float32; a smaller number already shows it.
    logits = np.zeros((200_001, 2), np.float32)
    loss, _ = twins("cross_entropy")[1].forward(logits, np.zeros(200_001, np.int64), 1)
    assert abs(loss / (200_001 * np.float64(np.log(np.float32(2)))) - 1) < 1e-9, "surprises were added up in float32"


def test_logits_are_left_as_they_were():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((4, 9))
    before = logits.copy()
    module = twins("cross_entropy")[1]
    module.backward(1.0, module.forward(logits, np.arange(4))[1])
    np.testing.assert_array_equal(logits, before)


@pytest.mark.parametrize("target", [5, -6])
def test_a_target_outside_the_vocabulary_is_refused_as_in_ops(target):
    for module in twins("cross_entropy"):
        with pytest.raises(IndexError):
            module.forward(np.zeros((2, 5)), np.array([1, target]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_uncompiled(monkeypatch, dtype):
    uncompiled(monkeypatch, twins("cross_entropy")[1])
    rng = np.random.default_rng(0)
    assert_twins("cross_entropy", (normal(rng, (5, 11), dtype), targets_of(rng, 5, 11, 0.3)), (1.0,))
