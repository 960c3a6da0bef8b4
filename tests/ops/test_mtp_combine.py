"""The joint at the entrance of an MTP module against eq. 21 written out."""

import math

import numpy as np
import support

from minids import check
from minids.ops import mtp_combine

RNG = np.random.default_rng(0)


def some(batch=2, time=3, size=4):
    return {
        "embedding": RNG.standard_normal((batch, time, size)),
        "hidden": RNG.standard_normal((batch, time, size)),
        "enorm": RNG.uniform(0.5, 2, size),
        "hnorm": RNG.uniform(0.5, 2, size),
        "eh_proj": RNG.standard_normal((size, 2 * size)),
        "eps": 1e-3,
    }


def test_forward_norms_both_and_puts_the_embedding_first():
    given = some()
    got = mtp_combine.forward(**given)[0]
    for b, t in np.ndindex(2, 3):
        e, h = given["embedding"][b, t], given["hidden"][b, t]
        e = e / math.sqrt(np.mean(e * e) + 1e-3) * given["enorm"]
        h = h / math.sqrt(np.mean(h * h) + 1e-3) * given["hnorm"]
        support.assert_close(got[b, t], given["eh_proj"][:, :4] @ e + given["eh_proj"][:, 4:] @ h)


def test_gradient():
    check.gradient(mtp_combine.forward, mtp_combine.backward, some()).raise_if_wrong()
    check.gradient(mtp_combine.forward, mtp_combine.backward, some(1, 1, 3)).raise_if_wrong()


def test_the_gradients_without_the_matrix_are_those_of_the_whole_backward_pass():
    saved, dy = mtp_combine.forward(**some())[1], np.random.default_rng(1).standard_normal(some()["embedding"].shape)
    for got, want in zip(mtp_combine.backward_input(dy, saved), mtp_combine.backward(dy, saved)[:4], strict=True):
        np.testing.assert_array_equal(got, want)
