"""A model that is saved and loaded is the same model, to the bit."""

import numpy as np
from support import build

from minids.checkpoint.model_folder import load, save


def test_every_number_comes_back_the_routing_biases_too(tmp_path):
    model = build(dtype=np.float32)
    save(model, tmp_path / "model")
    again = load(tmp_path / "model")
    for parameter in model.parameters:
        assert np.array_equal(parameter.value, again.parameters[parameter.name].value), parameter.name
    assert model.parameters.buffers.keys() == again.parameters.buffers.keys()
    for name, bias in model.parameters.buffers.items():
        assert np.array_equal(bias, again.parameters.buffers[name]), name
