"""Routed experts against every token's own sum over its experts."""

import numpy as np
import pytest
import support
from hypothesis import given

from minids import check
from minids.ops import dispatch, routed_experts, swiglu

RNG = np.random.default_rng(0)
HIDDEN, WIDTH = 3, 4
CHOSEN = np.array([[0, 3], [3, 1], [3, 0], [1, 4]])  # of six experts; 2 and 5 have no token


def some(tokens, top_k, experts):
    normal = RNG.standard_normal
    return {
        "x": normal((tokens, HIDDEN)),
        "gates": normal((tokens, top_k)),
        "w_gate": normal((experts, WIDTH, HIDDEN)),
        "w_up": normal((experts, WIDTH, HIDDEN)),
        "w_down": normal((experts, HIDDEN, WIDTH)),
    }


@given(support.choices())
def test_forward_is_every_tokens_weighted_sum_over_its_experts(drawn):
    chosen, experts = drawn
    inputs = some(*chosen.shape, experts)
    want = np.zeros_like(inputs["x"])
    for n, k in np.ndindex(*chosen.shape):
        e, x = chosen[n, k], inputs["x"][n]
        act, _ = swiglu.forward(inputs["w_gate"][e] @ x, inputs["w_up"][e] @ x)
        want[n] += inputs["gates"][n, k] * (inputs["w_down"][e] @ act)
    support.assert_close(routed_experts.forward(plan=dispatch.plan(chosen, experts), **inputs)[0], want)


def test_gradient():
    plan = dispatch.plan(CHOSEN, 6)

    def forward(x, gates, w_gate, w_up, w_down):
        return routed_experts.forward(x, gates, plan, w_gate, w_up, w_down)

    check.gradient(forward, routed_experts.backward, some(4, 2, 6), samples=30).raise_if_wrong()


@pytest.mark.parametrize("top_k", [1, 2])
def test_a_token_whose_gates_are_zero_gets_nothing_and_teaches_no_expert(top_k):
    inputs = some(4, top_k, 6)
    inputs["gates"][2] = 0
    y, saved = routed_experts.forward(plan=dispatch.plan(CHOSEN[:, :top_k], 6), **inputs)
    assert not y[2].any()
    dy = np.zeros_like(y)
    dy[2] = 1
    dx, d_gates, *d_weights = routed_experts.backward(dy, saved)
    assert not dx.any() and not any(d.any() for d in d_weights)
    assert d_gates[2].all(), "the gates of a token learn even where they are zero"
