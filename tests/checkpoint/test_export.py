"""What torchtitan and Megatron-Core are given is what their own adapters make of the Hugging Face folder of the same model.

The tables are those of ``torchtitan/models/deepseek_v3/state_dict_adapter.py`` and of Megatron-Bridge's
``models/deepseek/common.py``, as of August 2026, restated: name in the folder → name there.
"""

import json
import re

import numpy as np
import pytest
from support import SHORT_YARN, TINY, V2_ROUTER, build

from minids import MinidsError, save
from minids.checkpoint.export import TARGETS, TITAN_WARNING, check, export, megatron_settings, titan_settings
from minids.checkpoint.folder import CheckpointFolder
from minids.checkpoint.tensor_file import TensorFile
from minids.checkpoint.tokenizer import byte_tokenizer
from minids.cli import main
from minids.config import ModelConfig, Yarn

TITAN = {
    "model.embed_tokens.weight": "tok_embeddings.weight",
    "model.layers.{}.self_attn.q_a_proj.weight": "layers.{}.attention.wq_a.weight",
    "model.layers.{}.self_attn.q_a_layernorm.weight": "layers.{}.attention.q_norm.weight",
    "model.layers.{}.self_attn.q_b_proj.weight": "layers.{}.attention.wq_b.weight",
    "model.layers.{}.self_attn.q_proj.weight": "layers.{}.attention.wq.weight",
    "model.layers.{}.self_attn.kv_a_proj_with_mqa.weight": "layers.{}.attention.wkv_a.weight",
    "model.layers.{}.self_attn.kv_a_layernorm.weight": "layers.{}.attention.kv_norm.weight",
    "model.layers.{}.self_attn.kv_b_proj.weight": "layers.{}.attention.wkv_b.weight",
    "model.layers.{}.self_attn.o_proj.weight": "layers.{}.attention.wo.weight",
    "model.layers.{}.mlp.gate_proj.weight": "layers.{}.feed_forward.w1.weight",
    "model.layers.{}.mlp.up_proj.weight": "layers.{}.feed_forward.w3.weight",
    "model.layers.{}.mlp.down_proj.weight": "layers.{}.feed_forward.w2.weight",
    "model.layers.{}.input_layernorm.weight": "layers.{}.attention_norm.weight",
    "model.layers.{}.post_attention_layernorm.weight": "layers.{}.ffn_norm.weight",
    "model.layers.{}.mlp.experts.{}.gate_proj.weight": "layers.{}.moe.routed_experts.inner_experts.w1_EFD",
    "model.layers.{}.mlp.experts.{}.up_proj.weight": "layers.{}.moe.routed_experts.inner_experts.w3_EFD",
    "model.layers.{}.mlp.experts.{}.down_proj.weight": "layers.{}.moe.routed_experts.inner_experts.w2_EDF",
    "model.layers.{}.mlp.gate.weight": "layers.{}.moe.router.gate.weight",
    "model.layers.{}.mlp.shared_experts.gate_proj.weight": "layers.{}.moe.shared_experts.w1.weight",
    "model.layers.{}.mlp.shared_experts.up_proj.weight": "layers.{}.moe.shared_experts.w3.weight",
    "model.layers.{}.mlp.shared_experts.down_proj.weight": "layers.{}.moe.shared_experts.w2.weight",
    "model.layers.{}.mlp.gate.e_score_correction_bias": "layers.{}.moe.expert_bias_E",
    "model.layers.{}.enorm.weight": "layers.{}.enorm.weight",
    "model.layers.{}.hnorm.weight": "layers.{}.hnorm.weight",
    "model.layers.{}.eh_proj.weight": "layers.{}.eh_proj.weight",
    "model.layers.{}.shared_head.norm.weight": "layers.{}.mtp_norm.weight",
    "model.norm.weight": "norm.weight",
    "lm_head.weight": "lm_head.weight",
}
"""A layer from the number of main layers on is ``mtp_layers.{layer − number}``; experts of a layer are stacked."""

