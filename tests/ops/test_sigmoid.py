"""The logistic function, far out as well."""

import math

import numpy as np
import pytest
import support

from minids import check
from minids.ops import sigmoid


def test_values_and_far_out():
    x = np.array([-700.0, -40.0, -2.0, -1e-9, 0.0, 1e-9, 3.0, 40.0, 800.0])
    want = [math.exp(v) / (1 + math.exp(v)) if v < 0 else 1 / (1 + math.exp(-v)) for v in x]
    np.testing.assert_allclose(sigmoid.forward(x)[0], want, rtol=4e-16)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_warning_and_the_type_is_kept(dtype):
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        s, saved = sigmoid.forward(np.array([-1e4, 0.0, 1e4], dtype))
        ds = sigmoid.backward(np.ones(3, dtype), saved)
    assert s.dtype == ds.dtype == dtype
    np.testing.assert_array_equal(s, [0, 0.5, 1])


def test_symmetry_and_gradient():
    x = np.random.default_rng(0).normal(0, 3, (4, 5))
    support.assert_close(sigmoid.forward(x)[0] + sigmoid.forward(-x)[0], np.ones((4, 5)))
    check.gradient(sigmoid.forward, sigmoid.backward, {"x": x}).raise_if_wrong()


def test_whole_numbers_are_taken_as_numbers():
    x = np.arange(-2, 3)
    np.testing.assert_array_equal(sigmoid.forward(x)[0], sigmoid.forward(x.astype(float))[0])
