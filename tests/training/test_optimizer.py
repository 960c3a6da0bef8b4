"""AdamW against the algorithm written out for one number at a time; what is decayed, clipped and left alone; who gets Muon."""

import math

import numpy as np
import pytest
from support import TINY, assert_close, build

from minids.backend import BACKENDS, use_backend
from minids.config import TrainConfig
from minids.layers.parameters import Parameters
from minids.ops import muon
from minids.training.optimizer import AdamW, Muon, is_hidden_matrix, optimizer, portions
from minids.training.workers import Workers


def some_parameters():
    parameters = Parameters()
    parameters.add("matrix", (3, 4))
    parameters.add("gain", (5,), init="ones")
    parameters.allocate(np.float64)
    parameters.values[...] = np.random.default_rng(0).normal(size=parameters.values.size)
    return parameters


def by_hand(value, grads, config, decay, rates):
    """One number through algorithm 2 of Loshchilov & Hutter."""
    m = v = 0.0
    for t, (g, rate) in enumerate(zip(grads, rates, strict=True), start=1):
        m = config.beta1 * m + (1 - config.beta1) * g
        v = config.beta2 * v + (1 - config.beta2) * g * g
        m_hat, v_hat = m / (1 - config.beta1**t), v / (1 - config.beta2**t)
        value = value - rate * (m_hat / (math.sqrt(v_hat) + config.adam_eps) + decay * value)
    return value


def test_three_steps_equal_the_algorithm_and_only_matrices_decay():
    parameters, config = some_parameters(), TrainConfig(clip_norm=0.0, weight_decay=0.3)
    start = parameters.values.copy()
    rng, rates = np.random.default_rng(1), [0.1, 0.05, 0.2]
    grads = rng.normal(size=(3, parameters.values.size))
    optimizer = AdamW(parameters, config)
    for g, rate in zip(grads, rates, strict=True):
        parameters.grads[...] = g
        optimizer.step(rate)
    decay = [0.3] * 12 + [0.0] * 5
    want = [by_hand(start[i], grads[:, i], config, decay[i], rates) for i in range(17)]
    assert_close(parameters.values, want, 1e-12)


@pytest.mark.parametrize(("norm", "want"), [(10.0, 1.0), (0.5, 0.5)])
def test_clipping_scales_the_norm_of_all_parameters_together(norm, want):
    parameters = some_parameters()
    optimizer = AdamW(parameters, TrainConfig(clip_norm=1.0, beta1=0.0, beta2=0.5))
    g = np.random.default_rng(2).normal(size=17)
    parameters.grads[...] = g * (norm / np.linalg.norm(g))
    assert optimizer.step(0.0) == pytest.approx(norm)  # the norm before clipping is what is told
    assert np.linalg.norm(optimizer.m) == pytest.approx(want)  # β₁ = 0: m is the clipped gradient


def test_the_routing_bias_is_out_of_reach():
    model = build(TINY)
    before = {name: bias.copy() for name, bias in model.parameters.buffers.items()}
    model.parameters.grads[...] = 1.0
    AdamW(model.parameters, TrainConfig()).step(0.1)
    assert before and all(np.array_equal(before[name], bias) for name, bias in model.parameters.buffers.items())


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
@pytest.mark.parametrize("kind", [AdamW, Muon])
def test_every_matrix_and_no_vector_decays(kind, clip_norm):
    parameters = build(TINY).parameters
    before = parameters.values.copy()
    norm = kind(parameters, TrainConfig(weight_decay=0.5, clip_norm=clip_norm)).step(0.1)
    assert norm == 0, "the gradient is 0, and is not divided by: decay is all that happens"
    for p in parameters:
        factor = 0.95 if len(p.shape) >= 2 else 1.0
        assert_close(p.value, before[p.place].reshape(p.shape) * factor, 1e-12, p.name)


def test_neighbours_are_updated_in_one_pass():
    found = AdamW(some_parameters(), TrainConfig()).stretches
    assert [(stretch.place.stop, stretch.decayed) for stretch in found] == [(12, True), (17, False)]


def test_the_configuration_names_the_optimizer_and_adamw_is_the_default():
    assert type(optimizer(some_parameters(), TrainConfig())) is AdamW
    assert type(optimizer(some_parameters(), TrainConfig(optimizer="muon"))) is Muon


def test_muon_leaves_embedding_head_and_vectors_to_adamw():
    """Two steps of a whole model by Muon: every parameter is where its own rule puts it."""
    config = TrainConfig(clip_norm=0.0)
    models = [build(TINY) for _ in range(2)]
    ours, plain = (model.parameters for model in models)
    by_muon, by_adamw = Muon(ours, config), AdamW(plain, config)
    grads = np.random.default_rng(4).normal(size=(2, ours.values.size))
    want = {p.name: p.value.copy() for p in ours}
    momenta = {p.name: np.zeros(p.shape) for p in ours}
    for g in grads:
        ours.grads[...] = plain.grads[...] = g
        by_muon.step(0.05)
        by_adamw.step(0.05)
        for p in ours:
            muon.update([want[p.name]], [p.grad], [momenta[p.name]], 0.05, 0.95, 0.1)
    left = 0
    for p in ours:
        adamw = len(p.shape) < 2 or p.name in ("model.embed_tokens.weight", "lm_head.weight")
        left += adamw
        assert_close(p.value, plain[p.name].value if adamw else want[p.name], 1e-10, p.name)
    assert left > 2 and by_muon.v.size < by_adamw.v.size, "second moments are kept for what Muon takes"


