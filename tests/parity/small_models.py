"""Small DeepSeek models that differ in everything, with random weights: what implementations are compared on.

Sizes are pairwise different wherever they may be, so that no transposed split goes unnoticed.
"""

from __future__ import annotations

import numpy as np

from minids.config import ModelConfig, Yarn

_BASE = ModelConfig(
    vocab_size=61,
    hidden_size=32,
    num_hidden_layers=3,
    first_k_dense_replace=1,
    intermediate_size=44,
    moe_intermediate_size=14,
    num_attention_heads=4,
    q_lora_rank=20,
    kv_lora_rank=18,
    qk_nope_head_dim=10,
    qk_rope_head_dim=8,
    v_head_dim=6,
    n_routed_experts=16,
    n_shared_experts=1,
    num_experts_per_tok=4,
    n_group=4,
    topk_group=2,
    routed_scaling_factor=2.5,
    max_position_embeddings=512,
    num_nextn_predict_layers=1,
    balance="bias",
    aux_loss_alpha=0.02,
    mtp_loss_weight=0.3,
)
_V2 = dict(scoring_func="softmax", norm_topk_prob=False, balance="aux_loss")


def _yarn(factor: float, original: int, **changes) -> dict:
    stretched = Yarn(factor=float(factor), original_max_position_embeddings=original, **changes)
    return dict(rope_scaling=stretched, max_position_embeddings=factor * original)


CONFIGS: dict[str, ModelConfig] = {
    "base": _BASE,
    "no_query_latent": _BASE.replace(q_lora_rank=None),
    "moonlight_like": _BASE.replace(
        q_lora_rank=None, n_group=1, topk_group=1, n_shared_experts=2, rms_norm_eps=1e-5, rope_theta=50000.0
    ),
    "large_epsilon": _BASE.replace(rms_norm_eps=0.1),
    "attention_bias": _BASE.replace(attention_bias=True),
    "attention_bias_no_query_latent": _BASE.replace(attention_bias=True, q_lora_rank=None),
    "tied_embeddings": _BASE.replace(tie_word_embeddings=True),
    "yarn": _BASE.replace(**_yarn(40, 256)),
    "yarn_beyond_original": _BASE.replace(**_yarn(8, 16, beta_fast=2.0, mscale=0.707, mscale_all_dim=0.707)),
    "yarn_unequal_mscale": _BASE.replace(**_yarn(12, 24, beta_fast=4.0, mscale=1.4, mscale_all_dim=0.6)),
    "yarn_without_ramp": _BASE.replace(**_yarn(4, 5)),
    "half_split": _BASE.replace(rope_interleave=False),
    "half_split_yarn": _BASE.replace(rope_interleave=False, **_yarn(8, 32, mscale=1.2)),
    "wide_values": _BASE.replace(qk_nope_head_dim=6, v_head_dim=13, qk_rope_head_dim=4),
    "one_group": _BASE.replace(n_group=1, topk_group=1, n_shared_experts=0),
    "two_groups": _BASE.replace(n_group=2, topk_group=1, n_shared_experts=2, routed_scaling_factor=1.0),
    "every_group_kept": _BASE.replace(topk_group=4),
    "every_kept_expert_chosen": _BASE.replace(num_experts_per_tok=8),
    "one_expert_chosen": _BASE.replace(num_experts_per_tok=1),
    "raw_gates": _BASE.replace(norm_topk_prob=False, routed_scaling_factor=1.0),
    "all_sparse_two_mtp": _BASE.replace(first_k_dense_replace=0, num_nextn_predict_layers=2),
    "all_dense": _BASE.replace(first_k_dense_replace=3),
    "three_mtp": _BASE.replace(num_hidden_layers=2, num_nextn_predict_layers=3),
    "no_mtp": _BASE.replace(num_nextn_predict_layers=0),
    "v2_lite_like": _BASE.replace(
        **_V2, topk_method="greedy", n_group=1, topk_group=1, q_lora_rank=None, routed_scaling_factor=1.0
    ),
    "v2_like": _BASE.replace(
        **_V2,
        topk_method="group_limited_greedy",
        n_shared_experts=2,
        routed_scaling_factor=16.0,
        **_yarn(40, 8, mscale=0.707, mscale_all_dim=0.707),
    ),
    "v2_unequal_mscale": _BASE.replace(
        **_V2,
        topk_method="group_limited_greedy",
        n_group=2,
        topk_group=1,
        attention_bias=True,
        tie_word_embeddings=True,
        **_yarn(12, 24, mscale=1.4, mscale_all_dim=0.6),
    ),
}

