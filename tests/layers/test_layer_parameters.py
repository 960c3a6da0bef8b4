"""The flat arrays: layout, views, initial values."""

import numpy as np
import pytest
import support

from minids.errors import MinidsError
from minids.layers.parameters import Parameters


def some(dtype=np.float32):
    parameters = Parameters()
    for name, shape, init in [
        ("norm.weight", (3,), "ones"),
        ("a.weight", (2, 3), "normal"),
        ("a.bias", (2,), "zeros"),
        ("experts.weight", (4, 2, 3), "normal"),
    ]:
        parameters.add(name, shape, init)
    parameters.add_buffer("bias", (4,))
    parameters.allocate(dtype)
    return parameters


@pytest.mark.parametrize("size", [2**47, 10**30])
def test_more_parameters_than_any_memory_holds_are_counted_and_refused(size):
    parameters = Parameters()
    parameters.add("norm.weight", (3,), "ones")
    parameters.add("a.weight", (1, size), "normal")
    with pytest.raises(MinidsError, match=f"{size + 3:,} parameters, which no memory holds"):
        parameters.allocate(np.float32)


def test_every_parameter_is_a_view_and_none_overlap():
    parameters = some()
    for i, p in enumerate(parameters, start=1):
        p.value[...] = i
        p.grad[...] = -i
    assert all((p.value == i).all() and (p.grad == -i).all() for i, p in enumerate(parameters, start=1)), "two views overlap"
    total = sum(p.size for p in parameters)
    assert parameters.values.shape == parameters.grads.shape == (total,)
    assert (parameters.values != 0).all() and (parameters.grads != 0).all(), "part of the flat array belongs to nobody"


def test_matrices_come_first_and_every_place_is_the_views_own():
    parameters = some()
    for p in parameters:
        p.value[...] = 1 if p.value.ndim >= 2 else -1
    matrices = int((parameters.values == 1).sum())
    assert (parameters.values[:matrices] == 1).all(), "a vector lies among the matrices"
    for number, p in enumerate(parameters):
        p.value[...] = number
        assert (parameters.values[p.place] == number).all() and p.place.stop - p.place.start == p.size, p.name


def test_initial_values():
    parameters = some()
    parameters.initialise(np.random.default_rng(0), 0.5)
    assert (parameters["norm.weight"].value == 1).all() and not parameters["a.bias"].value.any()
    parameters = Parameters()
    parameters.add("w", (300, 300))
    parameters.allocate(np.float64)
    parameters.initialise(np.random.default_rng(0), 0.006)
    assert abs(parameters["w"].value.std() / 0.006 - 1) < 0.01 and abs(parameters["w"].value.mean()) < 1e-4


def test_a_float64_model_of_the_same_seed_has_the_same_weights():
    one, two = some(np.float32), some(np.float64)
    for parameters in (one, two):
        parameters.initialise(np.random.default_rng(3), 0.02)
    np.testing.assert_array_equal(one.values, two.values)


def test_a_name_may_be_taken_once():
    parameters = some()
    with pytest.raises(KeyError, match=r"a\.weight"):
        parameters.add("a.weight", (1,))


def test_buffers_are_float32_and_outside_the_flat_arrays():
    model = support.build(lively=False)
    assert model.parameters.buffers and all(b.dtype == np.float32 for b in model.parameters.buffers.values())
    for name, buffer in model.parameters.buffers.items():
        assert name.endswith("e_score_correction_bias") and name not in model.parameters
        assert not np.shares_memory(buffer, model.parameters.values)


def test_the_gradient_of_a_parameter_adds_up_over_calls():
    model = support.build()
    tokens, targets = support.batch()
    model.parameters.zero_grads()
    model.forward_backward(tokens, targets)
    once = model.parameters.grads.copy()
    model.forward_backward(tokens, targets)
    support.assert_close(model.parameters.grads, 2 * once)
    model.parameters.zero_grads()
    assert not model.parameters.grads.any()
