"""Memory to train and to serve, the activations checked against those of a real forward pass."""

import numpy as np
import pytest

from minids import DeepSeekV3, MinidsError, ModelConfig
from minids.backend import use_backend
from minids.lab.analysis import memory

TINY = ModelConfig.preset("tiny")


def _saved_numbers(saved, parameters) -> int:
    """Floating-point numbers in nested saved tuples, each array once, parameters left out."""
    arrays = {}

    def collect(node):
        if isinstance(node, np.ndarray) and node.dtype.kind == "f" and not np.shares_memory(node, parameters.values):
            arrays[node.__array_interface__["data"][0], node.size] = node
        elif isinstance(node, (tuple, list)):
            for child in node:
                collect(child)

    collect(saved)
    return sum(array.size for array in arrays.values())


@pytest.mark.parametrize("changes", [dict(), dict(attention="mha"), dict(num_nextn_predict_layers=0), dict(q_lora_rank=None)])
def test_activations_on_paper_match_what_the_model_saves(changes):
    """To a thousandth: on paper are token ids and choices too, and in the model one sum per token of two losses."""
    config, batch, time = TINY.replace(**changes), 2, 64
    model = DeepSeekV3(config)
    tokens = np.random.default_rng(0).integers(0, 256, (batch, time))
    with use_backend("numpy"):
        _, saved = model.forward(tokens, tokens)
    assert memory.activation_elements(config, batch, time) == pytest.approx(_saved_numbers(saved, model.parameters), rel=1e-3)


def test_recomputing_keeps_less():
    stored, recomputed = (memory.activation_elements(TINY, 2, 64, keeps) for keeps in ("stored", "recompute"))
    assert recomputed < 0.6 * stored
    longer = [memory.activation_elements(TINY, 2, 128, keeps) for keeps in ("stored", "recompute")]
    assert longer[0] > 2 * stored + 2 * 4 * 128 * 128, "stored probabilities grow with the square of the length"
    assert longer[1] < 2.02 * recomputed, "recomputed ones do not"
    with pytest.raises(MinidsError, match="keeps"):
        memory.activation_elements(TINY, 1, 1, "some")


def test_bytes_per_parameter_of_both_recipes():
    v3 = ModelConfig.preset("deepseek-v3")
    parameters = 671_026_419_200 + 11_610_068_224
    plain = memory.training_memory(v3, 1, 16)
    assert plain[:3] == (4 * parameters, 4 * parameters, 8 * parameters)
    assert plain.total == sum(plain)
    low = memory.training_memory(v3, 1, 16, memory.V3)
    assert low[:3] == (5 * parameters, 4 * parameters, 4 * parameters)
    assert low.activations == 2 * memory.activation_elements(v3, 1, 16, "recompute")


def test_serving_is_weights_and_cache():
    used = memory.serving_memory(ModelConfig.preset("deepseek-v3"), context=1000, batch=2)
    assert used == (671_026_419_200, 2 * 1000 * 70_272)
    assert used.total == sum(used)
