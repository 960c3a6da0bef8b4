"""``config.json`` of a Hugging Face DeepSeek folder ↔ ``ModelConfig``.

Four kinds of file are read: ``deepseek_v3`` (V3, R1, Moonlight), its twins ``kimi_k2`` and ``glm4_moe_lite`` (GLM-4.7-Flash),
and ``deepseek_v2``; and of relatives that see pictures the text model, where it is one of these. What decides what is computed
must be in the file: a size or a group limit that is guessed gives another model. Any other field that is left out has the
default of the Hugging Face class of that kind, in ``transformers`` 5.23. What minids does not have is refused.

A configuration that Hugging Face has a model for is written as such, minids' own fields under the key "minids", which other
readers ignore. One it has no model for (attention other than MLA, a V2 router with a bias, …) has the model type "minids".

    deepseek_v3   sigmoid scores, choice corrected by a bias (noaux_tc), groups scored by their two best experts
    deepseek_v2   softmax scores, greedy or group_limited_greedy, gates not normalised, interleaved RoPE
"""

import dataclasses
import os
import typing
from pathlib import Path
from typing import Any

from minids.checkpoint.foreign import quantised, without_weights
from minids.checkpoint.rope_json import rope_from_json, rope_to_json
from minids.config import ModelConfig
from minids.errors import MinidsError, refuse
from minids.files import inside, read_json, shortened

CONFIG_NAME = "config.json"
CONFIG_LIMIT = 1 << 20  # bytes; real ones have two thousand

# Class defaults of transformers 5.23, where they are not those of ModelConfig.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "deepseek_v3": dict(max_position_embeddings=4096, initializer_range=0.02),
    "deepseek_v2": {
        **dict(vocab_size=102400, bos_token_id=1, eos_token_id=2, max_position_embeddings=2048, initializer_range=0.02),
        **dict(hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, num_nextn_predict_layers=0),
        **dict(first_k_dense_replace=0, intermediate_size=11008, moe_intermediate_size=1407),  # sic
        **dict(n_routed_experts=64, n_shared_experts=2, num_experts_per_tok=None),  # none: the file has to say it
        **dict(n_group=None, topk_group=None, scoring_func="softmax", topk_method="greedy", norm_topk_prob=False),
        **dict(routed_scaling_factor=1.0, balance="aux_loss"),
    },
    "glm4_moe_lite": dict(first_k_dense_replace=1, num_nextn_predict_layers=0, initializer_range=0.02),
    "minids": {},
}
_DEFAULTS["kimi_k2"] = _DEFAULTS["deepseek_v3"]

# What decides what is computed, and no tensor's shape gives away for certain; null is an answer.
_NEEDED = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size", "moe_intermediate_size", "num_attention_heads"),
    *("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "rms_norm_eps"),
    *("n_routed_experts", "n_shared_experts", "num_experts_per_tok", "n_group", "topk_group", "routed_scaling_factor"),
    *("norm_topk_prob", "max_position_embeddings"),
)
_NOT_NEEDED = {
    "deepseek_v2": ("norm_topk_prob",),  # transformers' class has no such field
    "minids": _NEEDED,
}

# Other spellings of a field, all of them transformers' own.
_ALIASES = {"n_routed_experts": ("num_local_experts", "num_experts"), "num_nextn_predict_layers": ("num_mtp_layers",)}

# What the kind itself fixes: DeepSeek's code stops at any other value, transformers does not look at the field.
_FIXED: dict[str, dict[str, tuple]] = {
    "deepseek_v3": dict(scoring_func=("sigmoid",), topk_method=("noaux_tc",)),
    "deepseek_v2": dict(scoring_func=("softmax",), topk_method=("greedy", "group_limited_greedy"))
    | dict(norm_topk_prob=(False,), rope_interleave=(True,)),
    "minids": {},
}
_FIXED["kimi_k2"] = _FIXED["glm4_moe_lite"] = _FIXED["deepseek_v3"]

# Every released model of the family has these values, and minids nothing else.
_ONLY = dict(hidden_act="silu", moe_layer_freq=1, mlp_bias=False, partial_rotary_factor=1.0, per_layer_config=None) | dict(
    use_mla=True
)

# Relatives that see pictures keep the text model's fields under one of these.
_TEXT = ("text_config", "language_config")

_ELSEWHERE = {
    "deepseek_v32": "it has sparse attention, which minids does not; ",
    "deepseek_v4": "it has no MLA and other connections between blocks; ",
    "deepseek": "DeepSeekMoE came before MLA; ",
}

# Fields of ours that Hugging Face files have no name for; num_key_value_heads they have, but not its None.
_OURS = (
    *("attention", "num_key_value_heads", "balance", "bias_update_speed", "bias_update_rule", "aux_loss_counts"),
    *("mtp_state", "mtp_own_matrices", "mtp_loss_weight", "precision", "fp8_scaling", "fp8_tile", "fp8_promotion"),
)

