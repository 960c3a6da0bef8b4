"""Exponents read from bits, compiled and as plain Python, against frexp."""

import math

import numba
import numpy as np
import pytest

from minids.kernels._bits import bits_of_float, exponent, float_of_bits, power_of_two

compiled_exponent = numba.njit(lambda x: exponent(x))
compiled_power = numba.njit(lambda n: power_of_two(n))
compiled_there_and_back = numba.njit(lambda x: float_of_bits(bits_of_float(x)))
SMALLEST_NORMAL = 2.0**-126


@pytest.mark.parametrize("size", [SMALLEST_NORMAL, 0.75, 1.0, 1.9999999, 2.0, 448.0, 3.4e38])
def test_exponent_of_a_normal_number(size):
    size = np.float32(size)
    for function in (exponent, compiled_exponent):
        assert function(size) == math.frexp(size)[1] - 1


@pytest.mark.parametrize(
    ("size", "wanted"), [(0.0, -127), (1e-45, -127), (SMALLEST_NORMAL / 2, -127), (np.inf, 128), (np.nan, 128)]
)
def test_exponent_of_zero_subnormals_infinity_and_nan(size, wanted):
    for function in (exponent, compiled_exponent):
        assert function(np.float32(size)) == wanted


@pytest.mark.parametrize("n", [-126, -1, 0, 7, 127])
def test_power_of_two(n):
    for function in (power_of_two, compiled_power):
        assert function(np.int32(n)) == np.float32(2.0**n)


def test_bits_there_and_back():
    for x in np.float32([0, 1.5, -3e-40, np.inf]):
        assert compiled_there_and_back(x) == float_of_bits(bits_of_float(x)) == x
