"""Weights from a formula, and the logits that transformers has for them: what a reader of checkpoints can be held to anywhere.

The numbers are 64-bit integer arithmetic (splitmix64), which no library changes, and not a generator's.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from minids.config import ModelConfig
from minids.model import DeepSeekV3

Array = np.ndarray

CONFIG = ModelConfig.preset("tiny").replace(
    vocab_size=61, hidden_size=32, num_hidden_layers=3, intermediate_size=44, q_lora_rank=20, kv_lora_rank=18,
    qk_nope_head_dim=10, qk_rope_head_dim=8, v_head_dim=6, moe_intermediate_size=14, max_position_embeddings=512,
    bos_token_id=0, eos_token_id=1,
)  # fmt: skip

TRANSFORMERS = np.array([
    -0.8556715300162623, 0.8564147298099045, -0.458425215001784, 1.9265606389608858,
    -0.3033163878260335, 0.012592690828812758, -0.5420451413539711, -1.3853672578324185,
])  # fmt: skip
"""What transformers 5 gave in float64: last position of the second text, first eight words."""

_QUESTION = """
import json, sys, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32, experts_implementation="eager")
with torch.no_grad():
    print(json.dumps(model(torch.tensor(json.loads(sys.argv[2]))).logits[-1, -1, :8].tolist()))
"""


def uniform(stream: int, shape: tuple[int, ...]) -> Array:
    """Numbers in [0, 1), float64, the same on every machine."""
    with np.errstate(over="ignore"):
        counter = np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64)
        z = (counter + np.uint64(stream << 32)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return ((z >> np.uint64(11)) * 2.0**-53).reshape(shape)


def model(dtype=np.float64) -> DeepSeekV3:
    """A small model with these weights, one stream of numbers for each name in alphabetical order."""
    made = DeepSeekV3(CONFIG, seed=None, dtype=dtype)
    arrays = {p.name: p.value for p in made.parameters} | made.parameters.buffers
    for stream, name in enumerate(sorted(arrays), start=1):
        u = uniform(stream, arrays[name].shape)
        if name.endswith("norm.weight"):
            arrays[name][...] = 0.8 + 0.4 * u
        else:
            arrays[name][...] = (u - 0.6) * 0.5 if name.endswith("bias") else (u - 0.5) * 0.8
    return made


def tokens() -> Array:
    """The two texts, (2, 13)."""
    return (uniform(0, (2, 14)) * CONFIG.vocab_size).astype(np.int64)[:, :-1]


def asked_of_transformers(folder: Path) -> Array | None:
    """The eight logits of a folder from another process that runs transformers; None where that is not installed."""
    command = [sys.executable, "-c", _QUESTION, str(folder), json.dumps(tokens().tolist())]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode and "ModuleNotFoundError" in answer.stderr:
        return None
    answer.check_returncode()
    return np.array(json.loads(answer.stdout.strip().splitlines()[-1]))