MEGATRON = {
    "embedding.word_embeddings.weight": "model.embed_tokens.weight",
    "decoder.final_layernorm.weight": "model.norm.weight",
    "output_layer.weight": "lm_head.weight",
    "decoder.layers.*.input_layernorm.weight": "model.layers.*.input_layernorm.weight",
    "decoder.layers.*.self_attention.linear_proj.weight": "model.layers.*.self_attn.o_proj.weight",
    "decoder.layers.*.pre_mlp_layernorm.weight": "model.layers.*.post_attention_layernorm.weight",
    "decoder.layers.*.mlp.linear_fc1.layer_norm_weight": "model.layers.*.post_attention_layernorm.weight",
    "decoder.layers.*.self_attention.linear_kv_down_proj.weight": "model.layers.*.self_attn.kv_a_proj_with_mqa.weight",
    "decoder.layers.*.self_attention.linear_kv_up_proj.weight": "model.layers.*.self_attn.kv_b_proj.weight",
    "decoder.layers.*.self_attention.linear_kv_up_proj.layer_norm_weight": "model.layers.*.self_attn.kv_a_layernorm.weight",
    "decoder.layers.*.mlp.linear_fc2.weight": "model.layers.*.mlp.down_proj.weight",
    "decoder.layers.*.mlp.router.weight": "model.layers.*.mlp.gate.weight",
    "decoder.layers.*.mlp.router.expert_bias": "model.layers.*.mlp.gate.e_score_correction_bias",
    "decoder.layers.*.mlp.experts.linear_fc2.weight*": "model.layers.*.mlp.experts.*.down_proj.weight",
    "decoder.layers.*.mlp.shared_experts.linear_fc2.weight": "model.layers.*.mlp.shared_experts.down_proj.weight",
    "decoder.layers.*.self_attention.linear_q_down_proj.weight": "model.layers.*.self_attn.q_a_proj.weight",
    "decoder.layers.*.self_attention.linear_q_up_proj.weight": "model.layers.*.self_attn.q_b_proj.weight",
    "decoder.layers.*.self_attention.linear_q_up_proj.layer_norm_weight": "model.layers.*.self_attn.q_a_layernorm.weight",
}
GATED = {
    "decoder.layers.*.mlp.linear_fc1.weight": "model.layers.*.mlp.{}_proj.weight",
    "decoder.layers.*.mlp.experts.linear_fc1.weight*": "model.layers.*.mlp.experts.*.{}_proj.weight",
    "decoder.layers.*.mlp.shared_experts.linear_fc1.weight": "model.layers.*.mlp.shared_experts.{}_proj.weight",
}
"""Gate rows, then up rows. MTP module k: "decoder.layers.*" is "mtp.layers.k.mtp_model_layer", and four more."""
MEGATRON_MTP = {"enorm": "enorm", "hnorm": "hnorm", "eh_proj": "eh_proj", "final_layernorm": "shared_head.norm"}

CONFIGS = {
    "V3": TINY,
    "one module, YaRN": TINY.replace(num_nextn_predict_layers=1, rope_scaling=Yarn(4.0, 16)),
    "no module, all layers with experts": TINY.replace(num_nextn_predict_layers=0, first_k_dense_replace=0),
}


@pytest.fixture(params=CONFIGS)
def written(request, tmp_path):
    """A model, its Hugging Face folder's tensors but for the repeated matrices, and a place to write to."""
    config = CONFIGS[request.param].replace(num_experts_per_tok=4)
    model = build(config, dtype=np.float32)
    model.tokenizer = byte_tokenizer()
    save(model, tmp_path / "folder")
    folder = CheckpointFolder(tmp_path / "folder")
    repeated = ("embed_tokens.weight", "shared_head.head.weight")
    names = [n for n in folder.names() if not (n.startswith("model.layers.") and n.endswith(repeated))]
    return model, {name: folder.tensor(name) for name in names}, tmp_path / "out"


def tensors_of(out):
    file = TensorFile(out / "model.safetensors")
    return {name: file.read(name) for name in file.names()}


def assert_same(got, want):
    assert set(got) == set(want), f"missing {sorted(set(want) - set(got))[:3]}, surplus {sorted(set(got) - set(want))[:3]}"
    for name in want:
        assert np.array_equal(got[name], want[name]), f"{name} holds other numbers"


