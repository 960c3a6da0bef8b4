"""config.json: every spelling that folders in the world have, exact round trips, and refusal of what minids is not."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minids.checkpoint.config_json import (
    _NEEDED,
    config_from_json,
    config_to_json,
    fp8_block_size,
    hugging_face_type,
    read_config,
)
from minids.config import ModelConfig, Yarn
from minids.config.presets import PRESETS
from minids.errors import MinidsError

YARN = dict(factor=40, original_max_position_embeddings=4096, beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=1.0)


V2_ROUTER = dict(scoring_func="softmax", topk_method="group_limited_greedy", balance="none", norm_topk_prob=False)


def through_json(config: ModelConfig) -> ModelConfig:
    return config_from_json(json.loads(json.dumps(config_to_json(config))))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_the_round_trip(name):
    config = ModelConfig.preset(name)
    assert through_json(config) == config
    assert hugging_face_type(config) == ("deepseek_v2" if "v2" in name else "deepseek_v3")


sizes = st.integers(1, 40)
reals = st.floats(1e-8, 1e6)
yarns = st.builds(
    lambda fast, slow, **rest: Yarn(beta_fast=max(fast, slow), beta_slow=min(fast, slow), **rest),
    fast=reals,
    slow=reals,
    factor=st.floats(1, 100),
    original_max_position_embeddings=st.integers(1, 10_000),
    mscale=st.just(0.0) | st.just(1.0) | st.floats(0, 3),
    mscale_all_dim=st.just(0.0) | st.just(1.0) | st.floats(0, 3),
)


@st.composite
def configs(draw) -> ModelConfig:
    groups, per_group = draw(st.integers(1, 4)), draw(st.integers(2, 5))
    method = draw(st.sampled_from(["noaux_tc", "group_limited_greedy", "greedy"]))
    if method == "greedy":
        groups = 1
    kept = draw(st.integers(1, groups))
    layers, heads, vocab = draw(sizes), draw(st.integers(1, 8)), draw(st.integers(1, 100))
    attention = draw(st.sampled_from(["mla", "mha", "gqa", "mqa"]))
    return ModelConfig(
        vocab_size=vocab,
        hidden_size=draw(sizes),
        num_hidden_layers=layers,
        first_k_dense_replace=draw(st.integers(0, layers)),
        intermediate_size=draw(sizes),
        moe_intermediate_size=draw(sizes),
        num_attention_heads=heads,
        q_lora_rank=draw(st.none() | sizes),
        kv_lora_rank=draw(sizes),
        qk_nope_head_dim=draw(st.integers(0, 9)),
        qk_rope_head_dim=2 * draw(sizes),
        v_head_dim=draw(sizes),
        n_routed_experts=groups * per_group,
        n_shared_experts=draw(st.integers(0, 2)),
        num_experts_per_tok=draw(st.integers(1, kept * per_group)),
        n_group=groups,
        topk_group=kept,
        scoring_func=draw(st.sampled_from(["sigmoid", "softmax"])),
        topk_method=method,
        norm_topk_prob=draw(st.booleans()),
        routed_scaling_factor=draw(reals | st.integers(1, 9)),
        max_position_embeddings=draw(sizes),
        rope_theta=draw(st.floats(1.5, 1e6) | st.integers(2, 99999)),
        rope_interleave=draw(st.booleans()),
        rope_scaling=draw(st.none() | yarns),
        rms_norm_eps=draw(reals),
        attention_bias=draw(st.booleans()),
        tie_word_embeddings=draw(st.booleans()),
        num_nextn_predict_layers=draw(st.integers(0, 3)),
        initializer_range=draw(st.floats(0, 1)),
        bos_token_id=draw(st.none() | st.integers(0, vocab - 1)),
        eos_token_id=draw(st.none() | st.integers(0, vocab - 1)),
        attention=attention,
        num_key_value_heads={"mla": draw(st.sampled_from([None, heads])), "gqa": heads}.get(attention),
        balance=draw(st.sampled_from(["bias", "aux_loss", "none"] if method == "noaux_tc" else ["aux_loss", "none"])),
        bias_update_speed=draw(st.floats(0, 1)),
        bias_update_rule=draw(st.sampled_from(["sign", "proportional"])),
        aux_loss_alpha=draw(st.floats(0, 1)),
        seq_aux=draw(st.booleans()),
        aux_loss_counts=draw(st.sampled_from(["selected", "unbiased"])),
        mtp_loss_weight=draw(st.floats(0, 1) | st.just(1)),
    )


@given(configs())
def test_every_configuration_survives_the_round_trip(config):
    assert through_json(config) == config
    v3 = config.attention == "mla" and (config.scoring_func, config.topk_method) == ("sigmoid", "noaux_tc")
    v2 = config.attention == "mla" and config.scoring_func == "softmax" and config.topk_method != "noaux_tc"
    kind = hugging_face_type(config)
    assert (kind == "deepseek_v3") == v3
    assert kind != "deepseek_v2" or v2, "softmax with a bias, or attention other than MLA, is no DeepSeek-V2"


@pytest.mark.parametrize(
    "change",
    [
        dict(attention="mha"),
        dict(attention="gqa", num_key_value_heads=2),
        dict(scoring_func="softmax"),
        dict(topk_method="group_limited_greedy", balance="none"),
        dict(V2_ROUTER, norm_topk_prob=True),
        dict(V2_ROUTER, rope_interleave=False),
        dict(V2_ROUTER, num_attention_heads=3),  # 128 / 3 is not whole, which transformers' V2 refuses
    ],
)
def test_what_hugging_face_has_no_model_for_is_marked_as_ours(change):
    config = ModelConfig.preset("tiny", **change)
    assert config_to_json(config)["model_type"] == "minids"
    assert through_json(config) == config
    assert hugging_face_type(ModelConfig.preset("tiny", **V2_ROUTER)) == "deepseek_v2"


NEEDED = {name: value for name, value in config_to_json(ModelConfig()).items() if name in (*_NEEDED, "rope_theta")}
NEEDED_BY_V2 = NEEDED | dict(norm_topk_prob=False, topk_method="greedy", n_group=1, topk_group=1, num_experts_per_tok=6)


def complete(fields: dict) -> dict:
    """A file of the kind that ``fields`` names, V3's if none, with all that has to be there."""
    needed = dict(NEEDED_BY_V2 if fields.get("model_type") == "deepseek_v2" else NEEDED)
    if {"num_local_experts", "num_experts"} & fields.keys():
        del needed["n_routed_experts"]
    if "rope_theta" not in fields and "rope_theta" in (fields.get("rope_parameters") or {}):
        del needed["rope_theta"]
    return {"model_type": "deepseek_v3", **needed, **fields}


