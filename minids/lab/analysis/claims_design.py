"""Claims about the design: positions, routing, number formats. See ``claims``."""

from __future__ import annotations

import math

import numpy as np

from minids.config import ModelConfig
from minids.lab.analysis import network
from minids.lab.analysis.claim import Registry
from minids.layers.positions import softmax_scale
from minids.ops import balance_loss, yarn

DESIGN = Registry()
claim = DESIGN.claim

V3, V2_LITE = ModelConfig.preset("deepseek-v3"), ModelConfig.preset("deepseek-v2-lite")


@claim(
    "Softmax scale of V3 without / with YaRN",
    "192^-1/2; times (0.1 ln 40 + 1)²",
    "DeepSeek-V3 repository, inference/model.py",
    words="a constant of the code",
)
def v3_softmax_scales():
    """0.0721687836 and 0.1352337788."""
    return softmax_scale(V3.replace(rope_scaling=None)), softmax_scale(V3)


@claim(
    "YaRN's cut-offs for V3",
    "floor and ceil of 64·ln(4096/2πr)/(2 ln 10000), r = 32 and 1",
    "DeepSeek-V3 repository, inference/model.py; transformers, modeling_rope_utils",
    words="constants of the code",
)
def v3_yarn_cut_offs():
    """10 and 23."""
    s = V3.rope_scaling
    return yarn.cut_offs(V3.qk_rope_head_dim, V3.rope_theta, s.original_max_position_embeddings, s.beta_fast, s.beta_slow)


@claim(
    "Softmax scale of V2-Lite",
    "192^-1/2 · (0.1 · 0.707 · ln 40 + 1)²",
    "config.json of V2-Lite (mscale 0.707)",
    words="a constant; for the 236B model copies of the config say 0.707 or 1.0 (UNVERIFIED)",
)
def v2_lite_softmax_scale():
    """0.1147213868."""
    return softmax_scale(V2_LITE)


@claim(
    "Experts per node at no extra cost",
    "NVLink over InfiniBand, 160/50",
    "DeepSeek-V3 report, section 3.2.2",
    printed=3.2,
    digit=0.1,
    unit="experts",
    words="the ISCA paper counts a bandwidth ratio of 4 instead: 200 to 50 nominal, 160 to 40 effective",
)
def experts_per_node():
    """3.2."""
    return network.experts_per_node()


@claim(
    "Experts per token at the communication cost of 8",
    "4 nodes · 3.2",
    "DeepSeek-V3 report, section 3.2.2",
    printed=13,
    digit=1,
    unit="experts",
    words="12.8, printed as up to 13",
)
def experts_at_no_extra_cost():
    """12.8."""
    return network.experts_at_no_extra_cost()


@claim(
    "Experts that score a group",
    "K / M = 8 / 4",
    "DeepSeek-V3 report, section 2.1.2; repository, inference/model.py",
    printed=2,
)
def experts_per_group_score():
    """2: the sum of the two best of a group."""
    return V3.num_experts_per_tok // V3.topk_group


@claim(
    "Ways to choose experts, 2 of 16 / 8 of 64",
    "C(16, 2); C(64, 8)",
    "DeepSeekMoE paper, section 3.1",
    printed=(120, 4_426_165_368),
)
def expert_combinations():
    """120 and 4,426,165,368."""
    return math.comb(16, 2), math.comb(64, 8)


@claim(
    "Balance loss at even load, over α",
    "Σ f_i P_i with f_i = 1 and P_i = 1/E",
    "DeepSeek-V3 report, eqs 17-20",
    words="follows from the equations: perfect balance costs α, not 0",
)
def balance_loss_at_even_load():
    """1, from the operation that trains: equal scores, and tokens that take turns with V3's 256 experts."""
    experts, chosen = V3.n_routed_experts, V3.num_experts_per_tok
    turns = (np.arange(experts)[:, None] + np.arange(chosen)) % experts  # (N, K), every expert K times
    return balance_loss.forward(np.ones((experts, experts)), turns, experts)[0]


@claim(
    "Moonlight: gate scaling that gives experts a dense network's output size, 6 of 64",
    "E[1 / sqrt(Σ p²)], p = renormalised top-K sigmoids of normal logits",
    "Moonlight report, appendix C",
    printed=2.446,
    digit=0.001,
)
def moonlight_gate_scaling():
    """2.446, by sampling."""
    return _unit_output_scale(64, 6)


@claim(
    "Kimi-K2: the same, 8 of 384",
    "as above",
    "config.json of Kimi-K2, routed_scaling_factor",
    printed=2.827,
    digit=0.001,
    words="2.8276 by sampling: K2's value is this one, or that of 8 of 256 experts, 2.8273",
)
def kimi_k2_gate_scaling():
    """2.828, by sampling."""
    return _unit_output_scale(384, 8)


@claim(
    "V3: the same, 8 of 256",
    "as above",
    "config.json of DeepSeek-V3, routed_scaling_factor",
    printed=2.5,
    digit=0.1,
    words="V3 does not follow the rule: its factor is smaller than the 2.827 the rule gives, and its paper does not mention it",
)
def v3_gate_scaling():
    """2.827, by sampling."""
    return _unit_output_scale(256, 8)


def _unit_output_scale(experts: int, chosen: int, draws: int = 20_000) -> float:
    """The expectation over ``draws`` tokens, seed fixed: its standard error is 5e-5."""
    rng = np.random.default_rng(0)
    best = np.empty((draws, chosen), dtype=np.float32)
    for start in range(0, draws, 1000):
        logits = rng.standard_normal((1000, experts), dtype=np.float32)
        best[start : start + 1000] = np.partition(logits, experts - chosen, axis=1)[:, experts - chosen :]
    scores = 1 / (1 + np.exp(-best))
    p = scores / scores.sum(axis=1, keepdims=True)
    return float(np.mean(1 / np.sqrt(np.sum(p * p, axis=1))))
