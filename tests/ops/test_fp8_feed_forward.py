"""SwiGLU networks in FP8 against the three linear maps, one expert at a time, and against the network without quantisation."""

import numpy as np
import pytest

from minids.ops import fp8_feed_forward, fp8_linear, grouped_feed_forward, quantise, swiglu
from minids.ops.fp8_feed_forward import dispatched
from minids.ops.fp8_linear import Scheme

RNG = np.random.default_rng(0)
LOADS = [[40], [17, 0, 9], [0, 5, 0, 30]]
RECIPES = {
    "V3's dense": Scheme(),
    "V3's experts": dispatched(Scheme()),
    "tiles of 8": dispatched(Scheme(8)),
    "tensor": Scheme(None),
}


def some(counts, hidden=24, width=20):
    experts, rows = len(counts), sum(counts)
    given = {
        "rows": RNG.standard_normal((rows, hidden)) * np.exp(RNG.normal(0, 1, (rows, 1))),
        "starts": np.concatenate([[0], np.cumsum(counts)]),
        "w_gate": RNG.standard_normal((experts, width, hidden)) / 5,
        "w_up": RNG.standard_normal((experts, width, hidden)) / 5,
        "w_down": RNG.standard_normal((experts, hidden, width)) / 5,
    }
    given = {name: value if name == "starts" else value.astype(np.float32) for name, value in given.items()}
    return given, RNG.standard_normal((rows, hidden)).astype(np.float32)


def by_linear_maps(given, dy, scheme):
    """y, d_rows and the weights' gradients from fp8_linear, expert by expert. Per tensor, a tensor is what all rows make up, so
    this emulation is for tiles."""
    rows, starts = given["rows"], given["starts"]
    plain = Scheme(scheme.tile)
    of_down = plain._replace(round_gradients=scheme.round_gradients)
    of_up = scheme._replace(round_gradients=False)
    y, d_rows = np.zeros_like(rows), np.zeros_like(rows)
    d_weights = {name: np.zeros_like(given[name]) for name in ("w_gate", "w_up", "w_down")}
    for e in range(len(starts) - 1):
        own = slice(starts[e], starts[e + 1])
        if own.start == own.stop:
            continue
        gate, saved_gate = fp8_linear.forward(rows[own], given["w_gate"][e], None, of_up)
        up, saved_up = fp8_linear.forward(rows[own], given["w_up"][e], None, of_up)
        act, _ = swiglu.forward(gate, up)
        y[own], saved_down = fp8_linear.forward(act, given["w_down"][e], None, of_down)
        # Backward, from what is kept: gate and up in FP8.
        gate, up = quantise.rounded(gate, plain.row), quantise.rounded(up, plain.row)
        act, inner = swiglu.forward(gate, up)
        d_act, _, _ = fp8_linear.backward(dy[own], saved_down)
        arrived = quantise.rounded(dy[own], plain.row, power_of_two=True) if scheme.round_gradients else dy[own]
        d_weights["w_down"][e] = fp8_linear.weight_gradient(arrived, act, of_down)
        d_gate, d_up = swiglu.backward(d_act, inner)
        from_gate, d_weights["w_gate"][e], _ = fp8_linear.backward(d_gate, saved_gate)
        from_up, d_weights["w_up"][e], _ = fp8_linear.backward(d_up, saved_up)
        d_rows[own] = from_gate + from_up
    return y, d_rows, d_weights["w_gate"], d_weights["w_up"], d_weights["w_down"]


@pytest.mark.parametrize("counts", LOADS, ids=str)
@pytest.mark.parametrize("name", [name for name in RECIPES if name != "tensor"])
def test_it_is_three_linear_maps_around_a_swiglu_that_is_kept_in_fp8(name, counts):
    given, dy = some(counts)
    dy *= 2.0 ** RNG.integers(-16, 1, dy.shape)  # so wide a range that a row's small numbers lose digits
    y, saved = fp8_feed_forward.forward(**given, scheme=RECIPES[name])
    got = (y, *fp8_feed_forward.backward(dy, saved))
    for ours, want, what in zip(got, by_linear_maps(given, dy, RECIPES[name]), ("y", "dx", "gate", "up", "down"), strict=True):
        np.testing.assert_allclose(ours, want, rtol=1e-5, atol=1e-5 * np.abs(want).max(), err_msg=f"{name}: {what}")


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("counts", LOADS, ids=str)
def test_every_result_is_a_few_per_cent_from_the_network_without_quantisation(name, counts):
    given, dy = some(counts)
    exact_y, exact_saved = grouped_feed_forward.forward(**given)
    y, saved = fp8_feed_forward.forward(**given, scheme=RECIPES[name])
    exact = (exact_y, *grouped_feed_forward.backward(dy, exact_saved))
    got = (y, *fp8_feed_forward.backward(dy, saved))
    for ours, want, what in zip(got, exact, ("y", "d_rows", "d_w_gate", "d_w_up", "d_w_down"), strict=True):
        assert ours.dtype == np.float32
        error = np.linalg.norm(ours - want) / np.linalg.norm(want)
        assert 0.002 < error < 0.2, f"{name}: {what} is off by {error:.3f}"


def test_what_is_kept_is_bytes():
    given, _ = some([40])
    _, saved = fp8_feed_forward.forward(**given)
    for kept in (saved.rows, saved.gate, saved.up, *saved.weights[0]):
        assert kept.codes.dtype == np.uint8
    assert not any(isinstance(part, np.ndarray) and part.dtype.kind == "f" for part in saved), "a matrix is kept in float32"


def test_dispatched_rounds_the_scales_of_what_travels_and_no_others():
    given, _ = some([40])
    _, saved = fp8_feed_forward.forward(**given, scheme=dispatched(Scheme()))

    def powers(q):
        return (np.frexp(q.scales)[0] == 0.5).all()

    assert powers(saved.rows) and not powers(saved.gate) and not powers(saved.weights[0][0])


def test_an_unused_expert_gets_a_gradient_of_exactly_zero():
    given, dy = some([17, 0, 9])
    _, saved = fp8_feed_forward.forward(**given)
    for d_weight in fp8_feed_forward.backward(dy, saved)[1:]:
        assert not d_weight[1].any() and d_weight[0].any() and d_weight[2].any()
