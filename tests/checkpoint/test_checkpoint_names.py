"""Which tensors a configuration has, whether a folder holds exactly those, and experts stacked and taken apart."""

import numpy as np
import pytest
from disk_samples import CONFIG, encoded, fp8_entries, random_tensors, write_raw, write_sharded

from minids.checkpoint.config_json import config_to_json
from minids.checkpoint.folder import CheckpointFolder, write_folder
from minids.checkpoint.names import (
    ExpertStack,
    assemble,
    check_layer,
    check_names,
    expected_shapes,
    explode,
    memory_shapes,
    optional_shapes,
    shards,
    with_own_matrices,
)
from minids.config import ModelConfig
from minids.config.model import MOST_BLOCKS
from minids.errors import MinidsError

MTP = "model.layers.2."
STACK = "model.layers.1.mlp.experts.gate_proj.weight"


def folder_of(path, tensors: dict[str, np.ndarray]) -> CheckpointFolder:
    path.mkdir(exist_ok=True)
    write_raw(path / "model.safetensors", {name: encoded(array, "F32") for name, array in tensors.items()})
    return CheckpointFolder(path)


@pytest.fixture
def tensors() -> dict[str, np.ndarray]:
    """What a folder of CONFIG holds, without the copies in the MTP module."""
    return random_tensors(expected_shapes(CONFIG))


def test_names_and_shapes_of_the_released_v3():
    shapes = expected_shapes(ModelConfig.preset("deepseek-v3"))
    known = {
        "model.embed_tokens.weight": (129280, 7168),
        "lm_head.weight": (129280, 7168),
        "model.layers.0.mlp.gate_proj.weight": (18432, 7168),
        "model.layers.2.mlp.down_proj.weight": (7168, 18432),
        "model.layers.3.mlp.gate.weight": (256, 7168),
        "model.layers.3.mlp.gate.e_score_correction_bias": (256,),
        "model.layers.3.mlp.experts.255.gate_proj.weight": (2048, 7168),
        "model.layers.3.mlp.experts.0.down_proj.weight": (7168, 2048),
        "model.layers.3.mlp.shared_experts.up_proj.weight": (2048, 7168),
        "model.layers.60.self_attn.q_a_proj.weight": (1536, 7168),
        "model.layers.60.self_attn.q_b_proj.weight": (24576, 1536),
        "model.layers.60.self_attn.kv_a_proj_with_mqa.weight": (576, 7168),
        "model.layers.60.self_attn.kv_b_proj.weight": (32768, 512),
        "model.layers.60.self_attn.o_proj.weight": (7168, 16384),
        "model.layers.61.eh_proj.weight": (7168, 14336),
        "model.layers.61.shared_head.norm.weight": (7168,),
        "model.layers.61.mlp.experts.9.up_proj.weight": (2048, 7168),
    }
    assert {name: shapes.get(name) for name in known} == known
    total = sum(int(np.prod(shape)) for shape in shapes.values())
    assert total == 671_026_419_200 + 11_610_068_224, "main model and MTP module of DeepSeek-V3"
    assert "model.layers.62.enorm.weight" not in shapes and "model.layers.2.mlp.gate.weight" not in shapes
    copies = sum(int(np.prod(shape)) for shape in optional_shapes(ModelConfig.preset("deepseek-v3")).values())
    assert copies == 2 * 926_679_040


def test_switches_change_the_names():
    def names(**changes):
        return {
            n
            for n in expected_shapes(CONFIG.replace(**changes))
            if "layers.1.self_attn" in n or "layers" not in n or "gate.e" in n
        }

    assert "model.layers.1.self_attn.q_proj.weight" in names(q_lora_rank=None)
    biased = {n.split(".")[-2] for n in names(attention_bias=True) if n.endswith(".bias")}
    assert biased == {"q_a_proj", "kv_a_proj_with_mqa", "o_proj"}
    biased = {n.split(".")[-2] for n in names(attention_bias=True, attention="mqa") if n.endswith(".bias")}
    assert biased == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert "lm_head.weight" not in names(tie_word_embeddings=True)
    v2 = dict(scoring_func="softmax", topk_method="group_limited_greedy", balance="none")
    assert not [n for n in names(**v2) if "e_score" in n], "V2 has no routing bias"
    assert expected_shapes(CONFIG.replace(attention="mqa"))["model.layers.0.self_attn.k_proj.weight"] == (10, 20)


def test_a_complete_folder_is_accepted_as_it_is(tmp_path, tensors):
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(2, np.float32)  # some older files have it
    checked = check_names(CONFIG, folder_of(tmp_path, tensors))
    assert checked == (CONFIG, "")


def refused(path, tensors, words, config=CONFIG, **options):
    with pytest.raises(MinidsError) as caught:
        check_names(config, folder_of(path, tensors), **options)
    assert words in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500 + len(str(path))