_CLASSIFIER = "ForSequenceClassification"
_READ = "deepseek_v3, kimi_k2, glm4_moe_lite and deepseek_v2"
_FIELDS = {field.name: field for field in dataclasses.fields(ModelConfig)}
_SHARED = tuple(name for name in _FIELDS if name not in (*_OURS, "rope_theta", "rope_scaling"))
_REALS = tuple(name for name, kind in typing.get_type_hints(ModelConfig).items() if kind is float and name != "rope_theta")


def read_config(folder: str | Path) -> ModelConfig:
    """The configuration of a folder, however its weights are stored, and also where there are none."""
    return config_from_json(read_config_json(folder), str(Path(folder) / CONFIG_NAME))


def check_folder(path: Path) -> None:
    """Refuse what is no folder, a file of it among them."""
    if not os.path.isdir(path):  # pathlib's would raise for a name too long, or with a NUL in it
        why = "is a file; give the folder that it is in" if os.path.isfile(path) else "not a folder"
        raise MinidsError(f"{shortened(str(path))}: {why}")


def read_config_json(folder: str | Path) -> dict:
    folder = Path(folder)
    check_folder(folder)
    if not (folder / CONFIG_NAME).exists():
        what = without_weights(folder) or "so not a checkpoint folder (or one whose writing was interrupted)"
        raise MinidsError(f"{folder}: no {CONFIG_NAME}, {what}")
    return read_json(inside(folder, CONFIG_NAME, str(folder)), CONFIG_LIMIT)


def config_from_json(json: dict, source: str = CONFIG_NAME) -> ModelConfig:
    """The configuration that a ``config.json`` stands for. ``source`` opens the error line."""
    try:
        return _config_from_json(json)
    except MinidsError as error:
        raise MinidsError(f"{source}: {error}") from None


def text_model(json: dict) -> dict:
    """The fields of the text model: of a relative that sees pictures those of its part, else those of the file itself."""
    part = next((json[name] for name in _TEXT if isinstance(json.get(name), dict)), None)
    if part is None or json.get("model_type") in _DEFAULTS:
        return json
    shared = ("quantization_config", "quantization", "bos_token_id", "eos_token_id", "tie_word_embeddings")
    return {name: json[name] for name in shared if name in json} | part


def sees_pictures(json: dict) -> bool:
    return text_model(json) is not json


def _config_from_json(json: dict) -> ModelConfig:
    json = text_model(json)
    kind = json.get("model_type")
    if not isinstance(kind, str) or kind not in _DEFAULTS:
        raise refuse("model_type", kind, f"{_ELSEWHERE.get(str(kind), '')}minids reads {_READ}")
    for name, value in _ONLY.items():
        if json.get(name, value) not in (value, None):
            raise refuse(name, json[name], f"minids has only {value!r}")
    _ask_for_missing(kind, json)
    values: dict[str, Any] = {name: _FIELDS[name].default for name in _SHARED} | _DEFAULTS[kind]
    for name in _SHARED:
        spelling = next((spelling for spelling in (name, *_ALIASES.get(name, ())) if spelling in json), None)
        if spelling is not None:
            values[name] = _value(name, json[spelling])
    for name, allowed in _FIXED[kind].items():
        if values[name] not in allowed:
            raise refuse(name, values[name], f"model_type {kind!r} knows only {' and '.join(map(repr, allowed))}")
    values["q_lora_rank"] = values["q_lora_rank"] or None  # 0 means None
    for name in ("n_shared_experts", "num_nextn_predict_layers"):  # null means none of them
        values[name] = 0 if values[name] is None else values[name]
    for name in ("n_group", "topk_group"):  # missing they mean one group, as "greedy" does whatever the file says
        if values[name] is None or (kind != "minids" and values["topk_method"] == "greedy"):
            values[name] = 1
    if "mlp_layer_types" in json:
        values["first_k_dense_replace"] = _dense_layers(json["mlp_layer_types"])
    dense, layers = values["first_k_dense_replace"], values["num_hidden_layers"]
    if isinstance(dense, int) and isinstance(layers, int):  # more dense layers than layers: all of them
        values["first_k_dense_replace"] = min(dense, layers)
    values["rope_theta"], values["rope_scaling"] = rope_from_json(json, values["max_position_embeddings"])
    return ModelConfig(**values | _own_fields(json))


def _ask_for_missing(kind: str, json: dict) -> None:
    """Refuse an abridged file: what it leaves out would be guessed."""
    rope = json.get("rope_parameters") or json.get("rope_scaling") or {}
    missing = [
        name
        for name in _NEEDED
        if name not in _NOT_NEEDED.get(kind, ()) and not any(spelling in json for spelling in (name, *_ALIASES.get(name, ())))
    ]
    if kind != "minids" and "rope_theta" not in json and not (isinstance(rope, dict) and "rope_theta" in rope):
        missing.append("rope_theta")
    if json.get("topk_method", values_of(kind, "topk_method")) == "greedy":  # knows no groups
        missing = [name for name in missing if name not in ("n_group", "topk_group")]
    if missing:
        more = f", {', '.join(missing[1:])}" if missing[1:] else ""
        because = "is not in the file, and a guess would be another model; add what the original folder's config.json says"
        raise MinidsError(f"{missing[0]}{more}: {because}")


