"""Named configurations as plain tables: four that a laptop trains, and the published models of the family.

Sizes of the published models are those of their ``config.json`` and of DeepSeek's own inference configs. Where a release
ships with YaRN switched on, so does its preset.
"""

from typing import Any

from minids.errors import refuse
from minids.words import did_you_mean

# V3's mechanisms at laptop size: one dense block first, 4 groups of which a token may use 2, one shared expert, one MTP module.
_TINY = {
    **dict(vocab_size=258, bos_token_id=256, eos_token_id=257, max_position_embeddings=512),
    **dict(hidden_size=128, num_hidden_layers=5, first_k_dense_replace=1, intermediate_size=384, moe_intermediate_size=64),
    **dict(num_attention_heads=4, q_lora_rank=64, kv_lora_rank=32, qk_nope_head_dim=32, qk_rope_head_dim=16, v_head_dim=32),
    **dict(n_routed_experts=16, num_experts_per_tok=4, n_group=4, topk_group=2),
}
_SMALL = _TINY | {
    **dict(max_position_embeddings=1024, initializer_range=0.02, hidden_size=192, num_hidden_layers=6, intermediate_size=512),
    **dict(moe_intermediate_size=96, num_attention_heads=6, q_lora_rank=96, kv_lora_rank=48),
}
_LAPTOP = _TINY | {  # narrower than small: what a text of 3 MB wants is to be read often
    **dict(vocab_size=1024, max_position_embeddings=1024, hidden_size=160, intermediate_size=448, moe_intermediate_size=80),
    **dict(num_attention_heads=5, q_lora_rank=80, kv_lora_rank=40),
}
_SHAKESPEARE = _TINY | {
    **dict(vocab_size=65, bos_token_id=None, eos_token_id=None, max_position_embeddings=64),
    **dict(num_hidden_layers=2, first_k_dense_replace=0, num_nextn_predict_layers=0),
    **dict(num_experts_per_tok=2, routed_scaling_factor=1.0),
    "intermediate_size": 192,  # of no layer here, but of the dense models that the study race compares it with
}

# What V2 and V2-Lite have in common: the older router, balanced by a loss, and no MTP module.
_V2_FAMILY = {
    **dict(vocab_size=102400, bos_token_id=100000, eos_token_id=100001, first_k_dense_replace=1, num_nextn_predict_layers=0),
    **dict(n_shared_experts=2, num_experts_per_tok=6, scoring_func="softmax", norm_topk_prob=False, balance="aux_loss"),
    "rope_scaling": dict(factor=40.0, mscale=0.707, mscale_all_dim=0.707),  # 0.707 as in the paper; some copies say 1.0
}
# What Moonlight and Kimi-K2 have in common: V3's router without groups.
_KIMI_FAMILY = {
    **dict(vocab_size=163840, bos_token_id=163584, eos_token_id=163585, first_k_dense_replace=1, num_nextn_predict_layers=0),
    **dict(n_group=1, topk_group=1, aux_loss_alpha=0.001, rope_theta=50000.0, initializer_range=0.02),
}
# The shape that V2-Lite and Moonlight share: 16 billion parameters.
_16B = {
    **dict(hidden_size=2048, num_hidden_layers=27, moe_intermediate_size=1408, num_attention_heads=16, q_lora_rank=None),
    **dict(n_routed_experts=64, n_shared_experts=2, num_experts_per_tok=6, n_group=1, topk_group=1),
}

_MODELS: dict[str, dict[str, Any]] = {  # what differs from DeepSeek-V3, whose sizes are ModelConfig's defaults
    "tiny": _TINY,
    "small": _SMALL,
    "laptop": _LAPTOP,
    "shakespeare": _SHAKESPEARE,
    "deepseek-v3": dict(rope_scaling=dict(factor=40.0)),
    "deepseek-v2": _V2_FAMILY
    | dict(hidden_size=5120, num_hidden_layers=60, intermediate_size=12288, moe_intermediate_size=1536, n_routed_experts=160)
    | dict(topk_group=3, topk_method="group_limited_greedy", routed_scaling_factor=16.0, aux_loss_alpha=0.003),
    "deepseek-v2-lite": _V2_FAMILY
    | _16B
    | dict(intermediate_size=10944, topk_method="greedy", routed_scaling_factor=1.0, aux_loss_alpha=0.001),
    "moonlight-16b-a3b": _KIMI_FAMILY
    | _16B
    | dict(intermediate_size=11264, routed_scaling_factor=2.446, rms_norm_eps=1e-5, max_position_embeddings=8192),
    "kimi-k2": _KIMI_FAMILY
    | dict(num_attention_heads=64, n_routed_experts=384, routed_scaling_factor=2.827, max_position_embeddings=131072)
    | dict(rope_scaling=dict(factor=32.0, beta_fast=1.0, beta_slow=1.0)),
}

_MUON = {
    **dict(optimizer="muon", muon_rounds=4, muon_momentum=0.9, learning_rate=0.015, warmup_steps=50),
    **dict(constant_until=0.1, decay_until=1.0, final_from=1.0, decay_shape="linear", decay_to=0.0),
}
_MTP_LAST = dict(mtp_from=0.7, mtp_late_factor=1.0)  # the modules rest until then; λ as at V3's beginning
_RUNS: dict[str, dict[str, Any]] = {
    # As the search in docs/recipe.md found it: Muon, a rate that falls to 0, few subwords, short sequences and no MTP at first.
    "tiny": dict(steps=1750, batch_size=8, context_length=256, short_context=128, short_context_until=0.8)
    | dict(eval_every=350, sample_every=875, tokenizer="bpe", bpe_vocab_size=768)
    | _MUON
    | _MTP_LAST,
    "small": dict(steps=2000, batch_size=8, context_length=256, learning_rate=2e-3),
    "laptop": dict(steps=4400, batch_size=8, context_length=256, short_context=128, short_context_until=0.8)
    | dict(eval_every=550, sample_every=1100, tokenizer="bpe", bpe_vocab_size=1024)
    | _MUON
    | _MTP_LAST,
    # As many characters as nanoGPT's CPU recipe sees (2,000 steps of 12 × 64), by Muon with a rate that falls to 0 all the way.
    "shakespeare": dict(steps=1500, batch_size=16, context_length=64, tokenizer="chars")
    | _MUON
    | dict(constant_until=0.0, warmup_steps=30)
    | dict(eval_every=250, eval_tokens=1 << 17, save_every=500),
}

PRESETS = tuple(_MODELS)
TRAINABLE = tuple(_RUNS)  # those that come with a training run


def model_fields(name: str) -> dict[str, Any]:
    """The fields of the model configuration called ``name`` that are not V3's own; ``rope_scaling`` as fields of a Yarn."""
    return _look_up(_MODELS, name, "preset")


def train_fields(name: str, optimizer: str | None = None) -> dict[str, Any]:
    """``optimizer``: with "adamw", rate and schedule of a preset that trains by Muon are left to V3's recipe."""
    found = _look_up(_RUNS, name, "training run")
    if optimizer == "adamw" and found.get("optimizer") == "muon":
        return {field: value for field, value in found.items() if field not in _MUON | _MTP_LAST}
    return found


def _look_up(table: dict[str, dict[str, Any]], name: str, what: str) -> dict[str, Any]:
    if not isinstance(name, str) or name not in table:
        raise refuse("preset", name, f"no {what} of that name; {did_you_mean(str(name), table)}there are {', '.join(table)}")
    return dict(table[name])