def v3(**fields) -> ModelConfig:
    return config_from_json(complete(fields))


def v2(**fields) -> ModelConfig:
    return config_from_json(complete({"model_type": "deepseek_v2", **fields}))


def test_the_released_v3_file_is_the_preset():
    released = dict(
        architectures=["DeepseekV3ForCausalLM"], attention_bias=False, attention_dropout=0.0, aux_loss_alpha=0.001,
        auto_map={"AutoConfig": "configuration_deepseek.DeepseekV3Config"}, ep_size=1, first_k_dense_replace=3,
        bos_token_id=0, eos_token_id=1,
        hidden_act="silu", hidden_size=7168, initializer_range=0.02, intermediate_size=18432, kv_lora_rank=512,
        max_position_embeddings=163840, moe_intermediate_size=2048, moe_layer_freq=1, n_group=8, n_routed_experts=256,
        n_shared_experts=1, norm_topk_prob=True, num_attention_heads=128, num_experts_per_tok=8, num_hidden_layers=61,
        num_key_value_heads=128, num_nextn_predict_layers=1, pretraining_tp=1, q_lora_rank=1536, qk_nope_head_dim=128,
        qk_rope_head_dim=64, rms_norm_eps=1e-06, rope_theta=10000, routed_scaling_factor=2.5, scoring_func="sigmoid",
        seq_aux=True,
        rope_scaling={"type": "yarn", **YARN}, tie_word_embeddings=False, topk_group=4, topk_method="noaux_tc",
        quantization_config={"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]},
        torch_dtype="bfloat16", transformers_version="4.33.1", use_cache=True, v_head_dim=128, vocab_size=129280,
    )  # fmt: skip
    assert v3(**released) == ModelConfig.preset("deepseek-v3", aux_loss_alpha=0.001, initializer_range=0.02)
    assert config_from_json({**released, "model_type": "kimi_k2"}) == v3(**released)


def test_fields_that_decide_nothing_have_the_defaults_of_their_kind():
    assert v3() == ModelConfig(initializer_range=0.02)
    small = v2()
    assert (small.first_k_dense_replace, small.topk_method, small.scoring_func, small.norm_topk_prob) == (
        0,
        "greedy",
        "softmax",
        False,
    )
    assert (small.bos_token_id, small.eos_token_id, small.num_nextn_predict_layers, small.balance) == (1, 2, 0, "aux_loss")


@pytest.mark.parametrize("kind", ["deepseek_v3", "kimi_k2", "glm4_moe_lite", "deepseek_v2"])
@pytest.mark.parametrize("name", [*_NEEDED, "rope_theta"])
def test_what_an_abridged_file_leaves_out_is_asked_for(kind, name):
    needed = NEEDED | (dict(norm_topk_prob=False, topk_method="group_limited_greedy") if kind == "deepseek_v2" else {})
    whole = {"model_type": kind, **needed}
    config_from_json(whole)
    del whole[name]
    if kind == "deepseek_v2" and name == "norm_topk_prob":  # which no file of this kind has
        assert config_from_json(whole).norm_topk_prob is False
        return
    with pytest.raises(MinidsError, match=f"^x: {name}: is not in the file"):
        config_from_json(whole, "x")


def test_all_that_is_missing_is_named_at_once_and_other_spellings_are_there():
    with pytest.raises(MinidsError, match=r"^x: n_group, topk_group: is not in the file.*original"):
        config_from_json({k: v for k, v in {"model_type": "deepseek_v3", **NEEDED}.items() if "group" not in k}, "x")
    respelled = {k: v for k, v in NEEDED.items() if k not in ("rope_theta", "n_routed_experts")}
    respelled |= {"rope_parameters": {"rope_theta": 5e4, "rope_type": "default"}, "num_local_experts": 64}
    found = config_from_json({"model_type": "deepseek_v3", **respelled})
    assert (found.rope_theta, found.n_routed_experts) == (5e4, 64)
    greedy = {k: v for k, v in NEEDED_BY_V2.items() if "group" not in k}
    assert config_from_json({"model_type": "deepseek_v2", **greedy}).n_group == 1, "greedy knows no groups"


def test_glm_with_latent_attention():
    layers = ["dense"] * 2 + ["sparse"] * 59
    glm = {"model_type": "glm4_moe_lite", **NEEDED, "n_group": 1, "topk_group": 1}
    assert config_from_json(glm).first_k_dense_replace == 1, "as transformers has it where nothing is said"
    assert config_from_json({**glm, "mlp_layer_types": layers}).first_k_dense_replace == 2
    assert config_from_json({**glm, "eos_token_id": [1, 2, 3]}).eos_token_id == 1
    for wrong in (["sparse", "dense"], "dense", ["dense", "middle"]):
        with pytest.raises(MinidsError, match="mlp_layer_types"):
            config_from_json({**glm, "mlp_layer_types": wrong})


@pytest.mark.parametrize("part", ["text_config", "language_config"])
def test_the_text_model_of_one_that_sees_pictures(part):
    text = {"model_type": "deepseek_v3", **NEEDED, "hidden_size": 64}
    seeing = {"model_type": "kimi_vl", part: text, "vision_config": {"hidden_size": 9}, "eos_token_id": [5, 6]}
    assert config_from_json(seeing) == v3(hidden_size=64, eos_token_id=5)
    with pytest.raises(MinidsError, match="model_type = 'llama'"):
        config_from_json({"model_type": "llava", part: {"model_type": "llama"}})
    with pytest.raises(MinidsError, match="'awq'"):
        fp8_block_size({**seeing, "quantization_config": {"quant_method": "awq"}})


@pytest.mark.parametrize(
    "stored",
    [
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        {"quantization": {"group_size": 64, "bits": 4}},
        {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128]}},
        {"quantization_config": 5},
    ],
)
def test_how_weights_are_stored_is_no_matter_of_the_configuration(stored, tmp_path):
    """So that what a model costs can be told of every folder; its weights are refused when they are asked for."""
    assert v3(**stored) == v3()
    with pytest.raises(MinidsError, match="quantization"):
        fp8_block_size(stored)


