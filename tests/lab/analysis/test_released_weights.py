"""The released DeepSeek-V3, type by type."""

import math

import numpy as np
import pytest

import minids
from minids.config import ModelConfig
from minids.config.presets import PRESETS
from minids.lab.analysis import released_weights
from minids.layers.positions import rotary

V3 = ModelConfig.preset("deepseek-v3")


def test_census_equals_the_hub():
    census = released_weights.census(V3)
    assert census.elements == {"BF16": 3_918_786_560, "F8_E4M3": 680_571_043_840, "F32": 41_555_600}
    assert census.scales == 41_540_496
    assert census.total == 684_531_386_000
    assert census.bytes == 688_574_839_360


def test_ragged_matrix_has_a_last_half_block():
    assert released_weights.scale_shape((576, 7168)) == (5, 56)


@pytest.mark.parametrize("name", PRESETS)
def test_every_parameter_has_a_type(name):
    """Without scales and copies, the census counts each parameter once."""
    from minids.lab.analysis.parameters import mtp_total, total

    config = ModelConfig.preset(name)
    census = released_weights.census(config)
    copies = config.num_nextn_predict_layers * 2 * config.vocab_size * config.hidden_size
    assert census.total - census.scales - copies == total(config) + mtp_total(config)


def test_the_entries_add_up_to_the_census_of_the_release():
    found = list(released_weights.entries(V3))
    census = released_weights.census(V3)
    assert sum(entry.bytes for entry in found) == census.bytes == 688_574_839_360
    for kind, count in census.elements.items():
        assert sum(math.prod(e.shape) for e in found if e.dtype == kind) == count
    assert len({entry.name for entry in found}) == len(found)


def test_a_stand_in_opens_as_a_layer_of_its_sizes_and_is_a_hole_on_disk(tmp_path):
    tiny = ModelConfig.preset("tiny")
    size = released_weights.stand_in(tmp_path / "one", tiny, layer=1)
    files = list((tmp_path / "one").glob("*.safetensors"))
    assert len(files) == 1 and files[0].stat().st_size > size
    layer = minids.load_layer(tmp_path / "one", 1)
    y, _ = layer.forward(np.ones((1, 3, tiny.hidden_size), np.float32), rotary(tiny, np.arange(3), np.float32))
    assert np.isfinite(y).all() and y.any()
