"""The exponential inside the kernels is NumPy's, to rounding."""

import numpy as np
import pytest

from minids.kernels._exp import exp, sigmoid
from minids.kernels._jit import kernel
from minids.ops import sigmoid as reference


@kernel
def each_exp(x, y):
    for i in range(x.size):
        y[i] = exp(x[i])


@kernel
def each_sigmoid(x, y):
    for i in range(x.size):
        y[i] = sigmoid(x[i])


def apply(function, x):
    y = np.empty_like(x)
    function(x, y)
    return y


def test_relative_error_is_below_two_in_ten_million_wherever_the_result_is_normal():
    x = np.linspace(-87.3, 88.7, 1_000_003).astype(np.float32)
    exact = np.exp(x.astype(np.float64))
    error = np.abs(apply(each_exp, x) / exact - 1)
    assert error.max() < 2e-7, f"relative error {error.max():.1e} at {x[error.argmax()]}"


def test_results_below_the_smallest_normal_number_are_right_to_one_unit():
    x = np.linspace(-103.9, -87.4, 10_001).astype(np.float32)
    error = np.abs(apply(each_exp, x).astype(np.float64) - np.exp(x.astype(np.float64)))
    assert error.max() <= np.finfo(np.float32).smallest_subnormal, "a subnormal result is off by more than its last bit"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_infinity_overflow_and_underflow_are_those_of_numpy(dtype):
    x = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 0.0, -0.0, 800, -800, 88.8, -104.5], dtype)
    with np.errstate(over="ignore", under="ignore"):
        np.testing.assert_allclose(apply(each_exp, x), np.exp(x), rtol=2e-7)


def test_an_element_has_one_value_wherever_it_stands_in_the_array():
    for size in range(1, 70):
        y = apply(each_exp, np.full(size, 0.7371, np.float32))
        assert len(np.unique(y)) == 1, f"vector part and remainder differ in an array of {size}"


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 4e-7), (np.float64, 1e-15)])
def test_sigmoid_keeps_its_relative_precision_on_both_sides(dtype, tolerance):
    x = np.concatenate([np.linspace(-80, 80, 4001), [np.nan, np.inf, -np.inf, 1e30, -1e30]]).astype(dtype)
    np.testing.assert_allclose(apply(each_sigmoid, x), reference.forward(x)[0], rtol=tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_python_functions_say_the_same(dtype):
    x = np.linspace(-20, 20, 101).astype(dtype)
    for function in (each_exp, each_sigmoid):
        slow = np.empty_like(x)
        function.py_func(x, slow)
        np.testing.assert_allclose(apply(function, x), slow, rtol=4e-7)