def test_other_spellings():
    assert v3(q_lora_rank=None).q_lora_rank is None and v3(q_lora_rank=0).q_lora_rank is None
    assert v3(n_shared_experts=None).n_shared_experts == 0 and v2(n_shared_experts=None).n_shared_experts == 0
    assert v3(num_nextn_predict_layers=None).num_nextn_predict_layers == 0
    assert v3(num_mtp_layers=2).num_nextn_predict_layers == 2 and v3(num_nextn_predict_layers=0).num_nextn_predict_layers == 0
    assert v3(num_local_experts=64).n_routed_experts == 64 and v2(num_experts=32).n_routed_experts == 32
    assert v3(n_group=1, topk_group=1).n_group == 1 and v3(n_group=None, topk_group=None).topk_group == 1
    assert v2(topk_method="greedy", n_group=8, topk_group=3).n_group == 1, "greedy knows no groups, whatever the file says"
    assert v2(topk_method="group_limited_greedy", n_group=8, topk_group=3).topk_group == 3
    assert v3(eos_token_id=[7, 8]).eos_token_id == 7 and v3(eos_token_id=[]).eos_token_id is None
    assert v3(num_hidden_layers=2).first_k_dense_replace == 2, "more dense layers than layers means all of them"
    assert v3(num_attention_heads=4, num_key_value_heads=4) == v3(num_attention_heads=4)


