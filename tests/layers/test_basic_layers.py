"""Linear, norm, embedding and feed-forward layers: the parameters they ask for, and their gradients into them."""

import naive
import numpy as np
import pytest
import support

from minids.layers.basic import Embedding, Linear, RMSNorm
from minids.layers.feed_forward import FeedForward

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("bias", [False, True])
def test_linear(bias):
    linear, parameters = support.layer(lambda p: Linear(p, "a", 4, 5, bias))
    assert [(p.name, p.shape) for p in parameters] == [("a.weight", (4, 5)), ("a.bias", (4,))][: 1 + bias]
    x = RNG.standard_normal((2, 3, 5))
    want = x @ parameters["a.weight"].value.T + (parameters["a.bias"].value if bias else 0)
    support.assert_close(linear.forward(x)[0], want)
    support.check_layer(parameters, linear.forward, linear.backward, x=x)


def test_rmsnorm_uses_its_epsilon():
    norm, parameters = support.layer(lambda p: RMSNorm(p, "n", 5, 0.5))
    x = RNG.standard_normal((2, 3, 5))
    y = norm.forward(x)[0]
    for token in np.ndindex(2, 3):
        support.assert_close(y[token], naive.rmsnorm(x[token], parameters["n.weight"].value, 0.5))
    support.check_layer(parameters, norm.forward, norm.backward, x=x)


def test_embedding_adds_into_its_gradient():
    embedding, parameters = support.layer(lambda p: Embedding(p, "e", 6, 3))
    x, saved = embedding.forward(np.array([[1, 4, 1]]))
    np.testing.assert_array_equal(x[0, 0], parameters["e.weight"].value[1])
    for _ in range(2):
        embedding.backward(np.ones((1, 3, 3)), saved)
    np.testing.assert_array_equal(parameters["e.weight"].grad[:, 0], [0, 4, 0, 0, 2, 0])


def test_feed_forward():
    ffn, parameters = support.layer(lambda p: FeedForward(p, "f", 5, 7))
    x = RNG.standard_normal((2, 3, 5))
    y = ffn.forward(x)[0]
    weights = [parameters[f"f.{name}_proj.weight"].value for name in ("gate", "up", "down")]
    for token in np.ndindex(2, 3):
        support.assert_close(y[token], naive.ffn(x[token], *weights))
    support.check_layer(parameters, ffn.forward, ffn.backward, x=x)
