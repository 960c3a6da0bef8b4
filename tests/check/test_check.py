"""The learner's check must pass what is right, fail what is wrong, and say the right thing about it.

Every diagnosis is proved with the mistake it describes, planted in an operation of the kind the notebooks teach: linear,
RMSNorm, attention whose key is shared by all heads, RoPE, a sigmoid router. The operations are written out here, so that the
check does not depend on the code that it will judge.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from minids import check
from minids.errors import MinidsError

B, T, H, D = 2, 6, 5, 8
HINTS = {"B": B, "T": T, "n_heads": H}


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


# --- The operations, right.


def linear(x, w):
    return x @ w.T, (x, w)


def linear_backward(dy, saved):
    x, w = saved
    return dy @ w, dy.reshape(-1, len(w)).T @ x.reshape(-1, w.shape[1])


def rmsnorm(x, gain, eps=1e-6):
    rstd = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
    return x * rstd * gain, (x * rstd, rstd, gain)


def rmsnorm_backward(dy, saved):
    n, rstd, gain = saved
    u = dy * gain
    return rstd * (u - n * np.mean(u * n, axis=-1, keepdims=True)), np.sum(dy * n, axis=(0, 1))


def softmax(z):
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


def attention(q, k, v):
    """Causal; q (B, T, H, D), k (B, T, D) shared by all heads, v (B, T, H, D)."""
    scores = np.einsum("bthd,bsd->bhts", q, k) / np.sqrt(q.shape[-1])
    time_axis = np.arange(q.shape[1])
    p = softmax(np.where(time_axis[:, None] >= time_axis, scores, -np.inf))
    return np.einsum("bhts,bshd->bthd", p, v), (q, k, v, p)


def attention_scores_backward(do, saved):
    """dz (B, H, T, T), the gradient of the scaled scores, and dv."""
    _, _, v, p = saved
    dp = np.einsum("bthd,bshd->bhts", do, v)
    dz = p * (dp - np.sum(p * dp, axis=-1, keepdims=True))
    return dz, np.einsum("bhts,bthd->bshd", p, do)


def attention_backward(do, saved):
    q, k, _, _ = saved
    scale = 1 / np.sqrt(D)
    dz, dv = attention_scores_backward(do, saved)
    return scale * np.einsum("bhts,bsd->bthd", dz, k), scale * np.einsum("bhts,bthd->bsd", dz, q), dv


def angles(length, width, start=0):
    return np.arange(start, start + length)[:, None] * 100.0 ** (-np.arange(0, width, 2) / width)  # (T, width/2)


def rope(x, sign=1, start=0):
    """x (B, T, H, D), pairs side by side."""
    theta = sign * angles(x.shape[1], x.shape[-1], start)[:, None]
    y = np.empty_like(x)
    y[..., ::2] = x[..., ::2] * np.cos(theta) - x[..., 1::2] * np.sin(theta)
    y[..., 1::2] = x[..., ::2] * np.sin(theta) + x[..., 1::2] * np.cos(theta)
    return y


def rope_half(x):
    """The same pairs, written to the first and the second half."""
    y = rope(x)
    return np.concatenate([y[..., ::2], y[..., 1::2]], axis=-1)


class Routed(NamedTuple):
    weights: np.ndarray  # (N, K)
    experts: np.ndarray  # (N, K)


def router(x, w, experts=None, top_k=2):
    s = 1 / (1 + np.exp(-x @ w.T))  # (N, E)
    if experts is None:
        experts = np.argsort(-s, axis=-1, kind="stable")[:, :top_k]
    chosen = np.take_along_axis(s, experts, axis=-1)
    return Routed(chosen / chosen.sum(axis=-1, keepdims=True), experts), (x, w, s, experts)


def router_backward(dy, saved):
    x, w, s, experts = saved
    chosen = np.take_along_axis(s, experts, axis=-1)
    total = chosen.sum(axis=-1, keepdims=True)
    d_chosen = (dy.weights - np.sum(dy.weights * chosen, axis=-1, keepdims=True) / total) / total
    ds = np.zeros_like(s)
    np.put_along_axis(ds, experts, d_chosen, axis=-1)
    dz = ds * s * (1 - s)
    return dz @ w, dz.T @ x


LINEAR = {"x": draw(B, T, D), "w": draw(5, D)}
NORM = {"x": draw(B, T, D), "gain": draw(D), "eps": 1e-6}
ATTENTION = {"q": draw(B, T, H, D), "k": draw(B, T, D), "v": draw(B, T, H, D, seed=1)}
ROPE = {"x": draw(B, T, H, D)}
ROUTER = {"x": draw(7, D), "w": draw(5, D)}


def linear_check(backward, **options):
    return check.gradient(linear, backward, LINEAR, **options)


def attention_check(backward, **options):
    return check.gradient(attention, backward, ATTENTION, hints=HINTS, **options)


def planted(backward, index, change):
    """The right backward pass with one of its gradients changed."""

    def wrong(dy, saved):
        gradients = list(backward(dy, saved))
        gradients[index] = change(gradients[index])
        return tuple(gradients)

    return wrong


def says(report, *phrases):
    """The report is false, its text holds every phrase, and raising shows the same text."""
    text = str(report)
    assert not report, f"the check passed a planted mistake: {text}"
    for phrase in phrases:
        assert phrase in text, f"expected {phrase!r} in:\n{text}"
    with pytest.raises(AssertionError) as raised:
        report.raise_if_wrong()
    assert str(raised.value) == text


# --- Right is right.

RIGHT = {
    "linear": (linear, linear_backward, LINEAR, {}),
    "rmsnorm": (rmsnorm, rmsnorm_backward, NORM, {}),
    "attention": (attention, attention_backward, ATTENTION, {}),
    "rope": (rope, lambda dy, _: rope(dy, sign=-1), ROPE, {}),
    "router": (router, router_backward, ROUTER, {}),
    "router, frozen": (router, router_backward, ROUTER, {"frozen": lambda y: {"experts": y.experts}}),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_gradients_pass_far_below_the_tolerance(name):
    forward, backward, inputs, options = RIGHT[name]
    report = check.gradient(forward, backward, inputs, **options)
    report.raise_if_wrong()
    assert report.worst < 3e-9, f"the differences should be good to about 1e-9: {report}"
    assert str(report).startswith("✓")


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3])
def test_right_gradients_pass_at_any_scale_of_the_inputs(scale):
    """The step follows the scale of the argument, also where the function normalises it."""
    check.gradient(rmsnorm, rmsnorm_backward, {**NORM, "x": scale * NORM["x"], "eps": 1e-14}).raise_if_wrong()
    check.gradient(linear, linear_backward, {"x": LINEAR["x"], "w": scale * LINEAR["w"]}).raise_if_wrong()


def test_where_the_function_bends_sharply_the_step_is_made_smaller():
    sharp = {**ATTENTION, "q": 30 * ATTENTION["q"]}
    check.gradient(attention, attention_backward, sharp).raise_if_wrong()

    def backward(dy, saved):
        return 300 * dy / np.cosh(300 * saved[0]) ** 2

    report = check.gradient(lambda x: np.tanh(300 * x), backward, {"x": np.array([0.001, 0.004, 1.0])})
    report.raise_if_wrong()
    assert report.worst < 1e-8, f"the steps should settle: {report}"


def test_float32_and_zero_inputs_are_taken_to_float64():
    check.gradient(linear, linear_backward, {"x": LINEAR["x"].astype(np.float32), "w": np.zeros((5, D))}).raise_if_wrong()


def test_a_scalar_loss_and_a_forward_without_saved():
    """Where forward returns y alone, backward gets the inputs."""

    def backward(dy, inputs):
        return 2 * dy * inputs[0]

    check.gradient(lambda x: np.sum(x * x), backward, {"x": draw(3, 4)}).raise_if_wrong()


def test_nested_outputs_keyword_only_arguments_and_wrt():
    def forward(x, w, *, power, flag=True):
        assert flag == "yes"
        return ({"a": x**power, "b": [w * 2, np.arange(3)]}, None), "saved"

    def backward(dy, saved):
        assert saved == "saved" and dy[1] is None and dy[0]["b"][1] is None
        return 3 * dy[0]["a"] * X**2

    X = draw(4)
    report = check.gradient(forward, backward, {"x": X, "w": draw(2), "power": 3, "flag": "yes"}, wrt=["x"])
    report.raise_if_wrong()
    assert list(report.checked) == ["dx"], "only the input in wrt is compared"


def test_the_given_cotangent_is_used():
    dy = np.zeros((B, T, 5))
    dy[0, 0, 0] = 1.0
    seen = []
    report = linear_check(lambda dy, saved: (seen.append(dy.copy()), linear_backward(dy, saved))[1], dy=dy)
    report.raise_if_wrong()
    assert np.array_equal(seen[0], dy)


def test_the_same_check_twice_gives_the_same_report():
    once, again = (attention_check(attention_backward, seed=3, samples=20) for _ in range(2))
    assert once.checked == again.checked


def test_an_operation_of_two_thousand_elements_takes_less_than_a_second():
    """Counted in forward passes, not in seconds: four for every element would be 8,000."""
    calls = []
    inputs = {name: draw(20, 20, seed=i) for i, name in enumerate("abcde")}

    def forward(*arrays):
        calls.append(1)
        return np.tanh(sum(arrays)), sum(arrays)

    check.gradient(forward, lambda dy, s: (dy / np.cosh(s) ** 2,) * 5, inputs).raise_if_wrong()
    assert len(calls) < 4000, f"{len(calls)} forward passes"


# --- Wrong gradients, each with its words.

KEY_MISTAKES = {
    "averaged over the heads": (
        lambda dk: dk / H,
        ["dk:", "5.000× too small", "5 is the number of heads", "averaged over the heads"],
    ),
    "added once per head": (lambda dk: dk * H, ["5.000× too large", "5 is the number of heads", "summed over the heads"]),
    "minus": (lambda dk: -dk, ["the sign is flipped"]),
    "zero": (lambda dk: 0 * dk, ["zero everywhere", "no gradient arrives", "detached"]),
    "scale forgotten": (lambda dk: dk * np.sqrt(D), ["2.828× too large", "square root of 8", "1/√8 missing?"]),
    "scale twice": (lambda dk: dk / np.sqrt(D), ["2.828× too small", "1/√8 applied once too often?"]),
    "twice": (lambda dk: dk * -2, ["2.000× too large and has the wrong sign"]),
    "only the first position": (
        lambda dk: np.where(np.arange(T)[:, None] == 0, dk, dk * 0.7),
        [
            "right at index 0 of axis 1 (the positions) and wrong later. If that axis is time",
            "There, your dk is 1.429× too small",
        ],
    ),
    "only the first chunk": (
        lambda dk: np.where(np.arange(T)[:, None] < 4, dk, 0.0),
        ["right up to index 3 of axis 1", "wrong from 4 on", "There, it is zero everywhere"],
    ),
    "two rows": (
        lambda dk: np.where(np.isin(np.arange(T), [1, 4])[:, None], -dk, dk),
        ["wrong only at index 1, 4 of axis 1", "right at the other 4 of 6. There, the sign is flipped"],
    ),
    "the content part": (
        lambda dk: np.where(np.arange(D) < 5, dk + 1, dk),
        ["wrong up to index 4 of axis 2", "right from 5 on"],
    ),
    "half-split": (
        lambda dk: np.concatenate([dk[..., ::2], dk[..., 1::2]], axis=-1),
        ["re-ordering the last axis", "yours is half-split, expected is interleaved"],
    ),
    "interleaved": (
        lambda dk: dk.reshape(B, T, 2, D // 2).swapaxes(-1, -2).reshape(B, T, D),
        ["yours is interleaved", "expected is half-split"],
    ),
    "shifted": (lambda dk: np.roll(dk, 1, axis=1), ["off by one along axis 1", "one index later"]),
    "shifted back": (lambda dk: np.roll(dk, -1, axis=1), ["off by one along axis 1", "one index earlier"]),
    "reversed": (lambda dk: dk[:, ::-1], ["axis 1 (the positions) runs backwards"]),
    "a constant per row": (
        lambda dk: dk - dk.mean(axis=-1, keepdims=True),
        ["off by an additive constant", "subtracts the mean over the last axis, as in softmax"],
    ),
    "a little": (lambda dk: dk + 1e-5 * np.abs(draw(B, T, D)), ["nearly right", "float32"]),
    "noise": (lambda dk: dk + draw(B, T, D, seed=9), ["none of the usual ones fits", "96 of 96 entries"]),
    "not a number": (
        lambda dk: np.where(np.arange(T)[:, None] == 0, np.nan, dk),
        ["NaN in 16 of 96 entries, first at [0, 0, 0]", "wrong only at index 0 of axis 1"],
    ),
    "infinite": (lambda dk: np.where(np.arange(D) == 3, np.inf, dk), ["inf in 12 of 96 entries", "index 3 of axis 2"]),
    "float32": (lambda dk: dk.astype(np.float32), ["dk: is float32, expected float64", "a cast"]),
    "whole numbers": (lambda dk: dk.astype(int), ["dk: is int64, expected float64"]),
    "none": (lambda dk: None, ["dk: is None"]),
    "text": (lambda dk: "later", ["dk: is str"]),
    "wrong axes": (lambda dk: dk.swapaxes(1, 2), ["has shape (2, 8, 6), expected (2, 6, 8)", ".transpose(0, 2, 1)"]),
    "flattened": (lambda dk: dk.reshape(B * T, D), ["has shape (12, 8), expected (2, 6, 8)", ".reshape(2, 6, 8)"]),
    "summed over the batch": (lambda dk: dk.sum(axis=0), ["has shape (6, 8)", "the right one summed over axis 0"]),
    "nonsense shape": (lambda dk: np.ones(3), ["has shape (3,), expected (2, 6, 8)"]),
}


@pytest.mark.parametrize("name", KEY_MISTAKES)
def test_mistakes_in_the_gradient_of_the_shared_key(name):
    change, phrases = KEY_MISTAKES[name]
    report = attention_check(planted(attention_backward, 1, change))
    says(report, *phrases)
    if name not in ("none", "text"):
        assert "(dq, dv right)" in str(report), f"the other two are right and should be said to be:\n{report}"


def test_shared_key_not_summed_over_the_heads():
    def backward(do, saved):
        dz, dv = attention_scores_backward(do, saved)
        dk = np.einsum("bhts,bthd->bshd", dz, saved[0]) / np.sqrt(D)  # (B, T, H, D)
        return attention_backward(do, saved)[0], dk, dv

    says(
        attention_check(backward), "has shape (2, 6, 5, 8), expected (2, 6, 8)", "summing over axis 2 (5, the number of heads)"
    )


def test_key_of_only_the_first_head_has_no_simple_cause_but_is_found():
    def backward(do, saved):
        dz, dv = attention_scores_backward(do, saved)
        return attention_backward(do, saved)[0], np.einsum("bts,btd->bsd", dz[:, 0], saved[0][:, :, 0]) / np.sqrt(D), dv

    says(attention_check(backward), "dk: relative error")


def test_gradients_in_another_order():
    def backward(do, saved):
        dq, dk, dv = attention_backward(do, saved)
        return dv, dk, dq

    says(attention_check(backward), "dq: relative error", "this is what dv should be", "swapped")


def test_gradients_in_another_order_with_other_shapes():
    def backward(dy, saved):
        return linear_backward(dy, saved)[::-1]

    says(linear_check(backward), "dx: has shape (5, 8), expected (2, 6, 8)", "this is what dw should be")


def test_a_square_weight_gradient_transposed():
    inputs = {"x": draw(T, D), "w": draw(D, D)}
    report = check.gradient(linear, planted(linear_backward, 1, np.transpose), inputs)
    says(report, "dw:", "it is transposed: right after swapping axes 0 and 1", "dx right")


def test_weight_gradient_averaged_over_the_tokens():
    report = linear_check(planted(linear_backward, 1, lambda dw: dw / (B * T)))
    says(report, "12.00× too small", "12 is the number of tokens in x", "averaged over the tokens")


def test_bias_gradient_without_its_sum():
    def forward(x, bias):
        return x + bias, None

    report = check.gradient(forward, lambda dy, _: (dy, dy), {"x": draw(B, T, D), "bias": draw(D)}, hints=HINTS)
    says(report, "d_bias: has shape (2, 6, 8), expected (8,)", "right after summing over axes 0, 1", "number of positions")


RMSNORM_MISTAKES = {
    "without the mean term": (lambda n, rstd, gain, u: rstd * u, ["off by a multiple of x", "subtracts the mean", "RMSNorm"]),
    "without the gain": (
        lambda n, rstd, gain, u: rstd * (u / gain - n * np.mean(u * n, axis=-1, keepdims=True) / gain),
        ["multiplying by gain", "missing?"],
    ),
    "gain twice": (
        lambda n, rstd, gain, u: gain * rstd * (u - n * np.mean(u * n, axis=-1, keepdims=True)),
        ["dividing by gain", "once too often?"],
    ),
    "without rstd": (
        lambda n, rstd, gain, u: u - n * np.mean(u * n, axis=-1, keepdims=True),
        ["every row (along the last axis) is right up to a factor of its own", "rstd"],
    ),
    "sum for mean": (
        lambda n, rstd, gain, u: rstd * (u - n * np.sum(u * n, axis=-1, keepdims=True)),
        ["off by a multiple of x"],
    ),
}


@pytest.mark.parametrize("name", RMSNORM_MISTAKES)
def test_mistakes_in_rmsnorm(name):
    formula, phrases = RMSNORM_MISTAKES[name]

    def backward(dy, saved):
        n, rstd, gain = saved
        return formula(n, rstd, gain, dy * gain), np.sum(dy * n, axis=(0, 1))

    says(check.gradient(rmsnorm, backward, NORM), "dx: relative error", "d_gain right", *phrases)


def test_softmax_without_the_term_of_the_sum():
    def forward(z):
        p = softmax(z)
        return p, p

    report = check.gradient(forward, lambda dp, p: p * dp, {"z": draw(T, D)})
    says(report, "dz:", "off by a multiple of y", "softmax")


def test_layernorm_without_the_mean_is_off_by_a_constant():
    def forward(x):
        return x - x.mean(axis=-1, keepdims=True), None

    says(check.gradient(forward, lambda dy, _: dy, {"x": draw(T, D)}), "off by an additive constant", "mean over the last axis")


def test_a_forgotten_upstream_gradient():
    says(check.gradient(np.sin, lambda dy, saved: np.cos(saved[0]), {"x": draw(T, D)}), "multiplying by dy", "missing?")


def test_a_gain_per_column_that_is_no_input():
    table = np.linspace(1.1, 2, D)

    def forward(x):
        return x * table, None

    says(check.gradient(forward, lambda dy, _: dy, {"x": draw(T, D)}), "every column (index of the last axis)")


def test_rope_backward_turned_the_wrong_way():
    report = check.gradient(rope, lambda dy, _: rope(dy), ROPE, hints=HINTS)
    says(report, "right at index 0 of axis 1 (the positions)", "right length and the wrong angle", "turns by minus the angle")


def test_rope_backward_with_positions_off_by_one():
    report = check.gradient(rope, lambda dy, _: rope(dy, sign=-1, start=1), ROPE)
    says(report, "right length and the wrong angle, as in RoPE")


def test_a_gradient_where_none_should_be():
    def forward(x, unused):
        return x * x, x

    report = check.gradient(forward, lambda dy, x: (2 * x * dy, np.ones(3)), {"x": draw(4), "unused": draw(3)})
    says(report, "d_unused:", "it should be zero everywhere")


def test_router_with_the_choice_in_the_wrong_form():
    """The gate without the derivative of its normalisation."""

    def backward(dy, saved):
        x, w, s, experts = saved
        chosen = np.take_along_axis(s, experts, axis=-1)
        ds = np.zeros_like(s)
        np.put_along_axis(ds, experts, dy.weights / chosen.sum(axis=-1, keepdims=True), axis=-1)
        dz = ds * s * (1 - s)
        return dz @ w, dz.T @ x

    says(check.gradient(router, backward, ROUTER), "dx: relative error", "dw: relative error")


# --- Choices that flip.


def near_tie():
    inputs = {"x": ROUTER["x"].copy(), "w": ROUTER["w"].copy()}
    experts = router(**inputs)[0].experts
    inputs["w"][experts[0, 2 - 1]] = inputs["w"][experts[0, 0]] + 1e-5  # first and second of token 0 nearly tie
    return inputs


def test_a_choice_that_flips_is_named_and_freezing_it_helps():
    inputs = near_tie()
    report = check.gradient(router, router_backward, inputs)
    says(report, "integer output y.experts changed", "the choice of experts flipped; freeze it")
    check.gradient(router, router_backward, inputs, frozen=lambda y: {"experts": y.experts}).raise_if_wrong()
    check.gradient(router, router_backward, inputs, frozen={"experts": router(**inputs)[0].experts}).raise_if_wrong()


def test_a_wrong_gradient_is_found_with_the_choice_frozen():
    wrong = planted(router_backward, 1, lambda dw: dw * 3)
    says(check.gradient(router, wrong, near_tie(), frozen=lambda y: {"experts": y.experts}), "dw:", "3.000× too large")


def test_freezing_something_else_than_was_chosen_is_noticed():
    report = check.gradient(router, router_backward, ROUTER, frozen={"experts": np.zeros((7, 2), int)})
    says(report, "gives another y.weights with experts frozen")


def test_a_hidden_choice_shows_as_a_jump():
    def forward(x):
        return np.where(x > 0.5, 3.0 + x, x), x

    report = check.gradient(forward, lambda dy, x: dy, {"x": np.array([0.1, 0.5 - 1e-9, 0.9])})
    says(report, "worst at [1]", "jumps or has a kink near x[1]", "freeze it")


# --- Nothing can pass by accident.


@pytest.mark.parametrize("fill", [0.0, np.nan, np.inf, 1.0, 1e-30])
def test_a_constant_gradient_never_passes(fill):
    def backward(dy, saved):
        return tuple(np.full_like(x, fill) for x in saved)

    report = linear_check(backward)
    assert not report and {finding.what for finding in report.findings} == {"dx", "dw"}, str(report)


@pytest.mark.parametrize("size", [1e-9, 1e-4, 1.0])
def test_one_wrong_element_among_small_ones_is_found(size):
    """An element a hundred million times smaller than the largest still counts."""
    scale = np.array([1.0, 1e-3, 1e-8, 1.0]) * size

    def forward(x):
        return x * scale, None

    check.gradient(forward, lambda dy, _: dy * scale, {"x": draw(4)}).raise_if_wrong()
    says(check.gradient(forward, lambda dy, _: dy * scale * [1, 1, 0, 1], {"x": draw(4)}), "1 of 4 entries", "at [2]")


@pytest.mark.parametrize("place", [0, 777, 9_999])
def test_one_wrong_element_that_no_sample_met_is_found(place):
    def backward(dy, saved):
        gradient = 2 * dy * saved[0]
        gradient.flat[place] += 1.0
        return gradient

    report = check.gradient(lambda x: x * x, backward, {"x": draw(10_000)}, samples=5)
    says(report, "dx:", "right at the 5 elements probed and wrong elsewhere")
    small = check.gradient(lambda x: x * x, backward, {"x": draw(1000)}, samples=5) if place < 1000 else None
    if small is not None:
        says(small, "1 of 1000 entries are wrong", f"worst at [{place}]")


def test_large_outputs_that_do_not_move_hide_nothing():
    """They cancel exactly, so their round-off is not held in favour of a wrong gradient."""

    def forward(x):
        return np.concatenate([x, np.full(3, 1e12)]), None

    check.gradient(forward, lambda dy, _: dy[:4], {"x": draw(4)}).raise_if_wrong()
    says(check.gradient(forward, lambda dy, _: dy[:4] * (1 + 1e-5), {"x": draw(4)}), "dx: relative error 1e-05")


@pytest.mark.parametrize("shape", [(6, 1), (1, 6), (4, 2), (1,), ()])
def test_rows_too_short_to_tell_a_cause_name_none(shape):
    """One entry per row or column fits any factor and any term of its own."""
    report = check.close(draw(*shape, seed=3), draw(*shape, seed=4))
    says(report, "entries are wrong")
    for phrase in ("factor of its own", "additive constant", "off by a multiple"):
        assert phrase not in str(report), f"claims more than the numbers tell: {report}"


def test_a_gradient_that_cancels_to_zero_is_right_to_round_off():
    """The weights of a softmax sum to 1 whatever the scores are; the differences give 1e-13 or so, backward gives 0."""
    sums = check.gradient(lambda z: softmax(z).sum(axis=-1), lambda dy, saved: 0 * saved[0], {"z": draw(T, D)})
    sums.raise_if_wrong()
    assert "dz is zero everywhere here" in str(sums)


def test_a_report_without_anything_compared_is_false():
    assert not check.Report("nothing", {}, (), 1e-7)


def test_a_gradient_that_is_zero_here_is_said_to_prove_little():
    def forward(x, scale):
        return x * scale, (x, scale)

    def backward(dy, saved):
        x, scale = saved
        return dy * scale, np.sum(dy * x, axis=0)

    report = check.gradient(forward, backward, {"x": draw(T, D), "scale": np.zeros(D)})
    report.raise_if_wrong()
    assert "dx is zero everywhere here" in str(report)


def test_a_forward_that_gives_nan_is_not_a_pass():
    says(
        check.gradient(np.log, lambda dy, saved: dy / saved[0], {"x": np.array([1.0, -1.0])}),
        "forward: gives NaN or inf at y[1]",
    )


def test_a_forward_that_gives_nan_only_when_probed_is_not_a_pass():
    def forward(x):
        return np.where(x == 1.0, x, np.nan)

    says(check.gradient(forward, lambda dy, saved: dy, {"x": np.ones(3)}), "gives NaN or inf when x[0] is moved")


# --- Functions that misbehave.


def broken_einsum(dy, saved):
    wrong = np.einsum("ij,jk->ik", dy, saved[0])
    return wrong, wrong


def test_an_exception_becomes_one_line_with_the_learners_own_line():
    report = linear_check(broken_einsum)
    says(report, "backward: raised ValueError:", "test_check.py, line", 'in broken_einsum: wrong = np.einsum("ij,jk->ik"')
    assert isinstance(report.exception, ValueError) and "Traceback" not in str(report)


def test_an_exception_in_forward_and_a_wrong_number_of_arguments():
    says(check.gradient(lambda x: x @ x, linear_backward, {"x": draw(2, 3)}), "forward: raised ValueError")
    says(check.gradient(lambda: 0, linear_backward, {"x": draw(2, 3)}), "forward: raised TypeError", "could not be called")
    says(check.gradient(lambda x: x, lambda dy: dy, {"x": draw(2, 3)}), "backward: raised TypeError")


def test_the_number_of_gradients():
    says(
        linear_check(lambda dy, saved: linear_backward(dy, saved)[0]),
        "backward: returned 1",
        "where 2 gradients are expected: of x, w",
    )
    says(linear_check(lambda dy, saved: (*linear_backward(dy, saved), dy)), "returned 3 where 2")


def test_inputs_changed_in_place():
    def forward(x, w):
        x *= 2
        return x @ w.T, (x.copy(), w)

    def backward(dy, saved):
        dx, dw = linear_backward(dy, saved)
        return 2 * dx, dw

    report = check.gradient(forward, backward, LINEAR)
    says(report, "forward: changes its input ['x'] in place", "(dx, dw right)")


def test_dy_and_saved_inputs_changed_in_place():
    def spoils_dy(dy, saved):
        result = linear_backward(dy, saved)
        dy *= 0
        return result

    def spoils_input(dy, saved):
        result = linear_backward(dy, saved)
        saved[1][...] = 0
        return result

    says(linear_check(spoils_dy), "backward: changes dy in place")
    says(linear_check(spoils_input), "backward: changes the input ['w'] in place")


def test_a_backward_that_uses_up_what_was_saved_passes_with_a_note():
    def forward(x):
        return np.sin(x), {"cos": np.cos(x)}

    def backward(dy, saved):
        saved["cos"] *= dy
        return saved["cos"]

    report = check.gradient(forward, backward, {"x": draw(5)})
    report.raise_if_wrong()
    assert "backward changes what forward saved" in str(report)


def test_results_that_differ_from_call_to_call():
    generator, total = np.random.default_rng(0), [np.zeros((5, D))]

    def accumulates(dy, saved):
        dx, dw = linear_backward(dy, saved)
        total[0] = total[0] + dw
        return dx, total[0]

    def dropout(x):
        return x * (generator.random(x.shape) > 0.5)

    says(check.gradient(dropout, lambda dy, saved: dy, {"x": draw(50)}), "forward: is not deterministic")
    says(linear_check(accumulates), "backward: is not deterministic", "added into an array kept between calls")


def test_forms_of_output_that_cannot_be_checked():
    says(check.gradient(lambda x: (x, x, x), lambda dy, s: dy, {"x": draw(3)}), "returned a tuple of 3", "((a, b), saved)")
    says(check.gradient(lambda x: np.arange(3), lambda dy, s: dy, {"x": draw(3)}), "returned no array of floats")
    says(check.gradient(lambda x: "text", lambda dy, s: dy, {"x": draw(3)}), "y: is str")
    says(check.gradient(lambda x: x.astype(np.float32), lambda dy, s: dy, {"x": draw(3)}), "y is float32 for float64 inputs")


def test_a_float32_pass_can_be_checked_to_its_own_precision():
    report = check.gradient(
        lambda x: np.sin(x.astype(np.float32)),
        lambda dy, saved: (dy * np.cos(saved[0])).astype(np.float32),
        {"x": draw(20)},
        tolerance=1e-3,
    )
    report.raise_if_wrong()
    wrong = check.gradient(
        lambda x: np.sin(x.astype(np.float32)), lambda dy, s: dy * np.sin(s[0]), {"x": draw(20)}, tolerance=1e-3
    )
    assert not wrong, "at float32 precision a wrong derivative must still fail"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"inputs": [1.0]}, "inputs = 'list'"),
        ({"inputs": {"n": 3}}, "no float array"),
        ({"inputs": {"x": np.array([np.nan])}}, "must be finite"),
        ({"inputs": {"x": draw(3)}, "wrt": ["z"]}, "wrt = 'z'"),
        ({"inputs": {"x": draw(3)}, "dy": draw(4)}, "must have the shape of its output, (3,)"),
        ({"inputs": {"x": draw(3)}, "dy": (draw(3), draw(3))}, "must have the form of y"),
        ({"inputs": {"x": draw(3)}, "samples": 0}, "samples = 0"),
        ({"inputs": {"x": draw(3)}, "eps": -1.0}, "eps = -1.0"),
        ({"inputs": {"x": draw(3)}, "tolerance": 0.0}, "tolerance = 0.0"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(options, field):
    with pytest.raises(MinidsError) as refused:
        check.gradient(lambda x: x, lambda dy, saved: dy, **options)
    assert field in str(refused.value)


# --- Against a reference.


def test_a_right_function_agrees_with_its_reference_in_both_precisions():
    x, gain = NORM["x"], NORM["gain"]

    def mine(x, gain, eps=1e-6):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * gain

    check.against(lambda *a: rmsnorm(*a)[0], mine, x, gain).raise_if_wrong()
    check.against(lambda *a: rmsnorm(*a)[0], mine, [(x, gain), (3 * x, gain)]).raise_if_wrong()

    def in_float32(x, gain):
        return mine(x.astype(np.float32), gain.astype(np.float32))

    report = check.against(lambda *a: rmsnorm(*a)[0], in_float32, x, gain)
    report.raise_if_wrong()
    assert "y is float32, expected float64: compared to 1e-05" in str(report)
    says(check.against(lambda *a: rmsnorm(*a)[0], in_float32, x, gain, tolerance=1e-9), "nearly right")


def test_argument_sets_may_be_keywords():
    def swapped(gain, x):
        return rmsnorm(x, gain)[0]

    sets = [{"x": NORM["x"], "gain": NORM["gain"]}, {"gain": 2 * NORM["gain"], "x": NORM["x"]}]
    check.against(lambda x, gain: rmsnorm(x, gain)[0], swapped, sets).raise_if_wrong()


class Saved(NamedTuple):
    x: np.ndarray


def test_what_is_saved_is_not_compared():
    def reference(x):
        return np.sin(x), Saved(x)

    check.against(reference, np.sin, draw(4)).raise_if_wrong()
    check.against(reference, lambda x: (np.sin(x), "anything"), draw(4)).raise_if_wrong()
    says(check.against(reference, np.cos, draw(4)), "y: relative error")


def test_nested_outputs_are_compared_by_the_names_of_the_reference():
    def mine(x, w):
        (weights, experts), _ = router(x, w)
        return 2.5 * weights, experts

    report = check.against(lambda x, w: router(x, w)[0], mine, *ROUTER.values())
    says(report, "y.weights: relative error", "2.500× too large", "(y.experts right)")


def test_chosen_experts_must_be_equal_and_the_order_is_explained():
    def other_order(x, w):
        (weights, experts), _ = router(x, w)
        return weights, experts[:, ::-1]

    def other_choice(x, w):
        (weights, experts), _ = router(x, w)
        experts = experts.copy()
        experts[3, 1] = 4 - experts[3, 1] if experts[3, 1] != 2 else 0
        return weights, experts

    def as_floats(x, w):
        (weights, experts), _ = router(x, w)
        return weights, experts * 1.0

    def reference(x, w):
        return router(x, w)[0]

    says(
        check.against(reference, other_order, *ROUTER.values()),
        "y.experts:",
        "right numbers in another order",
        "ties to the lowest index",
    )
    says(check.against(reference, other_choice, *ROUTER.values()), "1 of 14 entries are wrong; worst at [3, 1]")
    says(check.against(reference, as_floats, *ROUTER.values()), "has type float64, expected int64")


def test_rope_layout_offset_and_frequency():
    x = ROPE["x"]
    says(check.against(rope_half, rope, x), "yours is interleaved", "expected is half-split")
    says(check.against(rope, lambda x: rope(x, start=1), x), "right length and the wrong angle", "positions and frequencies")
    says(
        check.against(rope, lambda x: rope(x, sign=-1), x, hints=HINTS),
        "right at index 0 of axis 1 (the positions) and wrong later",
    )


def test_a_mask_that_lets_the_future_through():
    scores = draw(H, T, T)
    causal = np.where(np.tri(T, dtype=bool), scores, -np.inf)
    says(check.close(scores, np.where(np.tri(T, dtype=bool), scores, -1e9), name="scores"), "above the diagonal", "mask")
    check.close(causal.copy(), causal).raise_if_wrong()
    says(check.close(scores, causal, name="scores"), "scores:", "entries are wrong")


def test_which_argument_set_is_wrong_is_said():
    report = check.against(np.abs, lambda x: x, [(np.ones(3),), (-np.ones(3),)])
    says(report, "the sign is flipped", "wrong for input set 2 of 2")
    report = check.against(np.abs, lambda x: x, [(-np.ones(3),), (np.ones(3),), (-np.ones(3),)])
    says(report, "wrong for input sets 1, 3 of 3; what is said is about set 1")


def test_a_candidate_that_misbehaves():
    def doubles_in_place(x):
        x *= 2
        return x

    def forgets(x):
        x * 2

    generator = np.random.default_rng(0)
    says(check.against(lambda x: 2 * x, doubles_in_place, draw(3)), "changes its input", "in place")
    says(check.against(lambda x: 2 * x, forgets, draw(3)), "y: is None", "return missing?")
    says(check.against(lambda x: x, lambda x: x + generator.random(), draw(3)), "is not deterministic")
    says(check.against(lambda x: (x, x), lambda x: x, draw(3)), "returns 1 where 2 arrays are expected: y[0], y[1]")
    says(check.against(lambda x: x, lambda x: x[..., None], draw(3)), "has shape (3, 1), expected (3,)", ".reshape(3,)")
    says(check.against(lambda x: x, lambda x: x / 0 * 0, draw(3)), "NaN in 3 of 3 entries")
    says(check.against(lambda x: x, lambda x: 1 // 0, draw(3)), "raised ZeroDivisionError", "test_check.py, line")
    says(check.against(lambda x: x, lambda x: {"y": x, "z": x}, draw(3)), "returns 2 where 1")


def test_a_reference_that_fails_is_not_the_learners_fault():
    with pytest.raises(ZeroDivisionError):
        check.against(lambda x: 1 // 0, np.sin, draw(3))
    with pytest.raises(MinidsError, match="reference itself holds NaN"):
        check.against(lambda x: x * np.nan, np.sin, draw(3))


# --- One array.


def test_close_compares_to_the_precision_of_the_type():
    want = draw(30, 40)
    check.close(want.astype(np.float32), want).raise_if_wrong()
    check.close(want.astype(np.float16), want).raise_if_wrong()
    check.close(want + 1e-14, want).raise_if_wrong()
    assert not check.close(want * (1 + 1e-8), want), "float64 is held to 1e-9"
    assert not check.close((want * (1 + 1e-4)).astype(np.float32), want), "float32 is held to 1e-5"
    check.close(want * (1 + 1e-8), want, tolerance=1e-7).raise_if_wrong()


def test_close_lets_float32_sums_cancel_to_round_off():
    want = np.array([1.0, 1e-6])
    check.close(np.array([1.0, 1.5e-6], np.float32), want).raise_if_wrong()
    assert not check.close(np.array([1.0, 5e-5], np.float32), want), "that is more than round-off"


def test_close_knows_bfloat16():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    want = draw(30, 40)
    check.close(want.astype(ml_dtypes.bfloat16), want).raise_if_wrong()
    says(check.close((1.2 * want).astype(ml_dtypes.bfloat16), want, name="logits"), "logits: relative error")


def test_close_never_raises_for_what_a_learner_may_hand_in():
    want = draw(3, 4)
    says(check.close(None, want, name="logits"), "logits: is None")
    says(check.close("text", want), "y: is str")
    says(check.close([[1, 2], [3]], want), "y: raised ValueError")
    says(check.close(np.zeros(0), want), "has shape (0,), expected (3, 4)")
    says(check.close(want > 0, want), "has type bool, expected float64")
    check.close(3.0, np.float64(3.0)).raise_if_wrong()
    says(check.close(2.0, 4.0), "yours 2, expected 4 (0.5×)")


# --- Words.


def test_ok_prints_the_report(capsys):
    check.ok(linear_check(linear_backward))
    check.ok(linear_check(planted(linear_backward, 0, lambda dx: -dx)))
    right, wrong = capsys.readouterr().out.split("✗", 1)
    assert right.startswith("✓ gradient of linear: dx, dw right") and "sign is flipped" in wrong


def test_a_usual_wrong_answer_is_told_by_name_and_another_is_not():
    x, usual = np.array([1.0, 2.0, 9.0]), {"this is the median.": np.median}
    assert "likely cause: this is the median." in str(check.against(np.mean, np.median, [(x,), (x + 1,)], usual=usual))
    assert "median." not in str(check.against(np.mean, np.max, x, usual=usual))
    assert check.against(np.mean, lambda x: x.sum() / 3, x, usual=usual)


def test_a_usual_wrong_backward_pass_is_told_by_name_and_another_is_not():
    def forward(x):
        return x * x, x

    def once(dy, x):
        return dy * x

    def another(dy, x):
        return dy * x + 1.0

    x, usual = np.array([1.0, 2.0, 9.0]), {"x² is taken for a product with a constant.": once}
    report = check.gradient(forward, lambda dy, x: x * dy, {"x": x}, usual=usual)
    assert "likely cause: x² is taken for a product with a constant." in str(report)
    assert "taken for" not in str(check.gradient(forward, another, {"x": x}, usual=usual))
    assert check.gradient(forward, lambda dy, x: 2 * x * dy, {"x": x}, usual=usual)


@pytest.mark.parametrize("unfinished", [lambda dy, x: None, lambda dy, x: (dy, dy, dy), lambda dy, x: 1 / 0])
def test_a_backward_pass_without_gradients_is_no_usual_wrong_one(unfinished):
    inputs, usual = {"x": np.array([1.0, 2.0])}, {"x² is taken for a product with a constant.": lambda dy, x: dy * x}
    report = check.gradient(lambda x: (x * x, x), unfinished, inputs, usual=usual)
    assert not report and "taken for" not in str(report)


def test_an_answer_that_is_a_usual_wrong_one_for_some_inputs_only_is_not_told_so():
    even, skewed = np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 9.0])
    report = check.against(np.sum, lambda x: 2.0, [(even,), (skewed,), (skewed + 1,)], usual={"the median.": np.median})
    assert not report and "the median." not in str(report)


def test_a_notebook_can_add_its_own_hypothesis():
    def plus_one(case):
        return "you added one." if case.same(case.got - 1) else None

    check.HYPOTHESES.insert(0, plus_one)
    try:
        says(linear_check(planted(linear_backward, 0, lambda dx: dx + 1)), "you added one.")
    finally:
        check.HYPOTHESES.remove(plus_one)


def test_integers_that_agree_are_said_to_be_equal():
    assert "equal" in str(check.close(np.arange(3), np.arange(3)))
    says(check.close(np.array([0, 129_280]), np.array([0, 129_279])), "1 of 2 entries are wrong")


def test_an_argument_that_holds_a_cache_may_not_be_added_to():
    def remembers(x, cache):
        cache["x"] = x
        return x

    says(check.against(lambda x, cache: x, remembers, draw(3), {}), "changes its input [1]['x'] in place")


@pytest.mark.parametrize("tolerance", [float("nan"), -1.0, float("inf")])
def test_a_tolerance_that_is_none_is_refused(tolerance):
    with pytest.raises(MinidsError, match="tolerance = "):
        check.close(np.ones(3), np.zeros(3), tolerance=tolerance)
    with pytest.raises(MinidsError, match="tolerance = "):
        check.against(np.sin, np.cos, np.ones(3), tolerance=tolerance)


def test_a_list_is_an_array_where_one_is_expected():
    x = np.arange(6.0).reshape(2, 3)
    assert check.against(np.exp, lambda x: [[float(np.exp(v)) for v in row] for row in x], x)
    assert not check.against(np.exp, lambda x: [[0.0] * 3] * 2, x)
    assert check.gradient(
        lambda x: x * x, lambda dy, saved: [list(2 * d * v) for d, v in zip(dy, saved[0], strict=True)], {"x": x}
    )


def test_a_forgotten_saved_is_named():
    report = check.against(np.exp, lambda x: (np.exp(x), x), np.ones(3))
    assert not report and "returns a tuple of 2 where one array is expected" in str(report) and "[0] forgotten" in str(report)


def test_one_number_is_compared_as_a_number_and_shown_whole():
    assert check.close(384, 384.0) and check.close(384.0, 384)
    assert "yours 187107392, expected 187107328" in str(check.close(187107392, 187107328))


# --- A cause is named where the numbers leave one, and only there.


def test_softmax_by_the_diagonal_of_its_jacobian_alone():
    report = check.gradient(lambda z: (softmax(z), softmax(z)), lambda dp, p: p * (1 - p) * dp, {"z": draw(T, D)})
    says(report, "only the diagonal of the softmax's Jacobian", "−p_i p_j")
    by_hand = check.against(lambda dp, p: p * (dp - np.sum(p * dp, axis=-1, keepdims=True)), lambda dp, p: p * (1 - p) * dp,
                            draw(T, D), softmax(draw(T, D, seed=1)))  # fmt: skip
    says(by_hand, "only the diagonal")


def test_the_gain_forgotten_in_both_terms_of_rmsnorm():
    def backward(dy, saved):
        n, rstd, _ = saved
        return rstd * (dy - n * np.mean(dy * n, axis=-1, keepdims=True)), np.sum(dy * n, axis=(0, 1))

    says(check.gradient(rmsnorm, backward, NORM), "gain is forgotten: what goes back through the norm is u = dy · gain")


def test_a_step_with_the_wrong_sign_or_size():
    start, step = draw(7), 0.01 * draw(7, seed=1)
    says(check.against(lambda b, s: b - s, lambda b, s: b + s, start, step), "what you add to input 0 has the wrong sign")
    says(check.against(lambda b, s: b - s, lambda b, s: b - 3 * s, start, step), "what you add to input 0 is 3.000× too large")
    says(check.against(lambda b, s: b - s, lambda b, s: b + s / 5, start, step), "5.000× too small and has the wrong sign")


def test_a_term_left_out_or_added_twice():
    x, y = draw(T, D), draw(T, D, seed=1)
    says(check.against(lambda x, y: x + np.sin(y), lambda x, y: np.sin(y), x, y), "right after adding input 0", "left out")
    says(check.against(lambda x, y: np.sin(y), lambda x, y: x + np.sin(y), x, y), "right after subtracting input 0")


@pytest.mark.parametrize(
    ("shape", "factor", "hints"),
    [
        ((16, 4, 5), 4, {"n_experts": 16, "top_k": 4, "groups": 4}),  # K, the groups, 16 / 4, √16
        ((6, 3, 5), 3, {}),  # an axis of 3, and 6 / 2 of another
        ((2, 6, 5), 6, {"a": 6, "b": 6}),  # two names
        ((7, 16), 4, {}),  # √16, or anything
        ((7, 5), 2, {}),
    ],
)
def test_a_factor_that_may_be_more_than_one_thing_is_given_no_meaning(shape, factor, hints):
    other = draw(2, 7)  # a 2 is in play
    want = draw(*shape)
    report = check.against(lambda x, other: x, lambda x, other: x / factor, want, other, hints=hints)
    says(report, f"{factor:#.4g}× too small.")
    assert "averaged" not in str(report) and "scale" not in str(report), (
        f"one of several stories is told as the cause: {report}"
    )


def test_of_one_number_no_factor_is_told():
    says(check.close(3.0, 6.0), "yours 3, expected 6 (0.5×)", "likely cause: none of the usual ones fits")


def test_a_forgotten_scalar_is_named():
    def forward(x):
        return np.sum(np.sin(x)), x

    report = check.gradient(forward, lambda dy, x: np.cos(x), {"x": draw(T)}, dy=np.float64(0.37))
    says(report, "right after multiplying by dy: is that factor missing?")


@pytest.mark.parametrize(
    ("wrong", "phrase"),
    [
        ([0, 2, 5], "wrong only at index 0, 2, 5 of axis 0, right at the other 5 of 8."),
        ([6, 7], "right up to index 5 of axis 0 and wrong from 6 on: what changes there"),
        ([0, 1], "wrong up to index 1 of axis 0 and right from 2 on: what changes there"),
        ([3, 4], "wrong only from index 3 to 4 of axis 0, right at the other 6 of 8: what changes there"),
        ([4], "wrong only at index 4 of axis 0, right at the other 7 of 8."),
        ([1, 2, 3, 4, 5, 6, 7], "position 0 has one key and angle 0"),
    ],
)
def test_scattered_entries_are_not_called_masked(wrong, phrase):
    want = draw(8, 3)
    got = want + np.isin(np.arange(8), wrong)[:, None] * draw(8, 3, seed=1)
    report = check.close(got, want)
    says(report, phrase)
    assert ("mask" in str(report)) == ("what changes there" in phrase), str(report)


def test_two_outputs_swapped_are_said_to_be():
    says(check.against(lambda x: (x, x**2), lambda x: (x**2, x), draw(T)), "this is what y[1] should be: are the two swapped")


def test_a_number_that_is_not_subtracted_is_told_by_its_size():
    x = np.array([1.0, 2.0, 9.0])
    says(check.close(x, x - x.mean()), "every entry is too large by the same 4.000", "not subtracted?")
    says(check.close(x - 5, x), "every entry is too small by the same 5.000", "not added?")
    assert "by the same" not in str(check.close(x[:2], x[:2] - 1.5))  # two numbers fit many stories


def test_a_zero_beside_a_number_is_no_multiple_of_it():
    assert "×)" not in str(check.close(np.array([0.0, 2.0]), np.array([1.0, 2.0])))


def test_unusual_forms_of_a_right_answer_are_accepted():
    from fractions import Fraction

    assert check.close(Fraction(15, 2), 7.5)
    assert check.close([Fraction(1, 2), 1], np.array([0.5, 1.0]))
    assert check.against(np.sin, lambda x: (np.sin(x), None), draw(T))
    assert check.against(lambda x: (np.sin(x), Saved(x)), lambda x: [float(v) for v in np.sin(x)], draw(T))

    def lookup(ids, table):
        return table[ids], (ids, table.shape)

    def backward(dy, saved):
        ids, shape = saved
        d_table = np.zeros(shape)
        np.add.at(d_table, ids, dy)
        return None, d_table  # of whole numbers there is no gradient

    assert check.gradient(lookup, backward, {"ids": np.array([2, 0, 2]), "table": draw(4, 3)})


def test_of_heads_nothing_is_said_about_time():
    want = draw(B, T, H, D)
    wrong = np.where(np.arange(H)[:, None] == 0, want, want + draw(B, T, H, D, seed=1))
    for hints in ({}, {"n_heads": H}):
        says(check.close(wrong, want, hints=hints), "right at index 0 of axis 2")
        assert "time" not in str(check.close(wrong, want, hints=hints))
