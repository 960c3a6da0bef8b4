"""Reading a layer, or an expert at a time, keeps the process small however large the folder is."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from disk_samples import PEAK, header

from minids.checkpoint.config_json import config_to_json
from minids.checkpoint.names import expected_shapes
from minids.config import ModelConfig

CONFIG = ModelConfig(
    vocab_size=4096,
    hidden_size=512,
    num_hidden_layers=8,
    first_k_dense_replace=0,
    intermediate_size=512,
    moe_intermediate_size=256,
    num_attention_heads=2,
    q_lora_rank=64,
    kv_lora_rank=64,
    qk_nope_head_dim=16,
    qk_rope_head_dim=16,
    v_head_dim=16,
    n_routed_experts=16,
    num_experts_per_tok=2,
    n_group=2,
    topk_group=1,
    num_nextn_predict_layers=0,
)

MB = 1 << 20
LAYER = 16 * 3 * 256 * 512 * 4  # bytes of one layer's experts as float32: 24 MB

WORKER = f"""{PEAK}
from minids.checkpoint.config_json import read_config
from minids.checkpoint.folder import CheckpointFolder
from minids.checkpoint.names import ExpertStack, assemble, memory_shapes

def layer_parameters(layer):
    names = [name for name in memory_shapes(config) if name.startswith(f"model.layers.{{layer}}.")]
    return [assemble(folder, name) for name in names]

path, mode = sys.argv[1:]
config, folder = read_config(path), CheckpointFolder(path, cache_bytes=4 << 20)
before = peak()
if mode == "layers":
    for layer in range(config.num_hidden_layers):
        parameters = None
        parameters = layer_parameters(layer)
elif mode == "experts":
    for layer in range(config.num_hidden_layers):
        for name in ("gate_proj", "up_proj", "down_proj"):
            stack = ExpertStack(folder, f"model.layers.{{layer}}.mlp.experts.{{name}}.weight")
            for matrix in stack:
                assert matrix.shape == stack.shape[1:]
elif mode == "rows":
    assert folder.tensor("model.embed_tokens.weight", [5, 4000]).shape == (2, config.hidden_size)
else:
    kept = [layer_parameters(layer) for layer in range(config.num_hidden_layers)]
print(peak() - before)
"""


@pytest.fixture(scope="module", params=["BF16", "F8_E4M3"])
def folder(request, tmp_path_factory):
    """A folder of about 110 (BF16) or 60 MB (FP8), written as a sparse file: its numbers are zeros, its pages are real."""
    path = tmp_path_factory.mktemp("large")
    sizes = {}
    for name, shape in expected_shapes(CONFIG).items():
        count = int(np.prod(shape))
        if request.param == "F8_E4M3" and ".experts." in name:
            sizes[name] = ("F8_E4M3", shape, range(count))
            blocks = tuple(-(-n // 128) for n in shape)
            sizes[f"{name}_scale_inv"] = ("F32", blocks, range(4 * int(np.prod(blocks))))
        else:
            sizes[name] = ("BF16", shape, range(2 * count))
    head = json.dumps(header(sizes)).encode()  # only the lengths of the data are looked at
    file = path / "model.safetensors"
    file.write_bytes(len(head).to_bytes(8, "little") + head)
    os.truncate(file, 8 + len(head) + sum(len(data) for _, _, data in sizes.values()))
    (path / "config.json").write_text(json.dumps(config_to_json(CONFIG)))
    return path


def growth(folder, mode: str) -> float:
    run = subprocess.run([sys.executable, "-c", WORKER, str(folder), mode], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return int(run.stdout) / MB


def test_layer_by_layer_costs_one_layer(folder):
    used = growth(folder, "layers")
    assert used < 1.4 * LAYER / MB + 8, f"{used:.0f} MB to read layers of {LAYER / MB:.0f} MB one after the other"


def test_expert_by_expert_costs_the_cache(folder):
    used = growth(folder, "experts")
    assert used < 4 + 8, f"{used:.0f} MB to read experts through a cache of 4 MB"


def test_two_rows_of_a_matrix_cost_next_to_nothing(folder):
    used = growth(folder, "rows")
    assert used < 2, f"{used:.1f} MB to read two rows of the embedding"


def test_the_measurement_notices_a_whole_model(folder):
    used = growth(folder, "all")
    assert used > 7 * LAYER / MB, f"{used:.0f} MB for eight layers: the other tests measure nothing"
