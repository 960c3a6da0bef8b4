"""What minids does not read is named, with what to do; what it costs is told of any folder; relatives' text models open."""

import json

import ml_dtypes
import numpy as np
import pytest
from disk_samples import CONFIG, encoded, header, quantised, write_raw

import minids
from minids.checkpoint.config_json import config_to_json
from minids.checkpoint.folder import CheckpointFolder
from minids.checkpoint.tensor_file import TensorFile
from minids.cli import main
from minids.errors import MinidsError
from minids.model import DeepSeekV3

PACKED = np.zeros((4, 2), np.int32)
BYTES = ("U8", (2,), b"\0\0")


def refused(folder, *words):
    """Opening ends in one line with these words."""
    for open_it in (minids.load, minids.load_streamed, lambda folder: minids.load_layer(folder, 0)):
        with pytest.raises(MinidsError) as caught:
            open_it(folder)
        message = str(caught.value)
        assert all(word in message for word in words) and len(message) < 500, message
        assert message.count("; ") >= 1, "what it is; and what to do"


def with_config(folder, **fields):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**config_to_json(CONFIG), **fields}))
    return folder


STORED = {
    "awq": ({"quant_method": "awq", "bits": 4}, "AWQ", "base_model"),
    "gptq": ({"quant_method": "gptq", "bits": 8}, "GPTQ", "base_model"),
    "compressed-tensors": (
        {"quant_method": "compressed-tensors"},
        "CompressedTensorsConfig(run_compressed=False)",
        "transformers",
    ),
    "mxfp4": ({"quant_method": "mxfp4"}, "MXFP4", "Mxfp4Config(dequantize=True)"),
    "bitsandbytes": ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes", ".dequantize()"),
    "unknown": ({"quant_method": "quark"}, "quantised by 'quark'", "base_model"),
}


@pytest.mark.parametrize("kind", STORED)
def test_how_weights_are_quantised_is_named(tmp_path, kind):
    quantization, name, how = STORED[kind]
    folder = with_config(tmp_path, quantization_config=quantization)
    write_raw(folder / "model.safetensors", {"model.norm.weight": encoded(np.ones(20), "F32")})
    refused(folder, name, how, "minids reads safetensors of float32")


def test_mlx_says_it_in_a_field_of_its_own(tmp_path):
    folder = with_config(tmp_path, quantization={"group_size": 64, "bits": 4})
    write_raw(folder / "model.safetensors", {"lm_head.weight": ("U32", (2, 2), bytes(16))})
    refused(folder, "MLX", "mlx_lm convert", "--dequantize")


NAMES = {
    "MLX": ({"a.weight": ("U32", (2, 2), bytes(16)), "a.scales": BYTES, "a.biases": BYTES}, "mlx_lm"),
    "GPTQ": ({"a.qweight": encoded(PACKED, "I32"), "a.g_idx": BYTES, "a.qzeros": BYTES, "a.scales": BYTES}, "GPTQ"),
    "AWQ": ({"a.qweight": encoded(PACKED, "I32"), "a.qzeros": BYTES, "a.scales": BYTES}, "AWQ"),
    "compressed-tensors": ({"a.weight_packed": encoded(PACKED, "I32"), "a.weight_scale": BYTES}, "compressed-tensors"),
    "MXFP4": ({"m.experts.down_proj_blocks": BYTES, "m.experts.down_proj_scales": BYTES}, "MXFP4"),
    "bitsandbytes": ({"a.weight": BYTES, "a.weight.absmax": BYTES, "a.weight.quant_map": BYTES}, "bitsandbytes"),
    "LoRA": ({"base_model.model.a.lora_A.weight": BYTES, "base_model.model.a.lora_B.weight": BYTES}, "peft"),
}


@pytest.mark.parametrize("kind", NAMES)
def test_where_config_json_is_silent_the_tensors_names_tell(tmp_path, kind):
    tensors, word = NAMES[kind]
    write_raw(with_config(tmp_path) / "model.safetensors", dict(sorted(tensors.items())))
    refused(tmp_path, word)


@pytest.mark.parametrize("config", [False, True])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("adapter_model.safetensors", ("LoRA adapter", "merge_and_unload")),
        ("adapter_model.bin", ("LoRA adapter", "merge_and_unload")),
        ("DeepSeek-V2-Lite.Q4_K_M.gguf", ("GGUF", "base_model")),
        ("weights.npz", ("MLX", "base_model")),
        ("pytorch_model-00001-of-00002.bin", ("pickle", "save_pretrained")),
        ("model.onnx", ("another framework",)),
    ],
)
def test_files_that_are_no_weights_for_minids(tmp_path, name, words, config):
    if config:
        with_config(tmp_path)
    (tmp_path / name).write_bytes(b"GGUF")
    refused(tmp_path, *words)


