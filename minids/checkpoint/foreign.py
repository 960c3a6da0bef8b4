"""What a folder holds that minids does not read: named, with what minids reads and how to get there.

Two things are looked at: ``quantization_config`` of config.json with the names of the tensors, and the files of a folder that
has no weights to read. A command of another project is given where that project documents one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from minids.errors import MinidsError
from minids.files import read_json, shortened

READS = "minids reads safetensors of float32, float16, bfloat16 and DeepSeek's FP8 (E4M3 in blocks, with a scale each)"

_TRANSFORMERS = 'AutoModelForCausalLM.from_pretrained("FOLDER"{}).save_pretrained("NEW")'
_ORIGINAL = "take the folder that it was made from, which its README names as base_model"
_MLX = "convert it with: python -m mlx_lm convert --hf-path FOLDER --mlx-path NEW --dequantize"
_QUANTISED = {  # quant_method → (its name, how to get what minids reads)
    "awq": ("AWQ, integers of 4 bits", _ORIGINAL),
    "gptq": ("GPTQ, integers of 2 to 8 bits", _ORIGINAL),
    "auto-round": ("AutoRound, integers of 2 to 8 bits", _ORIGINAL),
    "compressed-tensors": (
        "compressed-tensors",
        "convert it with transformers: "
        + _TRANSFORMERS.format(", quantization_config=CompressedTensorsConfig(run_compressed=False)"),
    ),
    "mxfp4": (
        "MXFP4, floats of 4 bits",
        "convert it with transformers: " + _TRANSFORMERS.format(", quantization_config=Mxfp4Config(dequantize=True)"),
    ),
    "bitsandbytes": (
        "bitsandbytes, 4 or 8 bits",
        'convert it with transformers: AutoModelForCausalLM.from_pretrained("FOLDER").dequantize().save_pretrained("NEW")',
    ),
    "mlx": ("MLX, integers of 2 to 8 bits packed into 32", _MLX),
}
# Ends of tensors' names by which such weights are known where config.json does not tell.
_ENDINGS = {
    "gptq": (".qweight", ".g_idx"),
    "awq": (".qweight", ".qzeros"),
    "compressed-tensors": (".weight_packed", ".weight_scale"),
    "mxfp4": ("_blocks", "_scales"),
    "bitsandbytes": (".weight", ".weight.absmax"),
    "mlx": (".weight", ".scales", ".biases"),
}
_LORA = re.compile(r"lora_[AB]\.|lora_embedding_[AB]")
_CONFIG_LIMIT = 1 << 20  # bytes


def quantised(config_json: dict[str, Any]) -> str | None:
    """How the weights beside a config.json are stored, in words, if that is not one of the ways that minids reads."""
    quantization = config_json.get("quantization_config")
    if quantization is None and isinstance(config_json.get("quantization"), dict):  # MLX has a field of its own
        return _in_words("mlx")
    method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
    return None if quantization is None or method == "fp8" else _in_words(method)


def packed(names: Iterable[str]) -> str | None:
    """The same by the names of the tensors. Of a matrix of MLX or bitsandbytes the first is as usual, the next are not."""
    held = set(names)
    if any(_LORA.search(name) for name in held):
        return _adapter(None)
    for method, (first, *others) in _ENDINGS.items():
        if any(name.endswith(first) and all(name[: -len(first)] + more in held for more in others) for name in held):
            return _in_words(method)
    return None


def without_weights(folder: Path) -> str | None:
    """What is in a folder that has neither model.safetensors nor an index, by its files."""
    files = sorted(path.name for path in folder.iterdir())
    if any(name.startswith("adapter_model.") for name in files) or "adapter_config.json" in files:
        return _adapter(folder)
    ends = {
        ".gguf": f"a model of llama.cpp (GGUF); {READS}; {_ORIGINAL}",
        ".npz": f"an archive of NumPy, as early MLX wrote models; {READS}; {_ORIGINAL}",
        **dict.fromkeys(
            (".bin", ".pt", ".pth", ".ckpt"),
            "a pickle, which can run code when opened; convert it to safetensors first, with transformers: "
            + _TRANSFORMERS.format(""),
        ),
        **dict.fromkeys((".onnx", ".h5", ".msgpack"), f"a model of another framework; {READS}; {_ORIGINAL}"),
    }
    for end, what in ends.items():
        for name in files:
            if name.endswith(end):
                return f"{shortened(name)} is {what}"
    return None


def _adapter(folder: Path | None) -> str:
    """A LoRA adapter, with its base model where adapter_config.json names it."""
    base = "its base model"
    if folder is not None and (folder / "adapter_config.json").is_file():
        try:
            named = read_json(folder / "adapter_config.json", _CONFIG_LIMIT).get("base_model_name_or_path")
        except MinidsError:
            named = None
        base = f"the base model {shortened(named)}" if isinstance(named, str) and named else base
    how = 'AutoPeftModelForCausalLM.from_pretrained("FOLDER").merge_and_unload().save_pretrained("NEW")'
    return f"a LoRA adapter, which is nothing without {base}; minids reads whole models; merge the two with peft: {how}"


def _in_words(method: object) -> str:
    name, how = _QUANTISED.get(str(method), (f"quantised by {shortened(method)}", _ORIGINAL))
    return f"weights are {name}; {READS}; {how}"
