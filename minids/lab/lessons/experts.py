"""Notebook 6: the checks of its exercises, the wrong answers that it shows, and a router that learns in the plane."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from minids import check
from minids.check import Report
from minids.ops import combine, dispatch, grouped_feed_forward, router, swiglu
from minids.ops.router import Routing
from minids.terminal import say
from minids.words import table

Array = np.ndarray


def small_layer() -> dict[str, Array]:
    """Seven tokens and six experts in float64, in which central differences are exact enough; ``chosen`` two for each token."""
    rng = np.random.default_rng(26)  # every expert is chosen by somebody
    u, centroids = rng.standard_normal((7, 4)), rng.standard_normal((6, 4))  # (N, d), (E, d)
    w_gate, w_up = 0.7 * rng.standard_normal((2, 6, 3, 4))  # (E, I, d)
    w_down = 0.7 * rng.standard_normal((6, 4, 3))  # (E, d, I)
    chosen = router.choose(u @ centroids.T, 2)
    return {"u": u, "centroids": centroids, "w_gate": w_gate, "w_up": w_up, "w_down": w_down, "chosen": chosen}


def told_gates(pieces: Sequence[str], routing: Routing, tokens: Iterable[int]) -> None:
    """Print the experts of some tokens, best first, and their gates."""
    rows = []
    for n in tokens:
        gates = " ".join(f"{gate:.2f}" for gate in routing.gates[n])
        rows.append((repr(pieces[n]), " ".join(f"{e:>2}" for e in routing.chosen[n]), gates, f"{routing.gates[n].sum():.1f}"))
    say("\n" + table(rows, ("token", "experts, best first", "gates, eq. 13 times 2.5", "sum"), align="l"))


# Exercise 1: gates.


def check_gates_of(gates_of: Callable, logits: Array, bias: Array, top_ks: Iterable[int]) -> Report:
    """gates_of(logits, bias, top_k) beside the package's router."""
    usual = {"the gates are made of s + b; equation 13 makes them of s alone.": gates_from_biased_scores}
    return check.against(right_gates, gates_of, [(logits, bias, top_k) for top_k in top_ks], usual=usual)


def right_gates(logits: Array, bias: Array, top_k: int) -> Array:
    """Equations 13, 15 and 16 by the package."""
    return router.forward(logits, bias, top_k)[0].gates


def gates_from_biased_scores(logits: Array, bias: Array, top_k: int) -> Array:
    """Wrong: the right experts, and s + b in the place of s in equation 13."""
    routing, _ = router.forward(logits, bias, top_k)
    picked = np.take_along_axis(routing.scores + bias, routing.chosen, axis=-1)
    return picked / picked.sum(axis=-1, keepdims=True)


# Exercises 2 and 3: all experts, shared experts.


def check_all_experts(all_experts: Callable) -> Report:
    """The sum over all experts beside tokens that are sorted by expert, in the small layer."""
    layer = small_layer()
    routing, _ = router.forward(layer["u"] @ layer["centroids"].T, None, 2)
    weights = (layer["w_gate"], layer["w_up"], layer["w_down"])
    return check.against(sorted_experts, all_experts, layer["u"], routing.gates, routing.chosen, *weights)


def sorted_experts(u: Array, gates: Array, chosen: Array, w_gate: Array, w_up: Array, w_down: Array) -> Array:
    """The second sum of equation 12: dispatch, experts, combine."""
    plan = dispatch.plan(chosen, len(w_gate))
    rows, _ = dispatch.forward(u, plan)
    outputs, _ = grouped_feed_forward.forward(rows, plan.starts, w_gate, w_up, w_down)
    return combine.forward(outputs, gates, plan)[0]


