import numpy as np
import pytest
from agreement import DTYPES, assert_same, dtypes, examples, normal, seeds, twins, uncompiled
from hypothesis import given
from hypothesis import strategies as st

from minids.kernels import _blas

reference, ours = twins("muon")

# Every round passes the rounding of the one before on, at most 3.4445 times as large; a step is small beside the weight.
TOLERANCE = {np.float32: 5e-5, np.float64: 1e-12}
SHAPES = [[(8, 8)], [(6, 17), (3, 6, 17)], [(17, 6), (2, 2, 17, 6)], [(1, 9)], [(9, 1)], [(64, 128)], [(1, 1)]]


def arrays_of(rng, shapes, dtype, layout="C order"):
    """Values and momenta in C order, gradients in any."""
    values, momenta = ([normal(rng, shape, dtype) for shape in shapes] for _ in range(2))
    return values, [normal(rng, shape, dtype, layout) for shape in shapes], momenta


def moved(module, arrays, **settings):
    """How far values went, and the momenta after the step."""
    values, grads, momenta = ([a.copy(order="K") for a in group] for group in arrays)
    module.update(values, grads, momenta, **settings)
    for given_, after in zip(arrays[1], grads, strict=True):
        np.testing.assert_array_equal(after, given_, err_msg="the gradient was written to")
    return tuple(v - before for v, before in zip(values, arrays[0], strict=True)), tuple(momenta)


def compare(arrays, dtype, **settings):
    got, want = (moved(module, arrays, **settings) for module in (ours, reference))
    assert_same(got, want, "(steps, momenta)", tolerance=TOLERANCE[dtype])


@examples
@given(
    seed=seeds, dtype=dtypes, shapes=st.sampled_from(SHAPES), layout=st.sampled_from(["C order", "slice of a wider array"]),
    rounds=st.integers(1, 6), scale=st.sampled_from([1.0, 0.03]), weight_decay=st.sampled_from([0.0, 0.1]),
)  # fmt: skip
def test_a_step_is_that_of_ops(seed, dtype, shapes, layout, rounds, scale, weight_decay):
    arrays = arrays_of(np.random.default_rng(seed), shapes, dtype, layout)
    compare(arrays, dtype, lr=0.5, momentum=0.95, weight_decay=weight_decay, scale=scale, rounds=rounds)


@examples
@given(seed=seeds, dtype=dtypes, shapes=st.sampled_from(SHAPES), size=st.sampled_from([1e-12, 1.0, 1e12]))
def test_a_step_is_that_of_ops_whatever_the_size_of_the_gradient(seed, dtype, shapes, size):
    values, grads, momenta = arrays_of(np.random.default_rng(seed), shapes, dtype)
    arrays = values, [g * dtype(size) for g in grads], [m * dtype(size) for m in momenta]
    compare(arrays, dtype, lr=0.5, momentum=0.95, weight_decay=0.0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_matrix_without_gradient_stays_and_the_others_of_its_layer_move(dtype):
    grads = normal(np.random.default_rng(0), (3, 4, 6), dtype)
    grads[1] = 0
    values, momenta = np.ones_like(grads), np.zeros_like(grads)
    ours.update([values], [grads], [momenta], 0.1, 0.95, 0.0)
    assert (values[1] == 1).all() and np.isfinite(values).all() and (values[[0, 2]] != 1).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_no_number_spoils_its_own_matrix_in_both_and_no_other(dtype, bad):
    arrays = arrays_of(np.random.default_rng(0), [(3, 5, 8)], dtype)
    arrays[1][0][1, 2, 3] = bad
    for module in (reference, ours):
        with np.errstate(invalid="ignore"):
            (step,), _ = moved(module, arrays, lr=0.5, momentum=0.95, weight_decay=0.1)
        assert np.isnan(step[1]).all() and np.isfinite(step[[0, 2]]).all(), module.__name__


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_bits_alone_and_beside_others(dtype):
    arrays = arrays_of(np.random.default_rng(1), [(5, 16, 24)], dtype)
    settings = dict(lr=0.5, momentum=0.95, weight_decay=0.1)
    (together,), _ = moved(ours, arrays, **settings)
    for i in range(5):
        (alone,), _ = moved(ours, [[a[0][i]] for a in arrays], **settings)
        np.testing.assert_array_equal(alone, together[i])


@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_uncompiled(monkeypatch, dtype):
    uncompiled(monkeypatch, ours)
    for shapes in SHAPES:
        if np.prod(shapes[0]) < 1000:
            compare(arrays_of(np.random.default_rng(2), shapes, dtype), dtype, lr=0.5, momentum=0.95, weight_decay=0.1)


def test_agrees_where_numpys_blas_cannot_be_called(monkeypatch):
    monkeypatch.setattr(_blas, "address", lambda dtype: 0)
    compare(arrays_of(np.random.default_rng(3), SHAPES[1], np.float64), np.float64, lr=0.5, momentum=0.95, weight_decay=0.1)


def test_arrays_that_could_not_be_written_to_are_refused():
    values, grads, momenta = (np.ones((4, 6)) for _ in range(3))
    with pytest.raises(TypeError, match="in place"):
        ours.update([values.T], [grads.T], [momenta.T], 0.1, 0.95, 0.0)
