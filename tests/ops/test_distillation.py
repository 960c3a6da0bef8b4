"""Divergence from a teacher against its definition and central differences."""

import math

import numpy as np

from minids import check
from minids.ops import distillation

RNG = np.random.default_rng(0)
LOGITS, TEACHER = RNG.normal(0, 2, (4, 6)), RNG.normal(0, 2, (4, 6))


def test_forward_is_the_definition():
    want = 0.0
    for s, t in zip(LOGITS, TEACHER, strict=True):
        p, q = (np.exp(x) / np.exp(x).sum() for x in (s, t))
        want += sum(b * math.log(b / a) for a, b in zip(p, q, strict=True)) / 4
    assert math.isclose(distillation.forward(LOGITS, TEACHER)[0], want, rel_tol=1e-12)


def test_gradient():
    def forward(logits):
        loss, saved = distillation.forward(logits, TEACHER)
        return np.array(loss), saved

    check.gradient(forward, distillation.backward, {"logits": LOGITS}).raise_if_wrong()


def test_who_agrees_has_nothing_to_learn():
    loss, saved = distillation.forward(LOGITS + 3.0, LOGITS)  # a constant changes no distribution
    assert abs(loss) < 1e-14 and np.abs(distillation.backward(1.0, saved)).max() < 1e-15
