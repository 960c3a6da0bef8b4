"""The linear map against its definition, entry by entry, and against central differences."""

import numpy as np
import pytest
import support

from minids import check
from minids.ops import linear

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("lead", [(), (1,), (7,), (2, 3), (2, 1, 3)], ids=str)
@pytest.mark.parametrize("with_bias", [False, True])
def test_forward_is_one_dot_product_per_output(lead, with_bias):
    x, weight = RNG.standard_normal((*lead, 5)), RNG.standard_normal((4, 5))
    bias = RNG.standard_normal(4) if with_bias else None
    want = np.zeros((*lead, 4))
    for place in np.ndindex(*lead, 4):
        *token, o = place
        want[place] = sum(x[(*token, i)] * weight[o, i] for i in range(5)) + (bias[o] if with_bias else 0)
    support.assert_close(linear.forward(x, weight, bias)[0], want)


@pytest.mark.parametrize("lead", [(1,), (7,), (2, 3)], ids=str)
def test_gradient_with_bias(lead):
    inputs = {"x": RNG.standard_normal((*lead, 5)), "weight": RNG.standard_normal((4, 5)), "bias": RNG.standard_normal(4)}
    check.gradient(linear.forward, linear.backward, inputs).raise_if_wrong()


def test_gradient_without_bias_gives_none_for_it():
    inputs = {"x": RNG.standard_normal((2, 3, 5)), "weight": RNG.standard_normal((4, 5))}
    check.gradient(linear.forward, lambda dy, saved: linear.backward(dy, saved)[:2], inputs).raise_if_wrong()
    saved = linear.forward(*inputs.values())[1]
    assert linear.backward(np.ones((2, 3, 4)), saved)[2] is None, "a map without bias has no bias gradient"


def test_the_input_is_not_changed():
    x, weight, bias = RNG.standard_normal((3, 5)), RNG.standard_normal((4, 5)), RNG.standard_normal(4)
    before = x.copy(), weight.copy(), bias.copy()
    y, saved = linear.forward(x, weight, bias)
    linear.backward(y, saved)
    for got, want in zip((x, weight, bias), before, strict=True):
        np.testing.assert_array_equal(got, want)


def test_the_two_halves_of_the_backward_pass_are_the_whole():
    x, weight, bias = RNG.standard_normal((2, 3, 5)), RNG.standard_normal((4, 5)), RNG.standard_normal(4)
    saved, dy = linear.forward(x, weight, bias)[1], RNG.standard_normal((2, 3, 4))
    dx, d_weight, d_bias = linear.backward(dy, saved)
    totals = np.ones((4, 5)), np.ones(4)
    np.testing.assert_array_equal(linear.backward_input(dy, saved), dx)
    linear.backward_weight_into(dy, saved, *totals)
    np.testing.assert_array_equal(totals[0], 1 + d_weight)
    np.testing.assert_array_equal(totals[1], 1 + d_bias)