def by_their_adapter(config, tensors):
    """torchtitan's from_hf: names by the table, experts stacked, MTP modules counted from 0."""
    found, stacks = {}, {}
    for name, tensor in tensors.items():
        numbers = re.findall(r"(?<=\.)\d+(?=\.)", name)
        theirs = TITAN[re.sub(r"(?<=\.)\d+(?=\.)", "{}", name)]
        if numbers and int(numbers[0]) >= config.num_hidden_layers:
            theirs = "mtp_" + theirs
            numbers[0] = str(int(numbers[0]) - config.num_hidden_layers)
        if len(numbers) == 2:
            stacks.setdefault(theirs.format(numbers[0]), {})[int(numbers[1])] = tensor
        else:
            found[theirs.format(*numbers)] = tensor
    return found | {name: np.stack([each[e] for e in range(len(each))]) for name, each in stacks.items()}


def test_torchtitan_is_given_what_its_adapter_makes(written):
    model, tensors, out = written
    warning = export(model, out, "torchtitan")
    assert warning == (TITAN_WARNING if model.config.num_nextn_predict_layers else "")
    assert_same(tensors_of(out), by_their_adapter(model.config, tensors))
    assert json.loads((out / "torchtitan.json").read_text()) == titan_settings(model.config)


def by_their_bridge(config, tensors):
    """Megatron-Bridge's registry: each pattern with every layer and expert that the folder has."""
    layers, found = config.num_hidden_layers, {}

    def put(pattern, sources, make):
        """``sources``: patterns in the folder, whose stars are the layer and, where there are two, the expert."""
        for layer in range(layers + config.num_nextn_predict_layers) if "layers" in sources[0] else [0]:
            for expert in range(config.n_routed_experts) if sources[0].count("*") == 2 else [0]:
                names = [s.replace("*", str(layer), 1).replace("*", str(expert), 1) for s in sources]
                if all(name in tensors for name in names):
                    owner = pattern
                    if layer >= layers:
                        owner = owner.replace("decoder.layers.*", "mtp.layers.*.mtp_model_layer")
                    at = layer - layers if layer >= layers else layer
                    found[owner.replace("*", str(at), 1).replace("*", str(expert), 1)] = make([tensors[n] for n in names])

    for theirs, ours in MEGATRON.items():
        put(theirs, [ours], lambda one: one[0])
    for theirs, ours in GATED.items():
        put(theirs, [ours.format("gate"), ours.format("up")], np.concatenate)
    for module in range(config.num_nextn_predict_layers):
        for theirs, ours in MEGATRON_MTP.items():
            found[f"mtp.layers.{module}.{theirs}.weight"] = tensors[f"model.layers.{layers + module}.{ours}.weight"]
    # A layer has one of the two names of its second norm: a dense one the fused name, one with experts the other.
    for layer in range(layers + config.num_nextn_predict_layers):
        owner = f"decoder.layers.{layer}" if layer < layers else f"mtp.layers.{layer - layers}.mtp_model_layer"
        wrong = "mlp.linear_fc1.layer_norm_weight" if config.is_moe(layer) else "pre_mlp_layernorm.weight"
        del found[f"{owner}.{wrong}"]
    return found


def test_megatron_is_given_what_its_bridge_makes(written):
    model, tensors, out = written
    assert export(model, out, "megatron") == "" and (out / "tokenizer.json").exists()
    assert_same(tensors_of(out), by_their_bridge(model.config, tensors))
    assert json.loads((out / "megatron.json").read_text()) == megatron_settings(model.config)


def test_settings_are_those_of_the_model():
    v3 = ModelConfig.preset("deepseek-v3")
    for target in TARGETS:
        check(v3, target)
    titan, megatron = titan_settings(v3), megatron_settings(v3)
    assert (titan["n_layers"], titan["n_dense_layers"], titan["num_mtp_layers"]) == (61, 3, 1)
    assert titan["router_num_expert_groups"] == 8 and titan["router_num_limited_groups"] == 4
    assert titan["rope"] == dict(
        dim=64, max_context_length=163840, theta=10000.0, scaling="yarn", rope_factor=40.0, beta_fast=32.0, beta_slow=1.0,
        original_seq_len=4096,
    )  # fmt: skip
    assert megatron["moe_layer_freq"] == [0] * 3 + [1] * 58 and megatron["moe_shared_expert_intermediate_size"] == 2048
    assert (megatron["rotary_scaling_factor"], megatron["mscale_all_dim"]) == (40.0, 1.0)
    plain = megatron_settings(ModelConfig.preset("tiny"))
    assert (plain["rotary_scaling_factor"], plain["mscale_all_dim"]) == (1.0, 1.0), "else Megatron's own 40 and 0 hold"
    assert plain["moe_router_load_balancing_type"] == "seq_aux_loss" and plain["mtp_num_layers"] == 1
    assert titan_settings(TINY.replace(q_lora_rank=None, n_group=1, topk_group=1))["q_lora_rank"] == 0