@pytest.mark.parametrize(("kind", "moments"), [(AdamW, "fp32"), (AdamW, "bf16"), (Muon, "fp32")])
def test_restoring_the_state_continues_exactly(kind, moments):
    parameters = build(TINY, dtype=np.float32).parameters
    grads = np.random.default_rng(3).normal(size=(4, parameters.values.size)).astype(np.float32)
    results = []
    for interrupted in (False, True):
        parameters = build(TINY, dtype=np.float32).parameters
        optimizer = kind(parameters, TrainConfig(moments=moments))
        for step, g in enumerate(grads):
            if interrupted and step == 2:
                state = {name: array.copy() for name, array in optimizer.state().items()}
                optimizer = kind(parameters, TrainConfig(moments=moments))
                optimizer.restore(state)
            parameters.grads[...] = g
            optimizer.step(0.1)
        results.append(parameters.values)
    assert np.array_equal(*results)


def test_moments_in_bf16_take_two_bytes_and_stay_within_their_rounding():
    rng, ends = np.random.default_rng(4), []
    grads = rng.normal(size=(20, 17)) + 1  # a drift, so that the moments do not hover around 0
    for moments in ("fp32", "bf16"):
        parameters = some_parameters()
        optimizer = AdamW(parameters, TrainConfig(moments=moments))
        for g in grads:
            parameters.grads[...] = g
            optimizer.step(0.01)
        ends.append((optimizer.state(), parameters.values.copy()))
    assert optimizer.m.dtype == optimizer.v.dtype == np.uint16
    (exact, values), (rounded, ours) = ends
    for name in ("m", "v"):
        error = np.abs(rounded[name] / exact[name] - 1).max()
        assert 1e-5 < error < 0.02, f"{name}: {error:.2g} after 20 roundings of 2⁻⁹"
    assert 0 < np.abs(ours - values).max() < 0.01 * 0.2, "a hundredth of the way"


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_every_matrix_of_muon_is_in_one_portion_and_no_portion_is_much_the_largest(count):
    parameters = build(TINY).parameters
    matrices = [p for p in parameters if is_hidden_matrix(p)]
    seen, loads = np.zeros(parameters.values.size, int), []
    for portion in portions(matrices, count):
        loads.append(0)
        for (out, into), places in portion.items():
            for place in places:
                seen[place] += 1
                whole, rest = divmod(place.stop - place.start, out * into)
                assert whole and not rest, "a matrix was cut"
                loads[-1] += whole * min(out, into) ** 2 * (2 * max(out, into) + min(out, into))
    want = np.zeros_like(seen)
    for p in matrices:
        want[p.place] = 1
    np.testing.assert_array_equal(seen, want)
    largest = max(min(p.shape[-2:]) ** 2 * (2 * max(p.shape[-2:]) + min(p.shape[-2:])) for p in matrices)
    assert max(loads) - min(loads) <= largest, "more apart than one matrix"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", [AdamW, Muon])
def test_a_step_has_the_same_bits_whoever_shares_in_it(kind, backend):
    ends = []
    for count in (None, 1, 2, 3):
        model = build(TINY, dtype=np.float32)
        optimizer = kind(model.parameters, TrainConfig())
        rng = np.random.default_rng(5)
        with use_backend(backend), Workers(model, count or 1) as workers:
            for _ in range(2):
                model.parameters.grads[...] = rng.normal(size=model.parameters.grads.size)
                optimizer.step(0.05, workers if count else None)
        ends.append(model.parameters.values.copy())
    assert all(np.array_equal(ends[0], end) for end in ends[1:])


def test_fewer_rounds_are_another_step():
    ends = []
    for rounds in (5, 3, 3):
        model = build(TINY)
        model.parameters.grads[...] = np.random.default_rng(6).normal(size=model.parameters.grads.size)
        Muon(model.parameters, TrainConfig(muon_rounds=rounds)).step(0.05)
        ends.append(model.parameters.values)
    assert np.array_equal(ends[1], ends[2]) and not np.allclose(ends[0], ends[1])


@pytest.mark.parametrize("moments", ["fp32", "bf16"])
def test_adamw_takes_the_same_step_with_any_number_of_threads(moments):
    results = []
    for count in (None, 1, 2, 3):
        model = build(TINY)
        model.parameters.grads[...] = np.random.default_rng(0).normal(size=model.parameters.grads.size)
        adamw = AdamW(model.parameters, TrainConfig(moments=moments))
        with Workers(model, count or 1) as workers:
            norms = [adamw.step(0.1, workers if count else None) for _ in range(2)]
        results.append((norms, model.parameters.values, adamw.m, adamw.v))
    for norms, *arrays in results[1:]:
        assert norms == results[0][0]
        assert all(np.array_equal(ours, first) for ours, first in zip(arrays, results[0][1:], strict=True))


def test_the_norm_is_that_of_all_gradients():
    parameters = some_parameters()
    parameters.grads[...] = np.random.default_rng(0).normal(size=17)
    assert AdamW(parameters, TrainConfig()).step(0.0) == pytest.approx(np.linalg.norm(parameters.grads), rel=1e-15)