def test_missing_tensors_are_named(tmp_path, tensors):
    del tensors["model.layers.1.mlp.experts.3.up_proj.weight"]
    refused(tmp_path, tensors, "missing tensor 'model.layers.1.mlp.experts.3.up_proj.weight'")
    without = {n: a for n, a in tensors.items() if "layers.0.mlp" not in n}
    refused(tmp_path, without, "missing 4 tensors 'model.layers.0.mlp.down_proj.weight'")
    del tensors["lm_head.weight"]
    tensors["model.layers.1.mlp.experts.3.up_proj.weight"] = np.ones((14, 20))
    refused(tmp_path, tensors, "should tie_word_embeddings be true?")


def test_surplus_tensors_are_named(tmp_path, tensors):
    refused(
        tmp_path, {**tensors, "model.layers.0.self_attn.q_proj.weight": np.ones((2, 2))}, "surplus tensor 'model.layers.0.self"
    )
    refused(tmp_path, {**tensors, **{f"x{i}": np.ones(1) for i in range(7)}}, "surplus 7 tensors 'x0', 'x1', 'x2' and 4 more")
    refused(tmp_path, tensors, "surplus", CONFIG.replace(num_nextn_predict_layers=0))
    refused(tmp_path, tensors, "surplus", CONFIG.replace(n_routed_experts=4, n_group=2))


def test_wrong_shapes_and_types_are_named(tmp_path, tensors):
    tensors["model.norm.weight"] = np.ones(21)
    refused(tmp_path, tensors, "'model.norm.weight' has shape [21], config.json asks for [20]")
    tensors["lm_head.weight"] = tensors["lm_head.weight"].T
    refused(tmp_path, tensors, "and 1 more")
    tensors = random_tensors(expected_shapes(CONFIG))
    raw = {n: encoded(a, "I32" if n == "model.norm.weight" else "F32") for n, a in tensors.items()}
    write_raw(tmp_path / "model.safetensors", raw)
    with pytest.raises(MinidsError, match="of type I32"):
        check_names(CONFIG, CheckpointFolder(tmp_path))


def test_a_configuration_of_another_size_is_refused_quickly(tmp_path, tensors):
    for changes in ({"num_hidden_layers": MOST_BLOCKS}, {"n_routed_experts": 1 << 30}):
        refused(tmp_path, tensors, "config.json asks for at least", CONFIG.replace(**changes))


def test_without_mtp_weights_the_configuration_loses_its_modules(tmp_path, tensors):
    main = {name: array for name, array in tensors.items() if not name.startswith(MTP)}
    config, note = check_names(CONFIG, folder_of(tmp_path, main))
    assert config == CONFIG.replace(num_nextn_predict_layers=0)
    assert "no MTP weights" in note


def test_mtp_weights_can_be_left_out(tmp_path, tensors):
    del tensors[f"{MTP}enorm.weight"]
    refused(tmp_path, tensors, "MTP module is there only in part")
    assert check_names(CONFIG, folder_of(tmp_path, tensors), mtp=False) == (CONFIG.replace(num_nextn_predict_layers=0), "")
    refused(tmp_path, random_tensors(expected_shapes(CONFIG)), "only in part", CONFIG.replace(num_nextn_predict_layers=2))


def test_copies_need_not_be_there_and_are_the_modules_own_where_they_differ(tmp_path, tensors):
    embedding, head = f"{MTP}embed_tokens.weight", f"{MTP}shared_head.head.weight"
    tensors |= {embedding: tensors["model.embed_tokens.weight"].copy(), head: tensors["lm_head.weight"].copy()}
    folder = folder_of(tmp_path, tensors)
    assert check_names(CONFIG, folder)[0] == CONFIG == with_own_matrices(CONFIG, folder)
    tensors[head][3, 4] += 1
    folder = folder_of(tmp_path, tensors)
    assert with_own_matrices(CONFIG, folder) == CONFIG.replace(mtp_own_matrices=True)
    without = CONFIG.replace(num_nextn_predict_layers=0)
    assert with_own_matrices(without, folder) == without
    np.testing.assert_array_equal(assemble(folder, head), tensors[head])
    refused(tmp_path, {**tensors, head: tensors[head][1:]}, "has shape [22, 20]")
    del tensors[embedding]
    np.testing.assert_array_equal(assemble(folder_of(tmp_path, tensors), embedding), tensors["model.embed_tokens.weight"])


def test_a_tied_head_may_be_stored_if_it_is_the_embedding(tmp_path, tensors):
    tied = CONFIG.replace(tie_word_embeddings=True, num_nextn_predict_layers=0)
    tensors = {n: a for n, a in tensors.items() if not n.startswith(MTP)}
    folder = folder_of(tmp_path, tensors)
    assert check_names(tied, folder)[0] == tied
    with pytest.raises(MinidsError, match=r"'lm_head\.weight' differs from"):
        with_own_matrices(tied, folder)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    assert with_own_matrices(tied, folder_of(tmp_path, tensors)) == tied


def test_stacking_and_taking_apart_are_inverse(tmp_path, tensors):
    folder = folder_of(tmp_path, tensors)
    stack = assemble(folder, STACK)
    assert stack.shape == (8, 14, 20) == memory_shapes(CONFIG)[STACK]
    for name, array in explode(STACK, stack):
        np.testing.assert_array_equal(array, tensors[name])
        assert np.shares_memory(array, stack), "saving must not copy the experts"
    out = np.empty(stack.shape, np.float64)
    assert assemble(folder, STACK, np.float64, out) is out
    np.testing.assert_array_equal(out, stack)
    np.testing.assert_array_equal(assemble(folder, "model.norm.weight"), tensors["model.norm.weight"])
    with pytest.raises(MinidsError, match="holds no tensor"):
        assemble(folder, "model.layers.0.mlp.experts.up_proj.weight")


