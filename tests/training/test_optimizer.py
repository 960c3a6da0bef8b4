"""AdamW against the algorithm written out for one number at a time; what is decayed, clipped and left alone."""

import math

import numpy as np
import pytest
from support import TINY, assert_close, build

from minids.config import TrainConfig
from minids.layers.parameters import Parameters
from minids.training.optimizer import AdamW


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


def test_every_matrix_and_no_vector_lies_in_the_decayed_part():
    parameters = build(TINY).parameters
    decayed = np.zeros(parameters.values.size, bool)
    decayed[parameters.decayed] = True
    parameters.grads[...] = decayed
    for p in parameters:
        assert (p.grad == (len(p.shape) >= 2)).all(), p.name


def test_restoring_the_state_continues_exactly():
    grads = np.random.default_rng(3).normal(size=(4, 17))
    results = []
    for interrupted in (False, True):
        parameters = some_parameters()
        optimizer = AdamW(parameters, TrainConfig())
        for step, g in enumerate(grads):
            if interrupted and step == 2:
                state = {name: array.copy() for name, array in optimizer.state().items()}
                optimizer = AdamW(parameters, TrainConfig())
                optimizer.restore(state)
            parameters.grads[...] = g
            optimizer.step(0.1)
        results.append(parameters.values)
    assert np.array_equal(*results)
