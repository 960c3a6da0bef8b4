"""Which layers run in FP8, which do not, and that the model's gradients are those of FP8's operations."""

import numpy as np
import pytest
import support

from minids.backend import use_backend
from minids.config import ModelConfig
from minids.layers.basic import Linear, RMSNorm
from minids.layers.fp8 import Fp8FeedForward, Fp8Linear, feed_forward, projection, scheme_of
from minids.layers.moe import MoE
from minids.model import DeepSeekV3, routing_fixed
from minids.ops import fp8_linear
from minids.ops.float8 import E4M3, E5M6
from minids.ops.fp8_accumulation import NEVER_PROMOTED
from minids.ops.fp8_linear import Scheme

FP8 = support.TINY.replace(precision="fp8")


def kinds(model):
    """Name of a weight → the class of the layer that owns it."""
    found = {}

    def walk(thing):
        if isinstance(thing, Linear):
            found[thing.weight.name] = type(thing)
        elif isinstance(thing, (list, tuple)):
            for item in thing:
                walk(item)
        elif hasattr(thing, "__dict__") and type(thing).__module__.startswith(("minids.layers", "minids.model")):
            for item in vars(thing).values():
                walk(item)

    walk(model)
    return found


def test_the_papers_exceptions_stay_in_full_precision():
    model = DeepSeekV3(FP8, 0)
    of = kinds(model)
    high = {name for name, kind in of.items() if kind is Linear}
    inside_fp8 = {name for name in high if any(part in name for part in ("gate_proj", "up_proj", "down_proj"))}
    assert all(isinstance(b.ffn, (MoE, Fp8FeedForward)) for b in model.blocks), "these belong to an FP8 feed-forward network"
    assert high - inside_fp8 == {name for name in high if name.endswith(".gate.weight") or name == "lm_head.weight"}
    low = {name for name, kind in of.items() if kind is Fp8Linear}
    assert low == {name for name in of if ".self_attn." in name} and low
    assert all(layer.scheme is not None and layer.shared.scheme is not None for layer in model.moe_layers)
    assert isinstance(model.norm, RMSNorm)


@pytest.mark.parametrize("attention", ["mla", "mha"])
def test_the_linear_after_attention_takes_e5m6_with_powers_of_two(attention):
    model = DeepSeekV3(FP8.replace(attention=attention), 0)
    recipes = {p: getattr(model.blocks[0].attention, p).scheme for p in vars(model.blocks[0].attention) if p.endswith("proj")}
    assert recipes["o_proj"] == Scheme(inputs=E5M6, round_inputs=True)
    assert all(scheme == Scheme() and scheme.inputs is E4M3 for name, scheme in recipes.items() if name != "o_proj")


def test_experts_take_what_travels_with_powers_of_two_and_shared_ones_do_not():
    layer = DeepSeekV3(FP8, 0).moe_layers[0]
    assert layer.scheme == Scheme(round_inputs=True, round_gradients=True)
    assert layer.shared.scheme == Scheme()


@pytest.mark.parametrize(
    ("changes", "scheme"),
    [
        (dict(precision="fp32"), None),
        (dict(), Scheme(128)),
        (dict(fp8_tile=32), Scheme(32)),
        (dict(fp8_scaling="tensor"), Scheme(None)),
        (dict(fp8_promotion=False), Scheme(128, accumulator=NEVER_PROMOTED)),
    ],
    ids=str,
)
def test_every_field_arrives(changes, scheme):
    assert scheme_of(FP8.replace(**changes)) == scheme


def test_the_layers_add_into_their_gradients():
    rng = np.random.default_rng(0)
    layer, parameters = support.layer(lambda p: projection(FP8, p, "m", 5, 7, bias=True))
    x, dy = rng.standard_normal((2, 3, 7)), rng.standard_normal((2, 3, 5))
    with use_backend("numpy"):
        y, saved = layer.forward(x)
        want, want_saved = fp8_linear.forward(x, layer.weight.value, layer.bias.value)
        np.testing.assert_array_equal(y, want)
        for _ in range(2):
            dx = layer.backward(dy, saved)
        want_dx, d_weight, d_bias = fp8_linear.backward(dy, want_saved)
    np.testing.assert_array_equal(dx, want_dx)
    np.testing.assert_array_equal(layer.weight.grad, 2 * d_weight)
    np.testing.assert_array_equal(layer.bias.grad, 2 * d_bias)
    assert parameters.values.dtype == np.float64, "master weights keep their type"