@pytest.mark.parametrize(
    ("to", "changes", "field"),
    [
        *[(to, change, field) for to in TARGETS for change, field in (
            (dict(attention="mha"), "attention = 'mha'"),
            (dict(attention_bias=True), "attention_bias = True"),
            (dict(rope_interleave=False), "rope_interleave = False"),
            (dict(mtp_own_matrices=True), "mtp_own_matrices = True"),
            (dict(mtp_state="unnormed"), "mtp_state = 'unnormed'"),
            (dict(n_shared_experts=0), "n_shared_experts = 0"),
        )],
        ("torchtitan", dict(tie_word_embeddings=True), "tie_word_embeddings = True"),
        ("torchtitan", V2_ROUTER, "topk_method = 'group_limited_greedy'"),
        ("torchtitan", dict(rope_scaling=SHORT_YARN), "rope_scaling.mscale = 1.2"),
        ("megatron", dict(q_lora_rank=None), "q_lora_rank = None"),
        ("megatron", V2_ROUTER, "topk_method = 'group_limited_greedy'"),
        ("megatron", dict(scoring_func="softmax"), "scoring_func = 'softmax'"),
        ("megatron", dict(norm_topk_prob=False), "norm_topk_prob = False"),
        ("megatron", dict(num_experts_per_tok=1), "num_experts_per_tok = 1"),
        ("megatron", dict(num_experts_per_tok=3), "topk_group = 2"),
        ("megatron", dict(rms_norm_eps=1e-5), "rms_norm_eps = 1e-05"),
    ],
)  # fmt: skip
def test_what_another_program_would_compute_otherwise_is_refused(to, changes, field, tmp_path):
    config = TINY.replace(**{"num_experts_per_tok": 4} | changes)
    with pytest.raises(MinidsError) as refused:
        export(build(config, dtype=np.float32), tmp_path / "out", to)
    assert str(refused.value).startswith(f"{field}: cannot be expressed in {to}: ") and "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists(), "something was written"


def test_a_folder_that_holds_another_checkpoint_is_left_alone(tmp_path):
    model = build(TINY.replace(num_experts_per_tok=4), dtype=np.float32)
    save(model, tmp_path)
    with pytest.raises(MinidsError, match="holds a checkpoint or a run"):
        export(model, tmp_path, "megatron")
    with pytest.raises(MinidsError, match="to = 'nanotron': must be one of torchtitan, megatron"):
        export(model, tmp_path / "new", "nanotron")


def test_a_second_export_replaces_the_first(tmp_path):
    model = build(TINY.replace(num_experts_per_tok=4), dtype=np.float32)
    export(model, tmp_path, "megatron")
    export(model, tmp_path, "torchtitan")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "torchtitan.json"]


def test_the_command(tmp_path, capsys):
    model = build(TINY.replace(num_experts_per_tok=4), dtype=np.float32)
    save(model, tmp_path / "model")
    assert main(["export", "--checkpoint", str(tmp_path / "model"), "--to", "torchtitan", "--out", str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    assert "torchtitan.json with its settings" in out and "before the final norm" in err
    given = [
        "export",
        "--checkpoint",
        str(tmp_path / "model"),
        "--to",
        "torchtitan",
        "--out",
        str(tmp_path / "bare"),
        "--no-mtp",
    ]
    assert main(given) == 0 and not capsys.readouterr().err
    assert not [name for name in tensors_of(tmp_path / "bare") if name.startswith("mtp")]
    assert main(["export", "--checkpoint", str(tmp_path / "model"), "--out", "x"]) == 2
    assert "--to is missing: torchtitan, megatron" in capsys.readouterr().err
