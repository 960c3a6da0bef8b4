"""Sizes that do not agree are refused by both twins: a kernel would read, or write, what lies beside its arrays."""

import numpy as np
import pytest
from agreement import twins

from minids.ops import bias_update, dispatch


def some(*shape):
    return np.ones(shape, np.float32)


PLAN = dispatch.plan(np.array([[0, 1], [1, 2], [0, 2]]), 3)  # 3 tokens, 2 experts each
WRONG_FORWARD = {
    "rmsnorm: gain": ("rmsnorm", (some(3, 64), some(4))),
    "swiglu: up": ("swiglu", (some(2, 64), some(2, 4))),
    "rope: cos of fewer positions": ("rope", (some(1, 8, 2, 4), some(3, 2), some(3, 2))),
    "attention: width of keys": ("attention", (some(1, 4, 2, 8), some(1, 4, 2, 6), some(1, 4, 2, 8), 1.0)),
    "attention: values of fewer tokens": ("attention", (some(1, 4, 2, 8), some(1, 4, 2, 8), some(1, 3, 2, 8), 1.0)),
    "attention: heads in unequal groups": ("attention", (some(1, 4, 3, 8), some(1, 4, 2, 8), some(1, 4, 2, 8), 1.0)),
    "attention: more queries than keys": ("attention", (some(1, 4, 2, 8), some(1, 3, 2, 8), some(1, 3, 2, 8), 1.0)),
    "combine: more gates than rows": ("combine", (some(6, 5), some(3, 3), PLAN)),
    "combine: too few rows": ("combine", (some(2, 5), some(3, 2), PLAN)),
    "dispatch: too few tokens": ("dispatch", (some(2, 5), PLAN)),
    "cross_entropy: too few targets": ("cross_entropy", (some(4, 5), np.zeros(2, np.int64))),
    "cross_entropy: too many targets": ("cross_entropy", (some(4, 5), np.zeros(6, np.int64))),
    "balance_loss: choices of fewer tokens": ("balance_loss", (some(4, 5), np.zeros((2, 2), np.int64), 4)),
    "grouped_feed_forward: too few rows": (
        "grouped_feed_forward",
        (some(3, 4), np.array([0, 2, 6]), some(2, 8, 4), some(2, 8, 4), some(2, 4, 8)),
    ),
    "grouped_feed_forward: width of up": (
        "grouped_feed_forward",
        (some(3, 4), np.array([0, 2, 3]), some(2, 8, 4), some(2, 6, 4), some(2, 4, 8)),
    ),
    "grouped_feed_forward: width of gate": (
        "grouped_feed_forward",
        (some(3, 4), np.array([0, 2, 3]), some(2, 6, 4), some(2, 8, 4), some(2, 4, 8)),
    ),
    "grouped_feed_forward: starts of more experts": (
        "grouped_feed_forward",
        (some(3, 4), np.array([0, 1, 2, 3]), some(2, 8, 4), some(2, 8, 4), some(2, 4, 8)),
    ),
    "grouped_feed_forward: starts that fall": (
        "grouped_feed_forward",
        (some(3, 4), np.array([0, 9, 3]), some(2, 8, 4), some(2, 8, 4), some(2, 4, 8)),
    ),
    "grouped_feed_forward: starts that do not begin at 0": (
        "grouped_feed_forward",
        (some(3, 4), np.array([-5, 2, 3]), some(2, 8, 4), some(2, 8, 4), some(2, 4, 8)),
    ),
    "routed_experts: gates of fewer tokens": (
        "routed_experts",
        (some(3, 4), some(2, 2), PLAN, some(3, 8, 4), some(3, 8, 4), some(3, 4, 8)),
    ),
    "routed_experts: tokens of another width": (
        "routed_experts",
        (some(3, 5), some(3, 2), PLAN, some(3, 8, 4), some(3, 8, 4), some(3, 4, 8)),
    ),
    "routed_experts: fewer tokens than the plan has": (
        "routed_experts",
        (some(2, 4), some(3, 2), PLAN, some(3, 8, 4), some(3, 8, 4), some(3, 4, 8)),
    ),
    "routed_experts: experts that the plan does not know": (
        "routed_experts",
        (some(3, 4), some(3, 2), PLAN, some(2, 8, 4), some(2, 8, 4), some(2, 4, 8)),
    ),
    "routed_experts: width of up": (
        "routed_experts",
        (some(3, 4), some(3, 2), PLAN, some(3, 8, 4), some(3, 6, 4), some(3, 4, 8)),
    ),
    "routed_experts: nothing of the right size to add to": (
        "routed_experts",
        (some(3, 4), some(3, 2), PLAN, some(3, 8, 4), some(3, 8, 4), some(3, 4, 8), some(2, 4)),
    ),
    "query_heads: cos of fewer positions": ("query_heads", (some(1, 8, 2, 4), some(3, 2), some(3, 2))),
    "query_heads: more angles than a head has pairs": ("query_heads", (some(1, 3, 2, 4), some(3, 3), some(3, 3))),
    "key_heads: a shared key of fewer tokens": ("key_heads", (some(2, 4, 2, 8), some(2, 3, 1, 4), 5)),
    "key_heads: more keys than a head has numbers": ("key_heads", (some(2, 4, 2, 8), some(2, 4, 1, 4), 9)),
    "router: more choices than experts": ("router", (some(4, 5), None, 6)),
    "router: more choices than in open groups": ("router", (some(4, 8), None, 3, 4, 1)),
    "router: experts not in equal groups": ("router", (some(4, 7), None, 2, 2, 1)),
    "router: bias": ("router", (some(4, 8), some(5), 2)),
    "router: scoring by another name": ("router", (some(4, 8), None, 2, 1, 1, "Sigmoid")),
    "router: method by another name": ("router", (some(4, 8), None, 2, 4, 2, "sigmoid", "noaux")),
    "router: choices of other tokens": (
        "router",
        (some(4, 8), None, 2, 1, 1, "sigmoid", "noaux_tc", True, 1.0, np.zeros((2, 2), np.int64)),
    ),
}
# A slice that runs over the end is a shorter slice in NumPy, which reads nothing beside its arrays; no keys at all give NaN.
CUT_BY_NUMPY = (
    "attention: more queries than keys",
    "balance_loss: choices of fewer tokens",
    "key_heads: more keys than a head has numbers",
    "grouped_feed_forward: too few rows",
    "grouped_feed_forward: starts that fall",
    "grouped_feed_forward: starts that do not begin at 0",
)
WRONG_BACKWARD = {
    "rmsnorm": ((some(3, 8), some(8)), some(2, 8)),
    "swiglu": ((some(2, 8), some(2, 8)), some(1, 7)),
    "rope": ((some(1, 4, 2, 4), some(4, 2), some(4, 2)), some(1, 3, 2, 4)),
    "attention": ((some(1, 4, 2, 8), some(1, 4, 2, 8), some(1, 4, 2, 8), 1.0), some(1, 3, 2, 8)),
    "combine": ((some(6, 5), some(3, 2), PLAN), some(2, 5)),
    "dispatch": ((some(3, 5), PLAN), some(4, 5)),
    "routed_experts": ((some(3, 4), some(3, 2), PLAN, some(3, 8, 4), some(3, 8, 4), some(3, 4, 8)), some(2, 4)),
    "query_heads": ((some(1, 4, 2, 8), some(4, 2), some(4, 2)), some(1, 3, 2, 8)),
    "embedding": ((np.array([[0, 1]]), some(3, 4)), some(1, 1, 4)),
    "grouped_feed_forward": ((some(3, 4), np.array([0, 2, 3]), some(2, 8, 4), some(2, 8, 4), some(2, 4, 8)), some(2, 4)),
}