@pytest.mark.parametrize(
    "fields",
    [
        dict(rope_theta=50000, rope_scaling={"type": "yarn", **YARN}),
        dict(rope_theta=50000.0, rope_scaling={"rope_type": "yarn", **YARN}, rope_parameters=None),
        dict(rope_parameters={"rope_type": "yarn", "rope_theta": 50000.0, **YARN}),
        dict(rope_parameters={"rope_type": "yarn", "type": "yarn", **YARN}, rope_theta=50000, rope_scaling=None),
        dict(
            rope_theta=50000, rope_scaling={"type": "yarn", **YARN}, rope_parameters={"rope_type": "default", "rope_theta": 3}
        ),
        dict(rope_theta=50000, rope_scaling={"type": "yarn", **YARN, "factor": None}, max_position_embeddings=163840),
        dict(rope_theta=50000, rope_scaling={"type": "yarn", **YARN, "beta_fast": None, "beta_slow": 0}),
        dict(rope_theta=50000, rope_scaling={"type": "yarn", **YARN, "original_max_position_embeddings": 4096.0}),
    ],
)
def test_every_spelling_of_yarn(fields):
    config = v3(**fields)
    assert config.rope_theta == 50000
    assert config.rope_scaling == Yarn(factor=40.0)


@pytest.mark.parametrize("rope", [None, {}, {"type": "default"}, {"rope_type": "default", "rope_theta": 10000.0}])
def test_no_yarn(rope):
    assert v3(rope_scaling=rope).rope_scaling is None and v3(rope_parameters=rope).rope_theta == 10000


def m(factor: float, weight: float) -> float:
    return 0.1 * weight * math.log(factor) + 1


@pytest.mark.parametrize(
    ("given", "amplitude"),
    [
        (dict(mscale=0.707, mscale_all_dim=0.5), m(40, 0.707) / m(40, 0.5)),
        (dict(), m(40, 1)),
        (dict(mscale=0.5), m(40, 1)),  # transformers looks at mscale only when it has both
        (dict(mscale_all_dim=0.5), m(40, 1)),
        (dict(mscale=0, mscale_all_dim=0.5), m(40, 1)),
        (dict(mscale=1.0, mscale_all_dim=1.0, attention_factor=1.25), 1.25),
        (dict(attention_factor=1.0), 1.0),
    ],
)
def test_cos_and_sin_are_scaled_as_in_transformers(given, amplitude):
    rope = dict(type="yarn", factor=40, original_max_position_embeddings=4096, **given)
    yarn = v3(rope_scaling=rope).rope_scaling
    assert m(40, yarn.mscale) / m(40, yarn.mscale_all_dim) == pytest.approx(amplitude, rel=1e-12)
    assert yarn.mscale_all_dim == given.get("mscale_all_dim", 0), "the softmax scale depends on this alone"


def test_the_original_length_defaults_to_the_longest():
    assert (
        v3(max_position_embeddings=77, rope_scaling={"type": "yarn", "factor": 2}).rope_scaling.original_max_position_embeddings
        == 77
    )


