"""Delayed scaling: the scale is that of earlier steps, what is larger is cut off, and both backends agree to the bit."""

import numpy as np
import pytest

from minids.backend import op, use_backend
from minids.ops import fp8_feed_forward, fp8_linear, quantise
from minids.ops.delayed import STEPS, Amaxes
from minids.ops.float8 import E5M6
from minids.ops.fp8_linear import Scheme


def array(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_the_maximum_is_that_of_the_last_steps():
    history = Amaxes()
    assert history.of("x", np.array([-3.0, 2])) == 3, "at first its own"
    history.end_step([history.seen])
    assert history.of("x", np.array([5.0])) == 3 and history.seen == {"x": 5}
    for _ in range(STEPS - 1):
        history.end_step([{"x": 1.0}])
    assert history.of("x", np.array([0.5])) == 3
    history.end_step([{"x": 1.0}])
    assert history.of("x", np.array([0.5])) == 1, "after 16 steps it is forgotten"
    assert history.of("dy", np.zeros((0, 3))) == 0, "an expert without a token"


def test_threads_share_the_past_and_see_apart():
    history = Amaxes()
    other = history.sharing()
    history.of("x", np.array([1.0]))
    other.of("x", np.array([7.0]))
    history.end_step([history.seen, other.seen])
    assert other.of("x", np.array([2.0])) == 7


@pytest.mark.parametrize("power_of_two", [False, True])
@pytest.mark.parametrize("format", [quantise.E4M3, E5M6])
def test_a_given_maximum_makes_the_scale_and_cuts_off_in_both_backends(format, power_of_two):
    x = array(40, 70)
    found = {}
    for backend in ("numpy", "numba"):
        with use_backend(backend):
            own = op.quantise.forward(x, None, format, power_of_two)
            same = op.quantise.forward(x, None, format, power_of_two, amax=float(np.abs(x).max()))
            assert np.array_equal(own.codes, same.codes) and np.array_equal(own.scales, same.scales)
            small = op.quantise.forward(x, None, format, power_of_two, amax=1.0)
            found[backend] = small.codes, small.scales, op.quantise.rounded(x, None, format, power_of_two, amax=1.0)
    for a, b in zip(*found.values(), strict=True):
        assert a.tobytes() == b.tobytes()
    _, scales, values = found["numba"]
    assert scales.shape == (1, 1) and (power_of_two or scales[0, 0] == np.float32(1) / np.float32(format.largest))
    assert np.abs(values).max() == format.largest * scales[0, 0], "what is larger is the largest number"


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_with_maxima_as_they_are_it_is_online_scaling_of_tensors(backend):
    x, weight, dy = array(30, 20), array(10, 20, seed=1), array(30, 10, seed=2)
    with use_backend(backend):
        online = Scheme(tile=None)
        y, saved = op.fp8_linear.forward(x, weight, None, online)
        gradients = op.fp8_linear.backward(dy, saved)
        history = Amaxes()
        for _ in range(2):  # the second time from the history, which is the same
            again, kept = op.fp8_linear.forward(x, weight, None, online._replace(history=history))
            found = op.fp8_linear.backward(dy, kept)
            history.end_step([history.seen])
            assert again.tobytes() == y.tobytes()
            assert all(a.tobytes() == b.tobytes() for a, b in zip(gradients[:2], found[:2], strict=True))
        assert history.past.keys() == {"x", "weight", "dy"}


def test_every_tensor_of_a_network_has_a_role():
    rows, starts = array(9, 8), np.array([0, 4, 4, 9])
    weights = array(3, 6, 8, seed=1), array(3, 6, 8, seed=2), array(3, 8, 6, seed=3)
    history = Amaxes()
    scheme = Scheme(tile=None, history=history)
    _, saved = fp8_feed_forward.forward(rows, starts, *weights, scheme)
    fp8_feed_forward.backward(array(9, 8, seed=4), saved)
    assert history.seen["x"] == np.abs(rows).max() and history.seen["dy"] == np.abs(array(9, 8, seed=4)).max()
    assert history.seen["gate weight"] == max(np.abs(weights[0][e]).max() for e in (0, 2)), "of the experts at work"
    assert {"act", "gate", "up", "up weight", "down weight", "d_gate", "d_up"} <= history.seen.keys()
    assert fp8_linear.FINE.history is None