@pytest.mark.parametrize("name", WRONG_FORWARD)
def test_forward(name):
    module, arguments = WRONG_FORWARD[name]
    reference, compiled = twins(module)
    for twin in (compiled,) if name in CUT_BY_NUMPY else (reference, compiled):
        with pytest.raises((ValueError, IndexError)):
            twin.forward(*arguments)


@pytest.mark.parametrize("module", WRONG_BACKWARD)
def test_backward_of_the_compiled_one(module):
    arguments, dy = WRONG_BACKWARD[module]
    twin = twins(module)[1]
    with pytest.raises(ValueError, match="expected shape"):
        twin.backward(dy, twin.forward(*arguments)[1])


@pytest.mark.parametrize("width", [2, 6])
def test_a_gradient_of_rope_with_other_heads_than_the_input(width):
    """``query_heads`` would copy what is beyond the rotary part."""
    compiled = twins("rope")[1]
    saved = compiled.forward(some(1, 4, 2, 4), some(4, 2), some(4, 2))[1]
    with pytest.raises(ValueError, match="expected shape"):
        compiled.backward(some(1, 4, 2, width), saved)


def test_update():
    values = some(8)
    for twin in twins("adamw"):
        with pytest.raises(ValueError):
            twin.update(values, some(5), some(8), some(8), 0.1, 0.9, 0.95, 1e-8, 0.1, 1)


def test_an_unknown_rule_for_the_bias():
    with pytest.raises(ValueError, match="Sign"):
        bias_update.updated(some(4), np.arange(4), 0.1, "Sign")
