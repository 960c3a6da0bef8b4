"""Parameter counts against published totals, against each other, and against the model that is really built."""

from math import prod

import pytest

from minids import DeepSeekV3, ModelConfig
from minids.config.presets import PRESETS
from minids.lab.analysis import parameters

TOTALS = {
    "deepseek-v3": 671_026_419_200,
    "deepseek-v2": 235_741_434_880,
    "deepseek-v2-lite": 15_706_484_224,
    "moonlight-16b-a3b": 15_960_110_208,
    "kimi-k2": 1_026_408_232_448,
}

ACTIVATED = {  # billions: both embeddings, head only, neither
    "deepseek-v3": (37.552, 36.626, 35.699),
    "deepseek-v2": (21.376, 20.852, 20.327),
    "deepseek-v2-lite": (2.661, 2.451, 2.242),
    "moonlight-16b-a3b": (2.915, 2.579, 2.244),
    "kimi-k2": (32.862, 31.687, 30.513),
}

TINY = ModelConfig.preset("tiny")
VARIANTS = {
    "mla": TINY,
    "mla without query latent, with biases": TINY.replace(q_lora_rank=None, attention_bias=True),
    "mla with biases": TINY.replace(attention_bias=True),
    "mha": TINY.replace(attention="mha"),
    "gqa": TINY.replace(attention="gqa", num_key_value_heads=2, attention_bias=True),
    "mqa": TINY.replace(attention="mqa"),
    "tied": TINY.replace(tie_word_embeddings=True),
    "unequal heads, two MTP modules": TINY.replace(v_head_dim=24, num_nextn_predict_layers=2),
    "dense only": TINY.replace(first_k_dense_replace=5),
    "no shared expert, no bias": TINY.replace(
        n_shared_experts=0, topk_method="group_limited_greedy", balance="aux_loss", num_nextn_predict_layers=0
    ),
}


@pytest.mark.parametrize("name", TOTALS)
def test_totals_are_exact(name):
    assert parameters.total(ModelConfig.preset(name)) == TOTALS[name]


@pytest.mark.parametrize("name", ACTIVATED)
def test_activated_in_three_conventions(name):
    counts = [parameters.activated(ModelConfig.preset(name), count) for count in ("both", "head", "neither")]
    assert [round(n / 1e9, 3) for n in counts] == list(ACTIVATED[name])


def test_v3_piece_by_piece():
    """The pieces of one MLA layer, one expert and the MTP module, as computed by hand from V3's sizes."""
    c = ModelConfig.preset("deepseek-v3")
    attention = {t.part: t.size for t in parameters.attention_tensors(c)}
    assert attention == {
        "q_a_proj": 11_010_048,
        "q_a_layernorm": 1_536,
        "q_b_proj": 37_748_736,
        "kv_a_proj_with_mqa": 4_128_768,
        "kv_a_layernorm": 512,
        "kv_b_proj": 16_777_216,
        "o_proj": 117_440_512,
    }
    assert sum(attention.values()) == 187_107_328
    assert sum(t.size for t in parameters.block_tensors(c, moe=False)) == 583_483_392
    assert sum(t.size for t in parameters.block_tensors(c, moe=True)) == 11_507_286_272
    assert sum(t.size for t in parameters.block_tensors(c, moe=True) if t.name.startswith("mlp.experts.7.")) == 44_040_192
    assert parameters.mtp_total(c) == 11_610_068_224
    assert parameters.mtp_activated(c) == 688_100_608
    by_name = {part.name: part for part in parameters.parts(c)}
    assert by_name["embedding"].total == by_name["head"].total == 926_679_040
    assert by_name["routing bias"].total == 58 * 256
    assert by_name["MTP block"].activated == 585_318_656


