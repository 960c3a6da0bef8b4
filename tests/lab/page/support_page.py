"""Small models as the page has them, and its engine run by Node."""

from __future__ import annotations

import base64
import dataclasses
import json
import subprocess
from pathlib import Path

import numpy as np
from support import SHORT_YARN, TINY, V2_ROUTER, build

from minids.config import ModelConfig
from minids.lab.page.build import engine_sources
from minids.lab.page.pack import arrays_of, pack, unpack

CONFIGS = {
    "V3": TINY,
    "no query latent": TINY.replace(q_lora_rank=None),
    "half-split RoPE": TINY.replace(rope_interleave=False),
    "YaRN": TINY.replace(rope_scaling=SHORT_YARN),
    "tied embedding": TINY.replace(tie_word_embeddings=True),
    "biases": TINY.replace(attention_bias=True),
    "V2 router": TINY.replace(**V2_ROUTER),
    "greedy softmax router": TINY.replace(**{**V2_ROUTER, "topk_method": "greedy"}, n_group=1, topk_group=1),
    "no groups": TINY.replace(n_group=1, topk_group=1),
    "no shared expert, all layers experts": TINY.replace(n_shared_experts=0, first_k_dense_replace=0),
    "two shared experts, raw gates": TINY.replace(n_shared_experts=2, norm_topk_prob=False),
    "all layers dense": TINY.replace(first_k_dense_replace=2),
    "no MTP": TINY.replace(num_nextn_predict_layers=0),
    "three MTP modules": TINY.replace(num_nextn_predict_layers=3),
    "wider than a tile": TINY.replace(hidden_size=132, moe_intermediate_size=130, num_nextn_predict_layers=1),
}


def packed(config: ModelConfig, weights: str, seed: int = 0):
    """What the page gets of a lively random model, and the float64 weights that NumPy computes the same with."""
    model = build(config, seed, np.float32)
    listed, data = pack(arrays_of(model), weights)
    stored = {name: value.astype(np.float64) for name, value in unpack(listed, data).items()}
    return {"tensors": listed, "base64": base64.b64encode(data).decode()}, stored


def in_node(*requests: dict) -> list:
    """The answers of the engine to some requests."""
    script = Path(__file__).with_name("engine_in_node.js")
    sent = json.dumps({"source": engine_sources(), "requests": requests})
    done = subprocess.run(["node", str(script)], input=sent, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def plain(config: ModelConfig) -> dict:
    return dataclasses.asdict(config)