def test_the_base_model_of_an_adapter_is_named(tmp_path):
    (tmp_path / "adapter_model.safetensors").touch()
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "deepseek-ai/DeepSeek-V2-Lite", "r": 8}')
    refused(tmp_path, "LoRA adapter", "the base model 'deepseek-ai/DeepSeek-V2-Lite'")
    (tmp_path / "adapter_config.json").write_text("[]")
    refused(tmp_path, "LoRA adapter", "its base model")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "model.gguf").touch()
    with pytest.raises(MinidsError, match="is a file; give the folder"):
        minids.load(tmp_path / "model.gguf")


@pytest.mark.parametrize("fields", [{"quantization_config": q} for q, *_ in STORED.values()] + [{"quantization": {"bits": 4}}])
def test_info_needs_no_weights(tmp_path, capsys, fields):
    assert main(["info", "--checkpoint", str(with_config(tmp_path, **fields))]) == 0
    whole = capsys.readouterr().out
    assert main(["info", "--checkpoint", str(with_config(tmp_path))]) == 0
    assert capsys.readouterr().out == whole and "kv_lora_rank" in whole


def test_info_reads_the_text_model_of_one_that_sees_pictures(tmp_path, capsys):
    text = {"model_type": "kimi_vl", "text_config": config_to_json(CONFIG), "vision_config": {}}
    (tmp_path / "config.json").write_text(json.dumps(text))
    assert main(["info", "--checkpoint", str(tmp_path)]) == 0
    assert "kv_lora_rank" in capsys.readouterr().out


@pytest.mark.parametrize("mtp", [True, False])
@pytest.mark.parametrize(
    ("part", "stem", "head"),
    [
        ("text_config", "language_model.model.", "language_model.lm_head."),
        ("language_config", "language.model.", "language.lm_head."),
        ("text_config", "model.language_model.", "lm_head."),
    ],
)
def test_the_text_model_beside_pictures_is_the_same_model(tmp_path, part, stem, head, mtp):
    model = DeepSeekV3(CONFIG, seed=3)
    minids.save(model, tmp_path / "text")
    raw = {}
    for name in ("model", "mtp"):
        file = TensorFile(tmp_path / "text" / f"{name}.safetensors")
        raw |= {n: ("F32", file.info(n).shape, file.raw(n).tobytes()) for n in file.names()}
    renamed = {
        (head + n.removeprefix("lm_head.") if n.startswith("lm_head.") else stem + n.removeprefix("model.")): t
        for n, t in raw.items()
    }
    renamed |= {
        "vision_tower.patch_embed.proj.weight": BYTES,
        "multi_modal_projector.linear_1.bias": BYTES,
        "image_newline": BYTES,
    }
    seeing = tmp_path / "seeing"
    seeing.mkdir()
    write_raw(seeing / "model.safetensors", renamed)
    fields = {"model_type": "seeing", part: config_to_json(CONFIG), "vision_config": {"depth": 2}, "eos_token_id": [1, 2]}
    (seeing / "config.json").write_text(json.dumps(fields))
    tokens = np.arange(20).reshape(2, 10)
    opened = minids.load(seeing, mtp=mtp)
    assert all(np.array_equal(p.value, model.parameters[p.name].value) for p in opened.parameters)
    close = dict(rtol=0, atol=1e-7)  # a weight at another address may give other last digits, which BLAS decides
    np.testing.assert_allclose(opened.logits(tokens), model.logits(tokens), **close)
    assert opened.generation.stop == (1,), "what the text model says itself counts"
    np.testing.assert_allclose(minids.load_streamed(seeing).logits(tokens), model.logits(tokens), **close)


@pytest.mark.parametrize("fmt", ["ue8m0", None])
def test_scales_that_are_powers_of_two_and_stored_as_exponents(tmp_path, fmt):
    array = np.random.default_rng(0).normal(0, 1, (20, 24)).astype(np.float32)
    codes, scales, _ = quantised(array, (8, 16))
    rounded = np.exp2(np.ceil(np.log2(scales)))
    stored = rounded.astype(ml_dtypes.float8_e8m0fnu)
    fields = {"quant_method": "fp8", "weight_block_size": [8, 16]} | ({"scale_fmt": fmt} if fmt else {})
    folder = with_config(tmp_path, quantization_config=fields)
    raw = {"w": ("F8_E4M3", array.shape, codes.tobytes()), "w_scale_inv": ("F8_E8M0", stored.shape, stored.tobytes())}
    write_raw(folder / "model.safetensors", raw)
    meant = codes.astype(np.float32) * np.repeat(np.repeat(rounded, 8, 0)[:20], 16, 1)[:, :24]
    np.testing.assert_array_equal(CheckpointFolder(folder).tensor("w"), meant)
    assert header(raw)["w_scale_inv"]["dtype"] == "F8_E8M0"
