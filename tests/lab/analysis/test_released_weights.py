"""The released DeepSeek-V3, type by type."""

import pytest

from minids.config import ModelConfig
from minids.config.presets import PRESETS
from minids.lab.analysis import released_weights

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
