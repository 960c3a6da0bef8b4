"""Combine against a loop over tokens and choices."""

import numpy as np
import support
from hypothesis import given

from minids import check
from minids.ops import combine, dispatch

RNG = np.random.default_rng(0)


@given(support.choices())
def test_forward_is_the_weighted_sum_over_the_choices(drawn):
    chosen, experts = drawn
    plan = dispatch.plan(chosen, experts)
    rows, gates = RNG.standard_normal((chosen.size, 3)), RNG.standard_normal(chosen.shape)
    want = np.zeros((len(chosen), 3))
    row = 0
    for e in range(experts):
        for n in range(len(chosen)):
            for k in np.flatnonzero(chosen[n] == e):
                want[n] += gates[n, k] * rows[row]
                row += 1
    support.assert_close(combine.forward(rows, gates, plan)[0], want)


def test_gradient():
    plan = dispatch.plan(np.array([[0, 3], [3, 1], [3, 0], [1, 4]]), 6)
    inputs = {"rows": RNG.standard_normal((8, 3)), "gates": RNG.standard_normal((4, 2))}
    check.gradient(lambda rows, gates: combine.forward(rows, gates, plan), combine.backward, inputs).raise_if_wrong()


def test_combine_undoes_dispatch_when_the_gates_sum_to_one():
    chosen = np.array([[2, 0], [1, 2], [0, 1]])
    plan = dispatch.plan(chosen, 3)
    x = RNG.standard_normal((3, 5))
    rows, _ = dispatch.forward(x, plan)
    gates = np.array([[0.3, 0.7], [0.9, 0.1], [0.5, 0.5]])
    support.assert_close(combine.forward(rows, gates, plan)[0], x)
