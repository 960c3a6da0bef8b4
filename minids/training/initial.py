"""A run that begins from a trained model: its weights, routing biases and tokenizer, and nothing of its optimizer."""

import hashlib
from pathlib import Path

from minids.checkpoint.latest import resolved
from minids.checkpoint.model_folder import load
from minids.config import ModelConfig
from minids.errors import refuse
from minids.model import DeepSeekV3


def described_source(folder: str | Path) -> dict[str, str]:
    """What run.json keeps of a checkpoint that a run begins from: as it was asked for, which one it is, and what it holds."""
    return {"asked": str(folder), "checkpoint": str(resolved(folder)), "sha256": _sha256(load(folder))}


def initial_model(source: dict[str, str], config: ModelConfig) -> DeepSeekV3:
    """The model that ``described_source`` described, with the settings of ``config``, which must be of the same shape. What
    depends on the tokenizer is the checkpoint's."""
    folder = source["checkpoint"]
    trained = load(folder)
    if trained.tokenizer is None:
        raise refuse("init_from", folder, "has no tokenizer.json, so there is no way to read text for it")
    if _sha256(trained) != source["sha256"]:
        raise refuse("init_from", folder, "holds other weights than when this run began; give those back, or start another run")
    there = trained.config
    config = config.replace(vocab_size=there.vocab_size, bos_token_id=there.bos_token_id, eos_token_id=there.eos_token_id)
    has, asked = ({p.name: p.shape for p in parameters} for parameters in (trained.parameters, DeepSeekV3.declared(config)))
    for name in dict.fromkeys([*asked, *has]):
        if has.get(name) != asked.get(name):
            shapes = f"its {name} is {has.get(name, 'not there')}, this run asks for {asked.get(name, 'none')}"
            raise refuse("init_from", folder, f"{shapes}; leave --preset and the model's own settings out to take its shape")
    model = DeepSeekV3(config, seed=None)
    model.parameters.values[...] = trained.parameters.values
    for name, bias in model.parameters.buffers.items():
        if name in trained.parameters.buffers:  # a model that was balanced otherwise has none
            bias[...] = trained.parameters.buffers[name]
    model.tokenizer = trained.tokenizer
    return model


def _sha256(model: DeepSeekV3) -> str:
    digest = hashlib.sha256(model.parameters.values.tobytes())
    for name in sorted(model.parameters.buffers):
        digest.update(model.parameters.buffers[name].tobytes())
    return digest.hexdigest()