def test_experts_on_disk_look_like_the_stack(tmp_path, tensors):
    folder = folder_of(tmp_path, tensors)
    for projection in ("gate_proj", "up_proj", "down_proj"):
        name = f"model.layers.1.mlp.experts.{projection}.weight"
        lazy, stack = ExpertStack(folder, name), assemble(folder, name)
        assert lazy.shape == stack.shape and len(lazy) == 8
        for e in (0, 5, np.int64(7), -1):
            np.testing.assert_array_equal(lazy[e], stack[e])
        with pytest.raises(IndexError):
            lazy[8]
        with pytest.raises(TypeError, match="one at a time"):
            np.concatenate([lazy, stack])
        assert [a.shape for a in lazy] == [stack.shape[1:]] * 8, "iterating ends after the last expert"


def test_one_layer_of_a_folder_whose_other_shards_are_missing(tmp_path, tensors):
    raw = {name: encoded(array, "BF16") for name, array in tensors.items()}
    here = {name: entry for name, entry in raw.items() if name.startswith("model.layers.1.")}
    write_sharded(tmp_path, {"1.safetensors": here, "2.safetensors": {n: e for n, e in raw.items() if n not in here}})
    (tmp_path / "2.safetensors").unlink()
    folder = CheckpointFolder(tmp_path, partial=True)
    check_layer(CONFIG, folder, 1)
    stack = "model.layers.1.mlp.experts.up_proj.weight"
    assert assemble(folder, stack).shape == memory_shapes(CONFIG)[stack]
    with pytest.raises(MinidsError, match=r"lies in 2\.safetensors, which is missing"):
        check_layer(CONFIG, folder, 0)
    with pytest.raises(MinidsError, match="layers 0 to 2"):
        check_layer(CONFIG, folder, 3)
    with pytest.raises(MinidsError, match="has shape"):
        check_layer(CONFIG.replace(hidden_size=22), folder, 1)
    with pytest.raises(MinidsError, match="holds no tensor"):
        check_layer(CONFIG.replace(n_routed_experts=16), folder, 1)


def test_a_v3_like_fp8_folder(tmp_path):
    config = CONFIG.replace(hidden_size=130, q_lora_rank=140)
    raw, meant = {}, {}
    for name, array in random_tensors(expected_shapes(config)).items():
        if array.ndim == 2 and ("self_attn" in name or "mlp.experts" in name or "shared_experts" in name):
            entries, meant[name] = fp8_entries(name, array, (128, 128))
            raw |= entries
        else:
            raw[name] = encoded(array, "F32" if name.endswith("bias") else "BF16")
    write_raw(tmp_path / "model.safetensors", raw)
    folder = CheckpointFolder(tmp_path)
    assert check_names(config, folder)[0] == config
    for name, values in meant.items():
        np.testing.assert_array_equal(folder.tensor(name), values, name)
    stack = assemble(folder, "model.layers.1.mlp.experts.down_proj.weight")
    np.testing.assert_array_equal(stack[4], meant["model.layers.1.mlp.experts.4.down_proj.weight"])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        dict(tie_word_embeddings=True, q_lora_rank=None, attention_bias=True),
        dict(n_shared_experts=0, num_nextn_predict_layers=2),
        dict(attention="gqa", num_key_value_heads=1, num_nextn_predict_layers=0),
        dict(scoring_func="softmax", topk_method="greedy", n_group=1, topk_group=1, balance="none", norm_topk_prob=False),
    ],
)
@pytest.mark.parametrize("limit", [5 << 30, 4000])
def test_what_is_saved_is_what_is_read(tmp_path, changes, limit):
    config = CONFIG.replace(**changes)
    parameters = random_tensors(memory_shapes(config))
    files = shards(config, parameters, limit)
    assert ("mtp.safetensors" in files) == bool(config.num_nextn_predict_layers)
    assert ("model.safetensors" in files) == (limit > 4000), list(files)
    if limit == 4000:
        sizes = [[array.nbytes for array in tensors.values()] for file, tensors in files.items() if file != "mtp.safetensors"]
        assert all(sum(s) <= limit or len(s) == 1 for s in sizes) and len(sizes) > 3
    assert {array.dtype for tensors in files.values() for array in tensors.values()} == {np.dtype(np.float32)}
    write_folder(tmp_path, config_to_json(config), files)
    folder = CheckpointFolder(tmp_path)
    assert check_names(config, folder) == (config, "")
    assert with_own_matrices(config, folder) == config
    for name, array in parameters.items():
        np.testing.assert_array_equal(assemble(folder, name), array, name)
        place = np.empty(array.shape, np.float32)
        assert assemble(folder, name, out=place) is place and np.array_equal(place, array), f"{name} in place"