def check_merged(merged: Callable) -> Report:
    """One network made of three shared experts beside the sum of the three, in the small layer."""
    layer = small_layer()
    shared = tuple(layer[name][:3] for name in ("w_gate", "w_up", "w_down"))
    size = layer["u"].shape[1]

    def one_by_one(u):
        parts = zip(*shared, strict=True)
        return sum(swiglu.forward(u @ gate.T, u @ up.T)[0] @ down.T for gate, up, down in parts)

    def as_one(u):
        gate, up, down = merged(*shared)
        return swiglu.forward(u @ gate.T, u @ up.T)[0] @ down.T

    def reshaped(u):
        gate, up = (w.reshape(-1, size) for w in shared[:2])
        return swiglu.forward(u @ gate.T, u @ up.T)[0] @ shared[2].reshape(size, -1).T

    as_one.__name__ = merged.__name__
    usual = {"the third matrix is a mere reshape, which mixes rows of different experts.": reshaped}
    return check.against(one_by_one, as_one, layer["u"], usual=usual)


# Exercise 4: the router, backwards.


def check_router_backward(router_forward: Callable, router_backward: Callable) -> Report:
    """Gradients of the logits beside central differences; the experts are those that a bias chose, three for each token."""
    layer = small_layer()
    logits, bias = layer["u"] @ layer["centroids"].T, 0.2 * np.random.default_rng(1).standard_normal(6)
    held = {"logits": logits, "chosen": router.choose(1 / (1 + np.exp(-logits)) + bias, 3)}
    usual = {"S, the sum in the gates' denominator, is taken for a constant; it moves with each score.": without_the_sum}
    return check.gradient(router_forward, router_backward, held, usual=usual)


def without_the_sum(d_gates: Array, saved: tuple[Array, Array]) -> Array:
    """Wrong: the sum S in the gates' denominator is taken for a constant."""
    scores, chosen = saved
    d_logits = []
    for n, its in enumerate(chosen):  # the package's, told that nothing is normalised, and that the factor is ρ / S
        constant = router.Saved(scores[n : n + 1], chosen[n : n + 1], "sigmoid", False, 2.5 / scores[n, its].sum())
        d_logits.append(router.backward(d_gates[n : n + 1], None, constant))
    return np.concatenate(d_logits)


# Section 9: a router that learns.


class Learned(NamedTuple):
    """A router of four experts in the plane, trained by its gradient alone."""

    centroids: Array  # (4, 3) at the end
    losses: Array  # (steps,)
    right: Array  # (steps,) share of tokens whose largest gate is that of the expert they need


def in_the_plane(points: Array) -> Array:
    """points (N, 2) → tokens (N, 3): the third coordinate is 1, so that a router can set the level of its scores."""
    return np.concatenate([points, np.ones((len(points), 1))], axis=1)


def learn(top_k: int, seed: int, steps: int = 400, rate: float = 3.0) -> Learned:
    """600 tokens. In each quarter of the plane another of four experts has the right answer, and the experts do not change.

    Expert i always says the i-th unit vector, so the layer's output is the gates themselves; the loss is the squared distance
    to the unit vector of the quarter. Only the centroids learn, by ``router.backward``.
    """
    rng = np.random.default_rng(seed)
    points = 1.5 * rng.standard_normal((600, 2))
    needed = (np.arctan2(points[:, 1], points[:, 0]) % (2 * np.pi) // (np.pi / 2)).astype(int)
    tokens = in_the_plane(points)
    centroids = np.concatenate([0.3 * rng.standard_normal((4, 2)), np.zeros((4, 1))], axis=1)
    losses, right = [], []
    for _ in range(steps):
        routing, saved = router.forward(tokens @ centroids.T, None, top_k)
        output = np.zeros((len(tokens), 4))
        np.put_along_axis(output, routing.chosen, routing.gates, axis=1)
        right.append(np.mean(output.argmax(axis=1) == needed))
        off = output - np.eye(4)[needed]
        losses.append(np.sum(off**2) / len(tokens))
        d_gates = np.take_along_axis(2 / len(tokens) * off, routing.chosen, axis=1)
        centroids = centroids - rate * router.backward(d_gates, None, saved).T @ tokens
    return Learned(centroids, np.array(losses), np.array(right))
