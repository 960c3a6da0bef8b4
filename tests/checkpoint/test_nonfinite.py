"""A NaN or an infinity in a folder is said with the tensor's name, through every door; a switch lets it in."""

import json

import numpy as np
import pytest
from disk_samples import CONFIG, encoded, fp8_entries, write_raw

import minids
from minids.checkpoint.config_json import config_to_json
from minids.checkpoint.names import explode, memory_shapes
from minids.checkpoint.streaming import load_streamed
from minids.cli import main
from minids.errors import MinidsError
from minids.layers.positions import rotary

BIAS = "model.layers.1.mlp.gate.e_score_correction_bias"
MATRIX = "model.layers.1.self_attn.o_proj.weight"
NAMES = (
    "model.norm.weight",
    BIAS,
    "model.layers.1.mlp.experts.5.up_proj.weight",
    "model.embed_tokens.weight",
    "lm_head.weight",
)


def folder_with(tmp_path, name, value, dtype="F32", scale=False):
    """A whole model in whose tensor ``name`` one number, or of ``MATRIX`` in FP8 one scale, is ``value``."""
    config = CONFIG.replace(num_nextn_predict_layers=0)
    rng, stored = np.random.default_rng(0), {}
    for parameter, shape in memory_shapes(config).items():
        stored |= dict(explode(parameter, rng.normal(0, 0.1, shape).astype(np.float64 if dtype == "F64" else np.float32)))
    if not scale:
        stored[name].reshape(-1)[-2] = value
    raw = {n: encoded(a, "F32" if n.endswith("bias") else dtype) for n, a in stored.items()}
    if scale:
        entries, _ = fp8_entries(MATRIX, stored[MATRIX], (128, 128))
        raw |= entries | {f"{MATRIX}_scale_inv": encoded(np.full((1, 1), value, np.float32), "F32")}
    tmp_path.mkdir(exist_ok=True)
    write_raw(tmp_path / "model.safetensors", raw)
    (tmp_path / "config.json").write_text(json.dumps(config_to_json(config)))
    return tmp_path


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16", "F64"])
@pytest.mark.parametrize("name", NAMES)
def test_load_names_the_tensor(tmp_path, name, dtype, value):
    folder = folder_with(tmp_path, name, value, dtype)
    with pytest.raises(MinidsError, match=rf"tensor '{name}' holds {value} at \[.*1 of [\d,]+ numbers.*allow_nonfinite=True"):
        minids.load(folder)
    model = minids.load(folder, allow_nonfinite=True)
    values = np.concatenate([model.parameters.values, *model.parameters.buffers.values()])
    assert (~np.isfinite(values)).sum() == 1


def test_what_float32_cannot_hold_is_an_infinity(tmp_path):
    folder = folder_with(tmp_path, "model.norm.weight", 1e300, "F64")
    with pytest.raises(MinidsError, match=r"model\.norm\.weight' holds inf"):
        minids.load(folder)
    assert minids.load(folder, dtype=np.float64).norm.gain.value[-2] == 1e300


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_scale_of_fp8(tmp_path, value):
    folder = folder_with(tmp_path, MATRIX, value, scale=True)
    with pytest.raises(MinidsError, match=rf"{MATRIX}_scale_inv' holds {value}"):
        minids.load(folder)
    minids.load(folder, allow_nonfinite=True)


@pytest.mark.parametrize("name", NAMES)
def test_models_that_stay_on_disk(tmp_path, name):
    folder = folder_with(tmp_path, name, np.nan)

    def text(**switch):
        return minids.generate(load_streamed(folder, **switch), [1, 2, 3, 4, 5, 6, 7, 22], 8)

    with pytest.raises(MinidsError, match=name):
        text()
    text(allow_nonfinite=True)


def test_one_layer(tmp_path):
    folder, x = folder_with(tmp_path, NAMES[2], np.nan), np.random.default_rng(0).normal(size=(1, 20, 20)).astype(np.float32)
    angles = rotary(CONFIG, np.arange(20), np.float32)
    with pytest.raises(MinidsError, match=NAMES[2]):
        minids.load_layer(folder, 1).forward(x, angles)
    minids.load_layer(folder, 0).forward(x, angles)
    assert np.isnan(minids.load_layer(folder, 1, allow_nonfinite=True).forward(x, angles)[0]).any()


@pytest.mark.parametrize("command", [["generate", "--prompt", "ab"], ["route", "--text", "ab"]])
@pytest.mark.parametrize("stream", [[], ["--stream"]])
def test_commands_say_it_in_one_line(tmp_path, capsys, command, stream):
    """What is read first differs; a routing bias is read when the folder is opened."""
    folder = folder_with(tmp_path, BIAS, np.inf)
    minids.checkpoint.tokenizer.character_tokenizer(["abcdefghijklmnopqrstuvw"]).save(folder)
    assert main([command[0], "--checkpoint", str(folder), *command[1:], *stream]) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and BIAS in err and "--allow-nonfinite" in err and not out
    assert main([command[0], "--checkpoint", str(folder), *command[1:], *stream, "--allow-nonfinite"]) == 0
