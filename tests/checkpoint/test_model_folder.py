"""A model that is saved and loaded is the same model, to the bit."""

import json

import numpy as np
import pytest
from support import TINY, batch, build

from minids.checkpoint.latest import point_to
from minids.checkpoint.model_folder import load, save
from minids.checkpoint.streaming import load_streamed
from minids.config import Yarn
from minids.errors import MinidsError


def test_every_number_comes_back_the_routing_biases_too(tmp_path):
    model = build(dtype=np.float32)
    save(model, tmp_path / "model")
    again = load(tmp_path / "model")
    for parameter in model.parameters:
        assert np.array_equal(parameter.value, again.parameters[parameter.name].value), parameter.name
    assert model.parameters.buffers.keys() == again.parameters.buffers.keys()
    for name, bias in model.parameters.buffers.items():
        assert np.array_equal(bias, again.parameters.buffers[name]), name


def test_a_longer_context_is_of_the_length_that_the_run_was_trained_with(tmp_path):
    model = build(TINY.replace(num_nextn_predict_layers=0, max_position_embeddings=64), dtype=np.float32)
    checkpoint = tmp_path / "run" / "step-000001"
    save(model, checkpoint)
    assert load(checkpoint, extend=4).config.rope_scaling.original_max_position_embeddings == 64, "nothing else is known"
    (tmp_path / "run" / "run.json").write_text(json.dumps({"train": {"context_length": 16}}))
    point_to(checkpoint)
    found = load(tmp_path / "run", extend=4)
    wanted = model.config.replace(rope_scaling=Yarn(factor=4, original_max_position_embeddings=16), max_position_embeddings=64)
    assert found.config == load_streamed(tmp_path / "run", extend=4).config == wanted
    assert load(tmp_path / "run").config == model.config
    assert load(tmp_path / "run", extend=2, trained_length=32).config.rope_scaling.original_max_position_embeddings == 32
    tokens, _ = batch(model.config)
    assert np.array_equal(found.parameters.values, model.parameters.values)
    assert np.abs(found.logits(tokens) - model.logits(tokens)).max() > 1e-4, "YaRN changes the angles and the softmax scale"
    save(found, tmp_path / "longer")
    assert load(tmp_path / "longer").config == wanted and load(tmp_path / "longer", extend=4).config == wanted


def test_a_longer_context_that_cannot_be_is_refused(tmp_path):
    save(build(TINY.replace(num_nextn_predict_layers=0), dtype=np.float32), tmp_path / "step-1")
    with pytest.raises(MinidsError, match="trained_length = 8: is what extend multiplies"):
        load(tmp_path / "step-1", trained_length=8)
    with pytest.raises(MinidsError, match="trained_length = -1"):
        load(tmp_path / "step-1", extend=2, trained_length=-1)
    (tmp_path / "run.json").write_text('{"train": {}}')
    with pytest.raises(MinidsError, match=r"run\.json: is not what this version writes"):
        load(tmp_path / "step-1", extend=2)