def test_updates_below_a_step_of_the_format_add_up():
    """The weight that is multiplied is quantised anew every time; the one that is kept is not."""
    layer, _ = support.layer(lambda p: projection(FP8, p, "m", 6, 9))
    start, x = layer.weight.value.copy(), np.ones((2, 9))
    with use_backend("numpy"):
        first = layer.forward(x)[0]
        for _ in range(200):
            layer.weight.value += start / 1024
            last = layer.forward(x)[0]
    np.testing.assert_allclose(layer.weight.value, start * (1 + 200 / 1024), rtol=1e-4, err_msg="updates were lost")
    np.testing.assert_allclose(last, first * (1 + 200 / 1024), atol=0.1 * np.abs(first).max())


def test_a_dense_network_is_close_to_the_one_in_full_precision():
    x = np.random.default_rng(1).standard_normal((2, 3, 12))
    results = []
    for config in (FP8.replace(precision="fp32"), FP8):
        layer, parameters = support.layer(lambda p, c=config: feed_forward(c, p, "m", 10), seed=3)
        y, saved = layer.forward(x)
        dx = layer.backward(np.ones_like(y), saved)
        results.append([y, dx, *(p.grad for p in parameters)])
    for exact, ours in zip(*results, strict=True):
        assert 1e-3 < np.linalg.norm(ours - exact) / np.linalg.norm(exact) < 0.15


@pytest.mark.parametrize(
    "changes", [{}, dict(fp8_scaling="tensor"), dict(fp8_promotion=False), dict(fp8_tile=32)], ids=lambda c: str(c) or "V3"
)
def test_the_whole_models_gradients_point_where_those_in_full_precision_do(changes):
    config = ModelConfig.preset("tiny", num_hidden_layers=2)
    tokens, targets = support.batch(config, 2, 16)
    exact = support.build(config, dtype=np.float32, lively=False)
    chosen = exact.choices(tokens, targets)
    losses, want = exact.loss_and_grads(tokens, targets)
    model = support.build(config.replace(precision="fp8", **changes), dtype=np.float32, lively=False)
    with routing_fixed(model, chosen):
        ours, got = model.loss_and_grads(tokens, targets)
    assert abs(ours.total - losses.total) < 0.01 * losses.total and ours.total != losses.total
    cosines = [
        np.sum(g * want[name]) / np.linalg.norm(g) / np.linalg.norm(want[name]) for name, g in got.items() if want[name].any()
    ]
    assert min(cosines) > 0.8 and np.median(cosines) > 0.97, f"least {min(cosines):.3f}, median {np.median(cosines):.3f}"


def test_it_learns():
    tokens, targets = support.batch(FP8, 2, 6)
    model = support.build(FP8, dtype=np.float32)
    history = support.adam(model, tokens, targets, 15, 0.03)
    assert history[-1].main < 0.6 * history[0].main, f"{history[0].main:.2f}, then {history[-1].main:.2f}"


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_bf16_is_nearer_to_full_precision_than_fp8(backend):
    off = {}
    with use_backend(backend):
        exact = support.build(dtype=np.float32)
        batch = support.batch()
        chosen = exact.choices(*batch)
        wanted = exact.loss_and_grads(*batch)[1]
        for precision in ("bf16", "fp8"):
            model = DeepSeekV3(support.TINY.replace(precision=precision), parameters=exact.parameters.shared())
            with routing_fixed(model, chosen):
                found = model.loss_and_grads(*batch)[1]
            differences = [np.linalg.norm(found[name] - grad) for name, grad in wanted.items()]
            off[precision] = np.linalg.norm(differences) / np.linalg.norm([np.linalg.norm(grad) for grad in wanted.values()])
    assert 1e-3 < off["bf16"] < off["fp8"] / 4
