"""Models larger than memory: the same numbers as when held in memory, within a fraction of their bytes."""

import json
import math
import os
import re
import struct
import subprocess
import sys

import numpy as np
import pytest
from disk_samples import PEAK
from support import TINY, V2_ROUTER, build

import minids
from minids.checkpoint.config_json import config_to_json
from minids.checkpoint.names import expected_shapes
from minids.config import ModelConfig
from minids.errors import MinidsError

CONFIGS = {
    "V3": TINY,
    "tied, biases": TINY.replace(tie_word_embeddings=True, attention_bias=True, q_lora_rank=None),
    "V2": TINY.replace(**V2_ROUTER),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("cache", ["latent", "full", "none"])
def test_the_same_text_as_from_memory(name, cache, tmp_path):
    model = build(CONFIGS[name], dtype=np.float32)
    minids.save(model, tmp_path)
    want = minids.generate(model, [1, 2, 3], 12, cache=cache)
    assert np.array_equal(minids.generate(minids.load_streamed(tmp_path), [1, 2, 3], 12, cache=cache), want)


@pytest.mark.parametrize("layer", range(4))
def test_one_layer_alone(layer, tmp_path):
    """Dense, MoE, and both MTP modules' blocks."""
    model = build(TINY, dtype=np.float32)
    minids.save(model, tmp_path)
    block = [*model.blocks, *(module.block for module in model.mtp)][layer]
    x = np.random.default_rng(0).normal(size=(2, 7, TINY.hidden_size)).astype(np.float32)
    got, _ = minids.load_layer(tmp_path, layer).forward(x, model.rotary(7))
    np.testing.assert_array_equal(got, block.forward(x, model.rotary(7))[0])


@pytest.mark.parametrize("layer", [-1, 4, 61])
def test_a_layer_that_is_not_there(layer, tmp_path):
    minids.save(build(TINY, dtype=np.float32), tmp_path)
    with pytest.raises(MinidsError, match=f"layer = {layer}: .* has layers 0 to 3"):
        minids.load_layer(tmp_path, layer)


def hollow_folder(path, config):
    """A BF16 folder of the right names and shapes whose numbers are holes in the file: all zero, and on no disk."""
    config = config.replace(num_nextn_predict_layers=0)
    header, start = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in sorted(expected_shapes(config).items()):
        stop = start + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header).encode()
    with open(path / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + start)
    (path / "config.json").write_text(json.dumps(config_to_json(config)))
    return start


def peak_memory(code: str, *arguments: str) -> int:
    """Bytes of the largest resident set of a Python process, its own imports not counted."""
    script = (
        f"{PEAK}\n"
        "import minids\n"
        "minids.generate(minids.DeepSeekV3(minids.ModelConfig.preset('tiny')), [1], 2)  # whatever is loaded on demand\n"
        "before = peak()\n"
        f"{code}\n"
        "print('PEAK', peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    return int(re.search(r"PEAK (\d+)", done.stdout)[1])


GENERATE = "minids.generate(minids.load_streamed(sys.argv[1]), [1, 2, 3], int(sys.argv[2]))"


def test_peak_memory_of_a_streamed_model(tmp_path):
    """A model of 600 MB in BF16, 1.2 GB in float32, generates within a quarter of that."""
    config = ModelConfig.preset("deepseek-v2-lite").replace(
        vocab_size=16000, hidden_size=1024, num_hidden_layers=5, intermediate_size=4096, bos_token_id=0, eos_token_id=1
    )
    stored = hollow_folder(tmp_path, config)
    assert stored > 600e6
    peak = peak_memory(GENERATE, str(tmp_path), "2")
    assert peak < stored / 2, f"{peak / 1e6:.0f} MB for a model of {stored / 1e6:.0f} MB"


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["deepseek-v2-lite", "moonlight-16b-a3b"])
def test_sixteen_billion_parameters_within_two_gigabytes(preset, tmp_path):
    """31 GB in BF16, 63 GB in float32."""
    stored = hollow_folder(tmp_path, ModelConfig.preset(preset))
    assert stored > 31e9
    assert os.stat(tmp_path / "model.safetensors").st_blocks * 512 < 10e6, "this file system cannot hold a file with holes"
    peak = peak_memory(GENERATE, str(tmp_path), "2")
    assert peak < 2e9, f"{peak / 1e9:.2f} GB"


@pytest.mark.slow
def test_one_layer_of_deepseek_v3(tmp_path):
    """Layer 3 of 671 billion parameters: 11.5 billion of them, of which 187 million are attention."""
    hollow_folder(tmp_path, ModelConfig.preset("deepseek-v3"))
    code = (
        "import numpy as np\n"
        "block = minids.load_layer(sys.argv[1], 3)\n"
        "from minids.layers.positions import rotary\n"
        "from minids.checkpoint.config_json import read_config\n"
        "angles = rotary(read_config(sys.argv[1]), np.arange(4), np.float32)\n"
        "y, _ = block.forward(np.ones((1, 4, 7168), np.float32), angles)\n"
        "assert y.shape == (1, 4, 7168)\n"
    )
    peak = peak_memory(code, str(tmp_path))
    assert peak < 4e9, f"{peak / 1e9:.2f} GB"