def values_of(kind: str, name: str) -> object:
    """The default of a field in a file of that kind."""
    return _DEFAULTS[kind].get(name, _FIELDS[name].default)


def _dense_layers(types: object) -> int:
    """GLM's list of layers, "dense" or "sparse" each → how many dense ones come first."""
    dense = types.count("dense") if isinstance(types, list) else -1
    if dense < 0 or types != ["dense"] * dense + ["sparse"] * (len(types) - dense):  # type: ignore[arg-type]
        raise refuse("mlp_layer_types", types, "minids has dense layers first and sparse ones after them")
    return dense


def _value(name: str, value: object) -> object:
    if name == "eos_token_id" and isinstance(value, list):  # several: the first
        return value[0] if value else None
    if name in _REALS and type(value) is int and abs(value) < 1 << 53:
        return float(value)
    return value


def _own_fields(json: dict) -> dict[str, object]:
    own = json.get("minids", {})
    if not isinstance(own, dict):
        raise refuse("minids", own, "must be an object")
    for name in (name for name in own if name not in _OURS):
        raise refuse(f"minids.{shortened(name)}", own[name], f"no such field; there are {', '.join(_OURS)}")
    if own:
        return {name: _value(name, value) for name, value in own.items()}
    # MLA has one key-value head per head; such files say so with the same number twice
    kv_heads = json.get("num_key_value_heads")
    return {"num_key_value_heads": None if kv_heads == json.get("num_attention_heads") else kv_heads}


def fp8_block_size(json: dict) -> tuple[int, int]:
    """(rows, columns) of the blocks that share a scale, 128 × 128 where the file does not say. Other ways are refused."""
    json = text_model(json)
    quantization = json.get("quantization_config")
    if quantization is None:
        if what := quantised(json):
            raise refuse("quantization", json["quantization"], what)
        return 128, 128
    method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
    if method != "fp8":
        raise refuse("quantization_config.quant_method", method, str(quantised(json)))
    block = quantization.get("weight_block_size", [128, 128])
    if not isinstance(block, list) or len(block) != 2 or not all(type(n) is int and n >= 1 for n in block):
        raise refuse("quantization_config.weight_block_size", block, "must be two whole numbers, such as [128, 128]")
    return block[0], block[1]


def hugging_face_type(config: ModelConfig) -> str:
    """The model type a configuration is written as: "deepseek_v3", "deepseek_v2", or "minids" for what is neither."""
    c = config
    if c.attention == "mla" and c.scoring_func == "sigmoid" and c.topk_method == "noaux_tc":
        return "deepseek_v3"
    v2_router = c.scoring_func == "softmax" and c.topk_method != "noaux_tc" and not c.norm_topk_prob
    # transformers' V2 class insists on the last of these, though nothing in the model depends on it
    is_v2 = c.attention == "mla" and v2_router and c.rope_interleave and c.hidden_size % c.num_attention_heads == 0
    return "deepseek_v2" if is_v2 else "minids"


def reward_model_json(config: ModelConfig) -> dict:
    """The ``config.json`` of a reward model: a classifier of sequences with one label."""
    json = config_to_json(config)
    kind = json["architectures"][0].removesuffix("ForCausalLM")
    return json | {"architectures": [f"{kind}{_CLASSIFIER}"], "id2label": {"0": "reward"}, "label2id": {"reward": 0}}


def is_reward_model(json: dict) -> bool:
    named = json.get("architectures")
    return isinstance(named, list) and any(isinstance(name, str) and name.endswith(_CLASSIFIER) for name in named)


def config_to_json(config: ModelConfig, dtype: str = "float32") -> dict:
    """The ``config.json`` of a configuration, which ``config_from_json`` turns back into an equal one. RoPE and ``dtype``
    ("float32" or "bfloat16", of the tensors beside it) are spelled both as old remote code and as transformers 5 reads them."""
    kind = hugging_face_type(config)
    architecture = {"deepseek_v3": "DeepseekV3ForCausalLM", "deepseek_v2": "DeepseekV2ForCausalLM"}.get(kind, "DeepSeekV3")
    return {
        **{"architectures": [architecture], "model_type": kind, "dtype": dtype, "torch_dtype": dtype},
        **{"hidden_act": "silu", "moe_layer_freq": 1, "attention_dropout": 0.0},
        **{"use_cache": True, "pad_token_id": None, "pretraining_tp": 1},
        **{name: getattr(config, name) for name in _SHARED},
        **{name: float(getattr(config, name)) for name in _REALS if name in _SHARED},
        "num_key_value_heads": config.kv_heads,
        "qk_head_dim": config.qk_head_dim,
        "head_dim": config.qk_rope_head_dim,  # as transformers' DeepSeek classes have it: what RoPE acts on
        **rope_to_json(config.rope_theta, config.rope_scaling),
        "minids": {name: getattr(config, name) for name in _OURS},
    }
