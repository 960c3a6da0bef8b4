"""Tiny models, batches and measures that the tests share; ``import support`` works from every test.

Sizes are pairwise different wherever they may be, so that a wrong axis is a wrong shape or a wrong number and never luck.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from minids import check
from minids.config import ModelConfig, Yarn
from minids.layers.parameters import Parameter, Parameters
from minids.layers.positions import Rotary, rotary
from minids.model import DeepSeekV3, routing_fixed

Array = np.ndarray

TINY = ModelConfig(
    vocab_size=19,
    hidden_size=12,
    num_hidden_layers=2,
    first_k_dense_replace=1,
    intermediate_size=10,
    moe_intermediate_size=6,
    num_attention_heads=4,
    q_lora_rank=7,
    kv_lora_rank=5,
    qk_nope_head_dim=6,
    qk_rope_head_dim=4,
    v_head_dim=3,
    n_routed_experts=8,
    n_shared_experts=1,
    num_experts_per_tok=3,
    n_group=4,
    topk_group=2,
    routed_scaling_factor=2.5,
    max_position_embeddings=64,
    num_nextn_predict_layers=2,
    initializer_range=0.3,
    bos_token_id=None,
    eos_token_id=None,
    aux_loss_alpha=0.1,
    mtp_loss_weight=0.7,
)
"""V3's mechanisms, all loss terms on: a dense block, an MoE block, two MTP modules."""

V2_ROUTER = dict(
    scoring_func="softmax",
    topk_method="group_limited_greedy",
    norm_topk_prob=False,
    balance="aux_loss",
    routed_scaling_factor=1.5,
)
"""What makes ``TINY`` route as DeepSeek-V2 does."""

SHORT_YARN = Yarn(
    factor=8.0, original_max_position_embeddings=40, beta_fast=6.0, beta_slow=0.25, mscale=1.2, mscale_all_dim=0.8
)
"""YaRN whose ramp acts on a short test sequence: pair 0 is kept, pair 1 lies on the ramp (d_r = 4)."""


def build(config: ModelConfig = TINY, seed: int = 0, dtype=np.float64, lively: bool = True) -> DeepSeekV3:
    """A model. ``lively``: gains, biases and router biases are random too; at 1 and 0 they would hide mistakes."""
    model = DeepSeekV3(config, seed, dtype)
    if lively:
        rng = np.random.default_rng(seed + 1)
        for p in model.parameters:
            if p.init == "ones":
                p.value[...] = rng.uniform(0.5, 1.5, p.shape)
            elif p.init == "zeros":
                p.value[...] = rng.normal(0, 0.3, p.shape)
        for bias in model.parameters.buffers.values():
            bias[...] = rng.normal(0, 0.2, bias.shape)
    return model


def batch(
    config: ModelConfig = TINY, size: int = 2, length: int = 6, seed: int = 0, ignored: bool = False
) -> tuple[Array, Array]:
    """tokens and targets (size, length): targets are the tokens one later; with ``ignored`` a few do not count."""
    text = np.random.default_rng(seed).integers(0, config.vocab_size, (size, length + 1))
    tokens, targets = text[:, :-1], text[:, 1:].copy()
    if ignored:
        targets[0, 1] = targets[-1, -1] = -100
    return tokens, targets


@st.composite
def choices(draw, max_tokens=9):
    """chosen (N, K) with distinct experts per token, and E: loads are ragged and some experts unused."""
    experts = draw(st.integers(1, 7))
    top_k = draw(st.integers(1, experts))
    tokens = draw(st.integers(1, max_tokens))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    favourites = rng.random(experts) * draw(st.sampled_from([0.0, 3.0]))  # the second: some experts get all, some none
    return np.argsort(-(rng.random((tokens, experts)) + favourites), axis=-1)[:, :top_k], experts