_SHAPES = {  # (B, T) where it is not (2, 12)
    "yarn": (1, 40),
    "yarn_beyond_original": (1, 48),
    "yarn_unequal_mscale": (2, 33),
    "half_split_yarn": (1, 40),
    "every_group_kept": (5, 3),
    "three_mtp": (3, 5),
    "no_mtp": (3, 1),
}


def example(name: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and the tokens that follow them, both (B, T), for ``CONFIGS[name]``."""
    batch, time = _SHAPES.get(name, (2, 12))
    text = np.random.default_rng([seed, 1]).integers(CONFIGS[name].vocab_size, size=(batch, time + 1))
    return text[:, :-1], text[:, 1:]


# Weights.


def weight_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape (out, in) of every array of an MLA model, its MTP modules and routing biases included."""
    d, V, H, L = config.hidden_size, config.vocab_size, config.num_attention_heads, config.num_hidden_layers
    d_qk = config.qk_nope_head_dim + config.qk_rope_head_dim
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (V, d), "model.norm.weight": (d,)}
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (V, d)

    def feed_forward(prefix: str, width: int, *stack: int) -> dict[str, tuple[int, ...]]:
        up, down = (*stack, width, d), (*stack, d, width)
        return {f"{prefix}gate_proj.weight": up, f"{prefix}up_proj.weight": up, f"{prefix}down_proj.weight": down}

    for layer in range(L + config.num_nextn_predict_layers):
        p = f"model.layers.{layer}."
        shapes |= {p + "input_layernorm.weight": (d,), p + "post_attention_layernorm.weight": (d,)}
        a, rank = p + "self_attn.", config.q_lora_rank
        if rank is None:
            shapes |= {a + "q_proj.weight": (H * d_qk, d)}
        else:
            shapes |= {a + "q_a_proj.weight": (rank, d), a + "q_a_layernorm.weight": (rank,)}
            shapes |= {a + "q_b_proj.weight": (H * d_qk, rank)}
        shapes |= {
            a + "kv_a_proj_with_mqa.weight": (config.kv_lora_rank + config.qk_rope_head_dim, d),
            a + "kv_a_layernorm.weight": (config.kv_lora_rank,),
            a + "kv_b_proj.weight": (H * (config.qk_nope_head_dim + config.v_head_dim), config.kv_lora_rank),
            a + "o_proj.weight": (d, H * config.v_head_dim),
        }
        if config.attention_bias:
            biased = ["kv_a_proj_with_mqa", "o_proj"] + ([] if rank is None else ["q_a_proj"])
            shapes |= {f"{a}{name}.bias": shapes[f"{a}{name}.weight"][:1] for name in biased}
        if layer < config.first_k_dense_replace:
            shapes |= feed_forward(p + "mlp.", config.intermediate_size)
        else:
            E, width = config.n_routed_experts, config.moe_intermediate_size
            shapes |= {p + "mlp.gate.weight": (E, d)} | feed_forward(p + "mlp.experts.", width, E)
            if config.topk_method == "noaux_tc":
                shapes |= {p + "mlp.gate.e_score_correction_bias": (E,)}
            if config.n_shared_experts:
                shapes |= feed_forward(p + "mlp.shared_experts.", width * config.n_shared_experts)
        if layer >= L:
            shapes |= {p + "eh_proj.weight": (d, 2 * d)}
            shapes |= {p + name + ".weight": (d,) for name in ("enorm", "hnorm", "shared_head.norm")}
    return shapes


def random_weights(config: ModelConfig, seed: int = 0, dtype=np.float64) -> dict[str, np.ndarray]:
    """Weights large enough that every part matters: norm gains 0.8 to 1.2, the rest of standard deviation 0.2.

    Routing biases lie between -1.5 and 0.5, so that many biased scores are negative: where the experts of forbidden groups
    are masked with 0 instead of -inf they then win, and gates taken from biased scores come out wrong.
    """
    rng = np.random.default_rng([seed, 2])
    weights = {}
    for name, shape in weight_shapes(config).items():
        if name.endswith("norm.weight"):
            value = rng.uniform(0.8, 1.2, shape)
        elif name.endswith("e_score_correction_bias"):
            value = rng.uniform(-1.5, 0.5, shape)
        else:
            value = rng.normal(0.0, 0.2, shape)
        weights[name] = value.astype(dtype)
    return weights
