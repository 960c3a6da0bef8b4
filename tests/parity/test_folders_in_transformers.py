"""Checkpoint folders travel both ways: what is written here opens in transformers with nothing missing, and the reverse."""

import json

import numpy as np
import pytest
import torch
import transformers
from small_models import CONFIGS

import minids
from minids.checkpoint.config_json import _NEEDED, config_from_json, config_to_json, hugging_face_type, read_config
from minids.checkpoint.folder import CheckpointFolder, write_folder
from minids.checkpoint.names import assemble, check_names, memory_shapes, shards, with_own_matrices
from minids.config import ModelConfig, Yarn

pytestmark = pytest.mark.parity

EXTRA = {
    "no_shared_experts": CONFIGS["base"].replace(n_shared_experts=0),
    "yarn_without_softmax_scale": CONFIGS["base"].replace(rope_scaling=Yarn(8.0, 32, mscale=0.7, mscale_all_dim=0.0)),
    "yarn_without_mscale": CONFIGS["base"].replace(rope_scaling=Yarn(8.0, 32, mscale=0.0, mscale_all_dim=0.0)),
}
ALL = {name: config for name, config in {**CONFIGS, **EXTRA}.items() if hugging_face_type(config) != "minids"}


def random_parameters(config: ModelConfig) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in memory_shapes(config).items()}


def opened(path):
    return transformers.AutoModelForCausalLM.from_pretrained(path, output_loading_info=True, dtype=torch.float32)


def in_memory_of_transformers(config: ModelConfig, parameters: dict) -> dict[str, np.ndarray]:
    """Our parameters under transformers' names in memory: gate and up of all experts in one tensor, no MTP module."""
    renamed = {}
    for name, array in parameters.items():
        if name.startswith("model.layers.") and int(name.split(".")[2]) >= config.num_hidden_layers:
            continue
        if ".mlp.experts." in name:
            stem, projection = name.removesuffix(".weight").rsplit(".", 1)
            if projection == "gate_proj":
                renamed[f"{stem}.gate_up_proj"] = np.concatenate([array, parameters[f"{stem}.up_proj.weight"]], axis=1)
            elif projection == "down_proj":
                renamed[f"{stem}.down_proj"] = array
        else:
            renamed[name] = array
    return renamed


@pytest.mark.parametrize("name", ALL)
def test_transformers_opens_what_is_written(tmp_path, name):
    config = ALL[name]
    parameters = random_parameters(config)
    write_folder(tmp_path, config_to_json(config), shards(config, parameters))
    model, info = opened(tmp_path)
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not info[what], f"{what}: {info[what]}"
    theirs = model.state_dict()
    for key, array in in_memory_of_transformers(config, parameters).items():
        np.testing.assert_array_equal(theirs.pop(key).numpy(), array, key)
    assert all(tensor.numel() == 0 or key == "lm_head.weight" for key, tensor in theirs.items()), list(theirs)


@pytest.mark.parametrize("name", ALL)
def test_the_written_configuration_means_the_same_there(tmp_path, name):
    config = ALL[name]
    (tmp_path / "config.json").write_text(json.dumps(config_to_json(config)))
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    for field in config.__dataclass_fields__:
        if hasattr(theirs, field) and field not in ("num_key_value_heads", "rope_scaling", "rope_theta"):
            assert getattr(theirs, field) == getattr(config, field), field
    assert theirs.num_key_value_heads == config.num_attention_heads
    assert theirs.rope_parameters["rope_theta"] == config.rope_theta
    check_rope(config, theirs)


def check_rope(config: ModelConfig, theirs):
    """Amplitude of cos and sin, and the softmax scale, from the formulas of the paper against transformers' modules."""
    model = transformers.AutoModelForCausalLM.from_config(theirs)
    amplitude, scale = 1.0, config.qk_head_dim**-0.5
    if config.rope_scaling is not None:
        s = config.rope_scaling
        m = [1 + 0.1 * a * np.log(s.factor) for a in (s.mscale, s.mscale_all_dim)]
        amplitude, scale = m[0] / m[1], scale * m[1] ** 2
    assert model.model.rotary_emb.attention_scaling == pytest.approx(amplitude, rel=1e-12)
    assert model.model.layers[0].self_attn.scaling == pytest.approx(scale, rel=1e-12)


@pytest.mark.parametrize(
    "rope",
    [
        dict(),
        dict(mscale=1.0, mscale_all_dim=1.0),
        dict(mscale=0.707, mscale_all_dim=0.5),
        dict(mscale=0.707),
        dict(mscale_all_dim=0.707),
        dict(mscale=0.0, mscale_all_dim=0.5),
        dict(mscale=1.0, mscale_all_dim=1.0, attention_factor=1.5),
        dict(attention_factor=1.0),
        dict(beta_fast=0, beta_slow=None),
        dict(factor=None),
    ],
)
@pytest.mark.parametrize("spelling", ["rope_scaling", "rope_parameters"])
def test_yarn_is_read_as_transformers_reads_it(tmp_path, rope, spelling):
    fields = config_to_json(CONFIGS["base"]) | {"max_position_embeddings": 256, "rope_parameters": None, "rope_scaling": None}
    fields[spelling] = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, **rope}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    check_rope(read_config(tmp_path), transformers.AutoConfig.from_pretrained(tmp_path))