def error(got, want) -> float:
    """Largest relative error over all entries, |a − n| / max(|a|, |n|), with a floor of a thousandth of the largest |n|."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, f"shape {got.shape} instead of {want.shape}"
    assert np.isfinite(got).all(), "NaN or inf in the result"
    if got.size == 0:
        return 0.0
    floor = max(np.abs(want).max() / 1000, 1e-300)
    return float((np.abs(got - want) / np.maximum(np.maximum(np.abs(got), np.abs(want)), floor)).max())


def assert_close(got, want, tolerance: float = 1e-12, what: str = "result") -> None:
    """Fail with words where ``error`` is above ``tolerance``."""
    worst = error(got, want)
    assert worst <= tolerance, f"{what}: relative error {worst:.2g}, allowed {tolerance:.0e}"


def layer(make, seed: int = 0) -> tuple[Any, Parameters]:
    """``make(parameters)`` with random float64 values everywhere: the layer and its parameters."""
    parameters, rng = Parameters(), np.random.default_rng(seed)
    made = make(parameters)
    parameters.allocate(np.float64)
    for p in parameters:
        p.value[...] = rng.normal(1 if p.init == "ones" else 0, 0.4, p.shape)
    for bias in parameters.buffers.values():
        bias[...] = rng.normal(0, 0.2, bias.shape)
    return made, parameters


def angles(config: ModelConfig, length: int, start: int = 0) -> Rotary:
    return rotary(config, np.arange(start, start + length), np.float64)


def check_layer(parameters: Parameters, run, back, tolerance: float = 1e-7, frozen=None, samples: int = 12, **inputs) -> None:
    """Central differences for a layer: run(**inputs) → (y, saved), back(dy, saved) → gradients of the inputs. The gradients
    of all parameters, which ``back`` adds into them, are checked as well."""
    names = list(inputs)

    def forward(*values, **held):
        for p, value in zip(parameters, values[len(names) :], strict=True):
            p.value[...] = value
        return run(*values[: len(names)], **held)

    def backward(dy, saved):
        parameters.zero_grads()
        d_inputs = back(dy, saved)
        d_inputs = d_inputs if isinstance(d_inputs, tuple) else (d_inputs,)
        return (*d_inputs, *(p.grad.copy() for p in parameters))

    everything = {**inputs, **{p.name: p.value.copy() for p in parameters}}
    check.gradient(forward, backward, everything, tolerance=tolerance, frozen=frozen, samples=samples).raise_if_wrong()


class Probe(NamedTuple):
    """One directional derivative of the total loss by one parameter."""

    name: str  # of the parameter, and what was moved
    analytic: float
    numeric: float
    scale: float  # largest gradient of the parameter: what an error is measured against where the derivative is tiny
    flipped: bool  # whether the experts that the model would choose by itself changed within the probe


def probes(
    model: DeepSeekV3, tokens: Array, targets: Array, entries: int = 3, step: float = 5e-4, seed: int = 0
) -> Iterator[Probe]:
    """Central differences of the whole model's loss with the experts held still: per parameter some entries and a direction.

    Five points, (8 (f₁ − f₋₁) − (f₂ − f₋₂)) / 12h: the truncation is of order h⁴ and the round-off near 1e-12.
    """
    rng = np.random.default_rng(seed)
    frozen = model.choices(tokens, targets)
    gradients = model.loss_and_grads(tokens, targets)[1]

    def derivative(p: Parameter, direction: Array) -> tuple[float, bool]:
        start = p.value.copy()

        def loss(multiple: int) -> float:
            p.value[...] = start + multiple * step * direction
            with routing_fixed(model, frozen):
                return model.losses(tokens, targets).total

        outer = loss(2)
        flipped = _differ(frozen, model.choices(tokens, targets))
        outer -= loss(-2)
        flipped |= _differ(frozen, model.choices(tokens, targets))
        slope = (8 * (loss(1) - loss(-1)) - outer) / (12 * step)
        p.value[...] = start
        return slope, flipped

    for p in model.parameters:
        gradient = gradients[p.name]
        scale = float(np.abs(gradient).max())
        largest = int(np.abs(gradient).argmax())
        for index in (largest, *rng.integers(0, p.size, entries - 1)):
            direction = np.zeros(p.size)
            direction[index] = 1.0
            slope, flipped = derivative(p, direction.reshape(p.shape))
            yield Probe(f"{p.name}, entry {index}", gradient.reshape(-1)[index], slope, scale, flipped)
        direction = rng.standard_normal(p.shape)
        direction /= np.sqrt(np.sum(direction**2))
        slope, flipped = derivative(p, direction)
        yield Probe(f"{p.name}, a random direction", float(np.sum(direction * gradient)), slope, scale, flipped)


def _differ(one: list[Array], two: list[Array]) -> bool:
    """Whether two lists of choices differ as sets: the order within a token's choice does not matter to the loss."""
    return any(not np.array_equal(np.sort(a), np.sort(b)) for a, b in zip(one, two, strict=True))


def adam(model: DeepSeekV3, tokens: Array, targets: Array, steps: int, rate: float, enough: float = -np.inf) -> list:
    """Plain Adam on one batch, the bias updated as in training; stops early when every cross-entropy is below ``enough``."""
    values, first, second, history = model.parameters.values, 0.0, 0.0, []
    for step in range(1, steps + 1):
        model.parameters.zero_grads()
        losses = model.forward_backward(tokens, targets)
        history.append(losses)
        if max(losses.main, *losses.mtp, 0.0) < enough:
            break
        g = model.parameters.grads
        first = 0.9 * first + 0.1 * g
        second = 0.99 * second + 0.01 * g * g
        values -= rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.99**step)) + 1e-8)
        model.update_biases(losses.counts, model.config.bias_update_speed)
    return history


def worst_slope(loss: Callable[[], float], parameters: Parameters) -> float:
    """The largest relative error of the gradient that ``parameters`` hold, against central differences of ``loss()``: along
    directions through all parameters, and along one below each of them."""
    rng, values, worst = np.random.default_rng(0), parameters.values, 0.0
    directions = [rng.choice([-1.0, 1.0], values.shape) for _ in range(12)]
    for p in parameters:
        directions.append(np.zeros_like(values))
        directions[-1][p.place] = rng.choice([-1.0, 1.0], p.size)
    for direction in directions:
        analytic = float(direction @ parameters.grads)
        if abs(analytic) > 1e-6:
            own, found = values.copy(), []
            for h in (2e-5, 1e-5):
                values[...] = own + h * direction
                up = loss()
                values[...] = own - h * direction
                found.append((up - loss()) / (2 * h))
            values[...] = own
            numerical = (4 * found[1] - found[0]) / 3  # the h² term taken out
            worst = max(worst, abs(numerical - analytic) / max(abs(numerical), abs(analytic)))
    return worst
