"""SwiGLU against its definition and central differences."""

import math

import numpy as np
import pytest
import support

from minids import check
from minids.ops import swiglu

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2, 3, 4)], ids=str)
def test_forward_is_the_formula(shape):
    gate, up = RNG.normal(0, 2, shape), RNG.standard_normal(shape)
    want = np.array([p / (1 + math.exp(-p)) * q for p, q in zip(gate.flat, up.flat, strict=True)]).reshape(shape)
    support.assert_close(swiglu.forward(gate, up)[0], want)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2, 3, 4)], ids=str)
def test_gradient(shape):
    inputs = {"gate": RNG.normal(0, 2, shape), "up": RNG.standard_normal(shape)}
    check.gradient(swiglu.forward, swiglu.backward, inputs).raise_if_wrong()


def test_the_gate_is_the_first_argument():
    """silu(p) · q, not p · silu(q): with p very negative nothing passes, with q very negative all does."""
    assert abs(swiglu.forward(np.array([-50.0]), np.array([3.0]))[0][0]) < 1e-15
    np.testing.assert_allclose(swiglu.forward(np.array([50.0]), np.array([-3.0]))[0], [-150.0])