@pytest.mark.parametrize("kind", ["deepseek_v3", "deepseek_v2", "glm4_moe_lite"])
def test_missing_fields_have_transformers_defaults(kind):
    """Those that may be missing: what decides what is computed is asked for."""
    given = {name: value for name, value in config_to_json(CONFIGS["base"]).items() if name in (*_NEEDED, "rope_theta")}
    given |= {"n_group": 1, "topk_group": 1, "norm_topk_prob": kind != "deepseek_v2"}
    ours = config_from_json({"model_type": kind, **given})
    theirs = transformers.CONFIG_MAPPING[kind](**given)
    for field in ours.__dataclass_fields__:
        if field in ("num_key_value_heads", "rope_scaling", "rope_theta") or not hasattr(theirs, field):
            continue
        expected = getattr(theirs, field)
        assert getattr(ours, field) == expected, field
    assert theirs.rope_parameters == {"rope_theta": ours.rope_theta, "rope_type": "default"} and ours.rope_scaling is None


@pytest.mark.parametrize(("interleave", "latent", "dense"), [(True, 20, 1), (False, None, 2)])
def test_glm_with_latent_attention_computes_what_it_computes_there(tmp_path, interleave, latent, dense):
    """GLM-4.7-Flash's class at small sizes: what it writes opens here, and gives its logits."""
    torch.manual_seed(0)
    sizes = dict(vocab_size=61, hidden_size=40, intermediate_size=56, moe_intermediate_size=24, num_hidden_layers=3)
    sizes |= dict(num_attention_heads=4, num_key_value_heads=4, kv_lora_rank=16, q_lora_rank=latent, qk_rope_head_dim=8)
    sizes |= dict(qk_nope_head_dim=12, v_head_dim=10, n_routed_experts=8, num_experts_per_tok=3, routed_scaling_factor=1.8)
    config = transformers.Glm4MoeLiteConfig(
        **sizes,
        rope_interleave=interleave,
        max_position_embeddings=128,
        mlp_layer_types=["dense"] * dense + ["sparse"] * (3 - dense),
    )
    config._experts_implementation = config._attn_implementation = "eager"  # its fast kernels have no float64
    theirs = transformers.Glm4MoeLiteForCausalLM(config).double().eval()
    for name, tensor in [*theirs.named_parameters(), *theirs.named_buffers()]:
        if "norm" in name or "e_score_correction_bias" in name or "experts" in name or name.endswith("gate.weight"):
            tensor.data.copy_(torch.randn(tensor.shape) * 0.3 + ("norm" in name))
    theirs.save_pretrained(tmp_path)
    model = minids.load(tmp_path, dtype=np.float64)
    assert model.config.first_k_dense_replace == dense and model.config.rms_norm_eps == 1e-5
    tokens = np.random.default_rng(0).integers(0, 61, (2, 30))
    with torch.no_grad():
        want = theirs(torch.tensor(tokens)).logits.numpy()
    np.testing.assert_allclose(model.logits(tokens), want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["base", "tied_embeddings", "attention_bias_no_query_latent", "no_shared_experts"])
def test_what_transformers_writes_is_read(tmp_path, name, dtype, fused):
    config = ALL[name]
    (tmp_path / "config.json").write_text(json.dumps(config_to_json(config)))
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(tmp_path), dtype=dtype)
    for key, buffer in model.named_buffers():
        if key.endswith("e_score_correction_bias"):
            buffer.copy_(torch.linspace(-1, 1, len(buffer)))
    # a few kB per shard: several shards and an index
    model.save_pretrained(tmp_path, save_original_format=not fused, max_shard_size="100KB")
    folder = CheckpointFolder(tmp_path)
    found, note = check_names(read_config(tmp_path), folder)
    assert found.num_nextn_predict_layers == 0 and bool(note) == bool(config.num_nextn_predict_layers)
    assert with_own_matrices(found, folder) == found
    theirs = {key: tensor.float().numpy() for key, tensor in model.state_dict().items()}
    ours = {key: assemble(folder, key) for key in memory_shapes(found)}
    for key, array in in_memory_of_transformers(found, ours).items():
        np.testing.assert_array_equal(array, theirs[key], key)


@pytest.mark.parametrize("name", [name for name in CONFIGS if name in ALL and CONFIGS[name].attention == "mla"])
def test_transformers_opens_a_reward_model_and_gives_the_same_rewards(tmp_path, name):
    base = minids.DeepSeekV3(ALL[name], seed=0)
    reward = minids.RewardModel.copy_of(base)
    head = reward.model.head.weight.value
    head[...] = np.random.default_rng(1).normal(size=head.shape)
    reward.save(tmp_path)
    how = dict(dtype=torch.float32, attn_implementation="eager", experts_implementation="eager", output_loading_info=True)
    theirs, info = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path, **how)
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not info[what], f"{what}: {info[what]}"
    rng = np.random.default_rng(2)
    for length in (5, 9):
        tokens = rng.integers(0, base.config.vocab_size, length)
        got = float(theirs(torch.tensor(tokens[None])).logits.item())
        want = float(reward.of_tokens([tokens.astype(np.int32)])[0])
        assert abs(got - want) < 1e-5 * max(1, abs(want)), (got, want)