@pytest.mark.parametrize("name", ["deepseek-v3", "deepseek-v2-lite", "tiny"])
def test_every_part_is_what_its_formula_says(name):
    """The formulas of ``minids info``, worked out here: the counts themselves come from the layers."""
    c = ModelConfig.preset(name)
    V, d, L, H, D = c.vocab_size, c.hidden_size, c.num_hidden_layers, c.num_attention_heads, c.num_nextn_predict_layers
    moe, expert = L - c.first_k_dense_replace, 3 * d * c.moe_intermediate_size
    attention = {
        "kv_a_proj_with_mqa": d * (c.kv_lora_rank + c.qk_rope_head_dim),
        "kv_a_layernorm": c.kv_lora_rank,
        "kv_b_proj": c.kv_lora_rank * H * (c.qk_nope_head_dim + c.v_head_dim),
        "o_proj": H * c.v_head_dim * d,
    }
    if c.q_lora_rank is None:
        attention["q_proj"] = d * H * c.qk_head_dim
    else:
        attention["q_a_proj"], attention["q_a_layernorm"] = d * c.q_lora_rank, c.q_lora_rank
        attention["q_b_proj"] = c.q_lora_rank * H * c.qk_head_dim
    sparse = {"router": c.n_routed_experts * d, "shared experts": c.n_shared_experts * expert}
    sparse["routed experts"] = c.n_routed_experts * expert
    if c.topk_method == "noaux_tc":
        sparse["routing bias"] = c.n_routed_experts
    expected = {part: L * size for part, size in attention.items()} | {part: moe * size for part, size in sparse.items()}
    expected |= {"embedding": V * d, "head": V * d, "final norm": d, "block norms": L * 2 * d}
    expected["dense FFN"] = (L - moe) * 3 * d * c.intermediate_size
    if D:
        expected["MTP block"] = D * (2 * d + sum(attention.values()) + sum(sparse.values()))
        expected |= {"MTP eh_proj": D * 2 * d * d, "MTP norms": D * 3 * d}
    assert {part.name: part.total for part in parameters.parts(c)} == expected
    idle = (c.n_routed_experts - c.num_experts_per_tok) * expert
    rests = {part.name: part.total - part.activated for part in parameters.parts(c) if part.activated != part.total}
    assert rests == {"routed experts": moe * idle} | ({"MTP block": D * idle} if D else {})


@pytest.mark.parametrize("name", PRESETS)
def test_tensor_list_adds_up_to_the_parts(name):
    c = ModelConfig.preset(name)
    listed = sum(prod(shape) for _, shape in parameters.parameter_shapes(c))
    assert listed == parameters.total(c) + parameters.mtp_total(c) == sum(p.total for p in parameters.parts(c))


def test_names_and_shapes_of_the_released_checkpoint():
    shapes = dict(parameters.parameter_shapes(ModelConfig.preset("deepseek-v3"), copies=True))
    assert shapes["model.layers.0.self_attn.q_b_proj.weight"] == (24576, 1536)
    assert shapes["model.layers.0.self_attn.kv_a_proj_with_mqa.weight"] == (576, 7168)
    assert shapes["model.layers.60.mlp.experts.255.down_proj.weight"] == (7168, 2048)
    assert shapes["model.layers.60.mlp.gate.e_score_correction_bias"] == (256,)
    assert shapes["model.layers.61.eh_proj.weight"] == (7168, 14336)
    assert shapes["model.layers.61.shared_head.head.weight"] == shapes["lm_head.weight"] == (129280, 7168)
    assert "model.layers.2.mlp.gate.weight" not in shapes and "model.layers.3.mlp.gate.weight" in shapes
    biases = sum(name.endswith("e_score_correction_bias") for name in shapes)
    assert biases == 59, "58 MoE layers and the MTP module have a routing bias each"


def _stacked(config) -> dict:
    """The tensor list with the experts of a layer stacked, as the model holds them."""
    shapes = {}
    for name, shape in parameters.parameter_shapes(config):
        head, expert, tail = name.partition(".experts.")
        if expert:
            name, shape = f"{head}.experts.{tail.partition('.')[2]}", (config.n_routed_experts, *shape)
        shapes[name] = shape
    return shapes


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_model_has_exactly_these_parameters(variant):
    config = VARIANTS[variant]
    model = DeepSeekV3(config)
    built = {p.name: p.shape for p in model.parameters}
    built |= {name: array.shape for name, array in model.parameters.buffers.items()}
    assert built == _stacked(config)


@pytest.mark.parametrize("variant", VARIANTS)
def test_parts_of_every_variant_add_up(variant):
    config = VARIANTS[variant]
    listed = sum(prod(shape) for _, shape in parameters.parameter_shapes(config))
    assert listed == parameters.total(config) + parameters.mtp_total(config)
    assert parameters.activated(config, "both") <= parameters.total(config)


def test_a_tied_matrix_counts_once():
    tied, untied = TINY.replace(tie_word_embeddings=True), TINY
    vd = TINY.vocab_size * TINY.hidden_size
    assert parameters.total(untied) - parameters.total(tied) == vd
    assert parameters.activated(tied, "both") == parameters.activated(tied, "head") == parameters.activated(untied, "head")
    assert parameters.activated(tied, "neither") == parameters.activated(untied, "neither")
