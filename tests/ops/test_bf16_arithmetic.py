"""BF16 operands: the products are those of rounded numbers, and two bytes of each are kept."""

import numpy as np
import support

from minids.ops import bfloat16, fp8_feed_forward, fp8_linear, grouped_feed_forward, linear
from minids.ops.bf16_arithmetic import BF16
from minids.ops.fp8_linear import Scheme


def rounded(x):
    return bfloat16.decode(bfloat16.encode(x))


def array(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_a_linear_map_multiplies_rounded_operands_both_ways():
    x, weight, bias, dy = array(5, 7), array(4, 7, seed=1), array(4, seed=2), array(5, 4, seed=3)
    y, saved = fp8_linear.forward(x, weight, bias, Scheme(tile=None), BF16)
    wanted, plain = linear.forward(rounded(x), rounded(weight), bias)
    assert y.tobytes() == wanted.tobytes()
    dx, d_weight, d_bias = fp8_linear.backward(dy, saved, BF16)
    wanted = linear.backward(rounded(dy), plain)
    support.assert_close(dx, wanted[0], 1e-6)
    support.assert_close(d_weight, wanted[1], 1e-6)
    support.assert_close(d_bias, dy.sum(axis=0), 1e-6)
    assert saved.x.codes.dtype == np.uint16 and saved.x.bits <= 16 * x.size + 32


def test_a_network_is_near_that_of_full_precision_and_not_it():
    rows, starts = array(9, 8), np.array([0, 4, 4, 9])
    weights = array(3, 6, 8, seed=1), array(3, 6, 8, seed=2), array(3, 8, 6, seed=3)
    y, saved = fp8_feed_forward.forward(rows, starts, *weights, Scheme(tile=None), BF16)
    wanted, plain = grouped_feed_forward.forward(rows, starts, *weights)
    assert 1e-4 < np.abs(y - wanted).max() / np.abs(wanted).max() < 2e-2
    for got, want in zip(
        fp8_feed_forward.backward(wanted, saved, BF16), grouped_feed_forward.backward(wanted, plain), strict=True
    ):
        assert np.abs(got - want).max() <= 3e-2 * np.abs(want).max()
