"""The same weights under the names of two programs that train on many GPUs: torchtitan and Megatron-Core.

Both also open a Hugging Face folder, and so a minids checkpoint, through converters of their own; what is written here needs no
converter: safetensors by the names of their own parameters, and a JSON file with the settings that these weights ask for.

    torchtitan   names of ``torchtitan/models/deepseek_v3`` (August 2026); experts stacked (E, F, D), as here; settings are the
                 arguments of its ``build_mla_moe_layers`` and ``RoPE.Config``
    megatron     names of ``GPTModel`` with Transformer Engine, as Megatron-Bridge maps them; gate and up projection are one
                 matrix, gate first; experts are numbered; settings are fields of ``MLATransformerConfig``

Norms with which a layer begins belong to the linear map behind them in Transformer Engine ("layer_norm_weight"), but for the
input norm and that of a layer with experts.

What another program would compute otherwise is refused. One thing is only warned of: torchtitan's MTP modules read the main
model's state before its final norm, these weights were trained on the state after it.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from minids import arguments
from minids.checkpoint.folder import write_folder
from minids.checkpoint.latest import POINTER
from minids.checkpoint.names import EMBEDDING, FINAL_NORM, HEAD, in_shards
from minids.config import ModelConfig
from minids.errors import refuse
from minids.layers.mla import LATENT_NORM_EPS
from minids.model import DeepSeekV3

Array = np.ndarray
Named = Iterator[tuple[str, Array]]

TARGETS = ("torchtitan", "megatron")
TITAN_WARNING = (
    "torchtitan's MTP modules read the state before the final norm, these were trained on the one after it: their loss will "
    "begin higher"
)

_TITAN = {  # of a layer
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attention.wq",
    "self_attn.q_a_proj": "attention.wq_a",
    "self_attn.q_a_layernorm": "attention.q_norm",
    "self_attn.q_b_proj": "attention.wq_b",
    "self_attn.kv_a_proj_with_mqa": "attention.wkv_a",
    "self_attn.kv_a_layernorm": "attention.kv_norm",
    "self_attn.kv_b_proj": "attention.wkv_b",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate": "moe.router.gate",
    "enorm": "enorm",
    "hnorm": "hnorm",
    "eh_proj": "eh_proj",
    "shared_head.norm": "mtp_norm",
    **{
        f"{ours}.{projection}_proj": f"{theirs}.{w}"
        for ours, theirs in (("mlp", "feed_forward"), ("mlp.shared_experts", "moe.shared_experts"))
        for projection, w in (("gate", "w1"), ("up", "w3"), ("down", "w2"))
    },
}
_TITAN_WHOLE = {  # without ".weight"
    "mlp.experts.gate_proj.weight": "moe.routed_experts.inner_experts.w1_EFD",
    "mlp.experts.up_proj.weight": "moe.routed_experts.inner_experts.w3_EFD",
    "mlp.experts.down_proj.weight": "moe.routed_experts.inner_experts.w2_EDF",
    "mlp.gate.e_score_correction_bias": "moe.expert_bias_E",
}
_MEGATRON = {
    "input_layernorm.weight": "input_layernorm.weight",
    "self_attn.q_a_proj.weight": "self_attention.linear_q_down_proj.weight",
    "self_attn.q_a_layernorm.weight": "self_attention.linear_q_up_proj.layer_norm_weight",
    "self_attn.q_b_proj.weight": "self_attention.linear_q_up_proj.weight",
    "self_attn.kv_a_proj_with_mqa.weight": "self_attention.linear_kv_down_proj.weight",
    "self_attn.kv_a_layernorm.weight": "self_attention.linear_kv_up_proj.layer_norm_weight",
    "self_attn.kv_b_proj.weight": "self_attention.linear_kv_up_proj.weight",
    "self_attn.o_proj.weight": "self_attention.linear_proj.weight",
    "mlp.gate.weight": "mlp.router.weight",
    "mlp.gate.e_score_correction_bias": "mlp.router.expert_bias",
    "mlp.down_proj.weight": "mlp.linear_fc2.weight",
    "mlp.shared_experts.down_proj.weight": "mlp.shared_experts.linear_fc2.weight",
}
_MEGATRON_MTP = {"enorm": "enorm", "hnorm": "hnorm", "eh_proj": "eh_proj", "shared_head.norm": "final_layernorm"}
_OUTSIDE = {
    "torchtitan": ("tok_embeddings.weight", "norm.weight", "lm_head.weight"),
    "megatron": ("embedding.word_embeddings.weight", "decoder.final_layernorm.weight", "output_layer.weight"),
}


def export(model: DeepSeekV3, folder: str | Path, to: str) -> str:
    """Write a folder for ``to``, "torchtitan" or "megatron": model.safetensors (or shards and an index), TO.json with the
    settings, and the tokenizer. Returns a warning, or "". Raises ``MinidsError`` for a model that is another one there."""
    arguments.instance("model", model, DeepSeekV3, "a model: minids.load(folder), or minids.DeepSeekV3(config)")
    arguments.one_of("to", to, TARGETS)
    config = model.config
    check(config, to)
    for name in ("config.json", "run.json", POINTER):
        if (Path(folder) / name).exists():
            raise refuse("out", str(folder), f"holds a checkpoint or a run (it has {name}); choose another folder")
    arrays = {p.name: p.value for p in model.parameters} | model.parameters.buffers
    others: dict[str, bytes | None] = {f"{other}.json": None for other in TARGETS if other != to}
    others |= {} if model.tokenizer is None else model.tokenizer.files()
    write_folder(folder, SETTINGS[to](config), in_shards(NAMED[to](config, arrays)), others=others, config_name=f"{to}.json")
    return TITAN_WARNING if to == "torchtitan" and config.num_nextn_predict_layers else ""


def check(config: ModelConfig, to: str) -> None:
    """Refuse what ``to`` has no settings for, field by field."""
    c = config
    in_both: dict[str, tuple[object, bool, str]] = {
        "attention": (c.attention, c.attention == "mla", "only MLA has a place there"),
        "attention_bias": (c.attention_bias, not c.attention_bias, "projections have no bias there"),
        "rope_interleave": (c.rope_interleave, c.rope_interleave, "rotated pairs are neighbours there"),
        "mtp_own_matrices": (c.mtp_own_matrices, not c.mtp_own_matrices, "MTP modules share embedding and head there"),
        "mtp_state": (
            c.mtp_state, c.mtp_state == "normed" or c.num_nextn_predict_layers < 2, "modules hand on their normed state there"
        ),
        "n_shared_experts": (c.n_shared_experts, c.n_shared_experts > 0, "there is always a shared expert there"),
    }  # fmt: skip
    yarn = c.rope_scaling
    only: dict[str, dict[str, tuple[object, bool, str]]] = {
        "torchtitan": {
            "tie_word_embeddings": (c.tie_word_embeddings, not c.tie_word_embeddings, "the head is a matrix of its own there"),
            "topk_method": (c.topk_method, c.topk_method != "group_limited_greedy", "a group is scored by its two best there"),
            "rope_scaling.mscale": (
                yarn and yarn.mscale, yarn is None or yarn.mscale == yarn.mscale_all_dim, "must equal mscale_all_dim there"
            ),
        },
        "megatron": {
            "q_lora_rank": (c.q_lora_rank, c.q_lora_rank is not None, "its norm has two names there; open the folder itself"),
            "topk_method": (c.topk_method, c.topk_method == "noaux_tc", "only routers with a balancing bias are written"),
            "scoring_func": (c.scoring_func, c.scoring_func == "sigmoid", "a balancing bias belongs to sigmoid scores there"),
            "norm_topk_prob": (c.norm_topk_prob, c.norm_topk_prob, "sigmoid scores are divided by their sum there"),
            "num_experts_per_tok": (
                c.num_experts_per_tok, c.num_experts_per_tok > 1, "a single expert's score is not divided by itself there"
            ),
            "topk_group": (
                c.topk_group, c.topk_group == c.n_group or c.num_experts_per_tok // c.topk_group == 2,
                "a group is scored by its K // topk_group best there, and by its two best here",
            ),
            "rms_norm_eps": (c.rms_norm_eps, c.rms_norm_eps == LATENT_NORM_EPS, "the latents' norms, of 1e-06, share it there"),
        },
    }  # fmt: skip
    for field, (value, works, because) in (in_both | only[to]).items():
        if not works:
            raise refuse(field, value, f"cannot be expressed in {to}: {because}")


def _parts(name: str) -> tuple[int | None, str]:
    """``model.layers.3.mlp.gate.weight`` → (3, "mlp.gate.weight"); (None, name) outside of the layers."""
    match = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", name)
    return (int(match[1]), match[2]) if match else (None, name)


def _outside(to: str, name: str) -> str:
    return dict(zip((EMBEDDING, FINAL_NORM, HEAD), _OUTSIDE[to], strict=True))[name]


def of_torchtitan(config: ModelConfig, arrays: dict[str, Array]) -> Named:
    for name, array in arrays.items():
        layer, rest = _parts(name)
        if layer is None:
            yield _outside("torchtitan", name), array
            continue
        deeper = layer - config.num_hidden_layers
        owner = f"layers.{layer}" if deeper < 0 else f"mtp_layers.{deeper}"
        yield f"{owner}.{_TITAN_WHOLE.get(rest) or _TITAN[rest.removesuffix('.weight')] + '.weight'}", array


def of_megatron(config: ModelConfig, arrays: dict[str, Array]) -> Named:
    for name, array in arrays.items():
        layer, rest = _parts(name)
        if layer is None:
            yield _outside("megatron", name), array
            continue
        deeper = layer - config.num_hidden_layers
        part = rest.removesuffix(".weight")
        if part in _MEGATRON_MTP:
            yield f"mtp.layers.{deeper}.{_MEGATRON_MTP[part]}.weight", array
            continue
        owner = f"decoder.layers.{layer}" if deeper < 0 else f"mtp.layers.{deeper}.mtp_model_layer"
        if rest in _MEGATRON:
            yield f"{owner}.{_MEGATRON[rest]}", array
        elif part == "post_attention_layernorm":
            norm = "pre_mlp_layernorm.weight" if config.is_moe(layer) else "mlp.linear_fc1.layer_norm_weight"
            yield f"{owner}.{norm}", array
        elif part == "mlp.experts.down_proj":
            for e, matrix in enumerate(array):
                yield f"{owner}.mlp.experts.linear_fc2.weight{e}", matrix
        elif part.endswith("gate_proj"):  # with up_proj, which follows in the same matrix
            up = arrays[name.replace("gate_proj", "up_proj")]
            stem = f"{owner}.{part.removesuffix('gate_proj')}linear_fc1.weight"
            if part == "mlp.experts.gate_proj":
                for e, pair in enumerate(zip(array, up, strict=True)):
                    yield f"{stem}{e}", np.concatenate(pair)
            else:
                yield stem, np.concatenate([array, up])
        else:
            assert part.endswith("up_proj"), name


def titan_settings(config: ModelConfig) -> dict[str, Any]:
    c, yarn = config, config.rope_scaling
    rope: dict[str, Any] = {"dim": c.qk_rope_head_dim, "max_context_length": c.max_position_embeddings, "theta": c.rope_theta}
    if yarn:
        rope |= {"scaling": "yarn", "rope_factor": yarn.factor, "beta_fast": yarn.beta_fast, "beta_slow": yarn.beta_slow}
        rope |= {"original_seq_len": yarn.original_max_position_embeddings}
    return {
        "vocab_size": c.vocab_size,
        "dim": c.hidden_size,
        "n_layers": c.num_hidden_layers,
        "n_dense_layers": c.first_k_dense_replace,
        "num_mtp_layers": c.num_nextn_predict_layers,
        "mtp_scale": c.mtp_loss_weight,
        "n_heads": c.num_attention_heads,
        "q_lora_rank": c.q_lora_rank or 0,
        "kv_lora_rank": c.kv_lora_rank,
        "qk_nope_head_dim": c.qk_nope_head_dim,
        "qk_rope_head_dim": c.qk_rope_head_dim,
        "v_head_dim": c.v_head_dim,
        "mscale": yarn.mscale if yarn else 1.0,
        "dense_hidden_dim": c.intermediate_size,
        "moe_hidden_dim": c.moe_intermediate_size,
        "num_experts": c.n_routed_experts,
        "num_shared_experts": c.n_shared_experts,
        "router_top_k": c.num_experts_per_tok,
        "router_score_func": c.scoring_func,
        "router_num_expert_groups": c.n_group if c.n_group > 1 else None,
        "router_num_limited_groups": c.topk_group if c.n_group > 1 else None,
        "router_route_norm": c.norm_topk_prob,
        "router_route_scale": c.routed_scaling_factor,
        "load_balance_coeff": c.bias_update_speed if c.balance == "bias" else None,
        "norm_eps": c.rms_norm_eps,  # RMSNorm.Config(eps=…): its own default is 1e-5
        "latent_norm_eps": LATENT_NORM_EPS,  # of q_norm and kv_norm
        "rope": rope,
    }


def megatron_settings(config: ModelConfig) -> dict[str, Any]:
    c, yarn = config, config.rope_scaling
    dense, layers = c.first_k_dense_replace, c.num_hidden_layers
    # Without YaRN these two have to be said: Megatron's own defaults, 40 and 0, are those of V3 stretched to 128K.
    rope: dict[str, Any] = {"rotary_scaling_factor": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0}
    if yarn:
        rope = {"rotary_scaling_factor": yarn.factor, "mscale": yarn.mscale, "mscale_all_dim": yarn.mscale_all_dim}
        rope |= {"beta_fast": yarn.beta_fast, "beta_slow": yarn.beta_slow}
        rope |= {"original_max_position_embeddings": yarn.original_max_position_embeddings}
    return {
        "num_layers": layers,
        "hidden_size": c.hidden_size,
        "ffn_hidden_size": c.intermediate_size,
        "num_attention_heads": c.num_attention_heads,
        "vocab_size": c.vocab_size,
        "make_vocab_size_divisible_by": 1,
        "seq_length": c.max_position_embeddings,
        "layernorm_epsilon": c.rms_norm_eps,
        "init_method_std": c.initializer_range,
        "normalization": "RMSNorm",
        "gated_linear_unit": True,
        "add_bias_linear": False,
        "share_embeddings_and_output_weights": c.tie_word_embeddings,
        "multi_latent_attention": True,
        "qk_layernorm": True,
        "q_lora_rank": c.q_lora_rank,
        "kv_lora_rank": c.kv_lora_rank,
        "qk_head_dim": c.qk_nope_head_dim,
        "qk_pos_emb_head_dim": c.qk_rope_head_dim,
        "v_head_dim": c.v_head_dim,
        "rotary_base": c.rope_theta,
        **rope,
        "num_moe_experts": c.n_routed_experts,
        "moe_layer_freq": [0] * dense + [1] * (layers - dense),
        "moe_ffn_hidden_size": c.moe_intermediate_size,
        "moe_shared_expert_intermediate_size": c.n_shared_experts * c.moe_intermediate_size,
        "moe_grouped_gemm": True,
        "moe_router_topk": c.num_experts_per_tok,
        "moe_router_num_groups": c.n_group if c.n_group > 1 else None,
        "moe_router_group_topk": c.topk_group if c.n_group > 1 else None,
        "moe_router_topk_scaling_factor": c.routed_scaling_factor,
        "moe_router_score_function": c.scoring_func,
        "moe_router_pre_softmax": True,
        "moe_router_dtype": "fp32",
        "moe_router_enable_expert_bias": True,
        "moe_router_bias_update_rate": c.bias_update_speed if c.balance == "bias" else 0.0,
        "moe_router_load_balancing_type": "none" if c.balance == "none" else "seq_aux_loss" if c.seq_aux else "aux_loss",
        "moe_aux_loss_coeff": 0.0 if c.balance == "none" else c.aux_loss_alpha,
        "mtp_num_layers": c.num_nextn_predict_layers or None,
        "mtp_loss_scaling_factor": c.mtp_loss_weight,
    }


NAMED: dict[str, Callable[[ModelConfig, dict[str, Array]], Named]] = {"torchtitan": of_torchtitan, "megatron": of_megatron}
SETTINGS: dict[str, Callable[[ModelConfig], dict[str, Any]]] = {"torchtitan": titan_settings, "megatron": megatron_settings}