REFUSED = {
    "no type": ({}, "model_type = None"),
    "unknown type": ({"model_type": "llama"}, "model_type = 'llama': minids reads"),
    "a relative": ({"model_type": "deepseek_v32"}, "sparse attention"),
    "type no string": ({"model_type": ["deepseek_v3"]}, "model_type"),
    "activation": ({"hidden_act": "gelu"}, "hidden_act = 'gelu': minids has only 'silu'"),
    "layer frequency": ({"moe_layer_freq": 2}, "moe_layer_freq = 2"),
    "mlp bias": ({"mlp_bias": True}, "mlp_bias"),
    "overrides per layer": ({"per_layer_config": {"0": {}}}, "per_layer_config"),
    "softmax in V3": ({"scoring_func": "softmax"}, "scoring_func = 'softmax'"),
    "greedy in V3": ({"topk_method": "greedy"}, "topk_method = 'greedy'"),
    "bias in V2": ({"model_type": "deepseek_v2", "topk_method": "noaux_tc"}, "topk_method = 'noaux_tc'"),
    "normalised V2": ({"model_type": "deepseek_v2", "norm_topk_prob": True}, "norm_topk_prob = True"),
    "half-split V2": ({"model_type": "deepseek_v2", "rope_interleave": False}, "rope_interleave = False"),
    "rope type": ({"rope_scaling": {"type": "llama3"}}, "'llama3': minids knows 'yarn'"),
    "rope no object": ({"rope_scaling": "yarn"}, "must be an object or null"),
    "rope of a part": ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
    "rope untruncated": ({"rope_scaling": {"type": "yarn", **YARN, "truncate": False}}, "truncate"),
    "yarn factor": ({"rope_scaling": {"type": "yarn", **YARN, "factor": 0.5}}, "rope_scaling.factor"),
    "yarn text": ({"rope_scaling": {"type": "yarn", **YARN, "mscale": "1"}}, "rope_scaling.mscale"),
    "yarn length": ({"rope_scaling": {"type": "yarn", **YARN, "original_max_position_embeddings": 0.5}}, "whole number"),
    "yarn amplitude": ({"rope_scaling": {"type": "yarn", **YARN, "attention_factor": 0.1}}, "attention_factor"),
    "text for a size": ({"hidden_size": "7168"}, "hidden_size = '7168'"),
    "fraction for a size": ({"hidden_size": 7168.5}, "hidden_size"),
    "null for a size": ({"hidden_size": None}, "hidden_size = None"),
    "list for a size": ({"hidden_size": [1]}, "hidden_size = [1]: must be a whole number"),
    "truth for a size": ({"hidden_size": True}, "hidden_size = True"),
    "negative size": ({"hidden_size": -1}, "hidden_size = -1"),
    "endless layers": ({"num_hidden_layers": 10**6}, "num_hidden_layers = 1000000: must be at most 10,000"),
    "endless text": ({"scoring_func": "x" * 100_000}, "xx…: model_type"),
    "number for truth": ({"attention_bias": 1}, "attention_bias"),
    "infinite": ({"rms_norm_eps": math.inf}, "must be a finite number"),
    "beyond float": ({"rms_norm_eps": 10**400}, "must be a finite number"),
    "text for a number": ({"rope_theta": "10000"}, "rope_theta"),
    "key-value heads": ({"num_key_value_heads": 8}, "num_key_value_heads = 8"),
    "token out of range": ({"vocab_size": 5, "eos_token_id": 5}, "eos_token_id"),
    "attention without a latent": ({"use_mla": False}, "use_mla = False"),
    "no such field of ours": ({"minids": {"__class__": 1}}, "no such field"),
    "wrong field of ours": ({"minids": {"balance": "luck"}}, "balance = 'luck'"),
    "ours no object": ({"minids": [1]}, "must be an object"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_minids_is_not_is_refused_by_name(case):
    fields, words = REFUSED[case]
    fields = fields if case == "no type" else complete(fields)
    with pytest.raises(MinidsError) as caught:
        config_from_json(fields, "folder/config.json")
    message = str(caught.value)
    assert message.startswith("folder/config.json: ") and words in message, message
    assert "\n" not in message and len(message) < 500, message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"rms_norm_eps": NaN}', "NaN"),
        (json.dumps(complete({})).replace("1e-06", "1e999"), "finite"),
        ('{"hidden_size": 1, "hidden_size": 2}', "given twice"),
        (" " * (1 << 20) + "{}", "cannot be right"),
        ("[]", "must be a JSON object, not a list"),
        ("", "not valid JSON"),
    ],
)
def test_a_hostile_file_is_refused(tmp_path, text, words):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(MinidsError, match=words):
        read_config(tmp_path)


def test_folders_without_a_configuration(tmp_path):
    with pytest.raises(MinidsError, match=r"no config\.json"):
        read_config(tmp_path)
    with pytest.raises(MinidsError, match="not a folder"):
        read_config(tmp_path / "absent")


def test_block_size():
    assert fp8_block_size({}) == (128, 128) == fp8_block_size({"quantization_config": {"quant_method": "fp8"}})
    assert fp8_block_size({"quantization_config": {"quant_method": "fp8", "weight_block_size": [16, 8]}}) == (16, 8)
