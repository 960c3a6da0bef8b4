"""Folders travel both ways: ours open in transformers without a missing key, theirs open here, with the same numbers."""

import json

import numpy as np
import peers
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

import minids
from minids.config import TrainConfig
from minids.model import DeepSeekV3
from minids.training.run import Run

pytestmark = pytest.mark.parity

NAMES = list(peers.CONFIGS)


def ours(config, dtype=np.float32):
    model, weights = DeepSeekV3(config, None, dtype), peers.random_weights(config, dtype=dtype)
    for p in model.parameters:
        p.value[...] = weights[p.name]
    for name, buffer in model.parameters.buffers.items():
        buffer[...] = weights[name]
    return model


def opened(folder):
    """The folder in transformers, which must find every key it wants and place every key it finds."""
    model, info = AutoModelForCausalLM.from_pretrained(
        folder,
        output_loading_info=True,
        dtype=torch.float32,
        attn_implementation="eager",
        experts_implementation="eager",
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not info[kind], f"{kind}: {sorted(info[kind])[:5]}"
    return model.eval()


@pytest.mark.parametrize("name", NAMES)
def test_what_we_save_opens_in_transformers(name, tmp_path):
    config = peers.CONFIGS[name]
    model = ours(config)
    minids.save(model, tmp_path)
    tokens, _ = peers.example(name)
    with torch.no_grad():
        theirs = opened(tmp_path)(torch.tensor(tokens)).logits.numpy()
    assert np.abs(model.logits(tokens) - theirs).max() <= 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_what_transformers_saves_opens_here(name, tmp_path):
    config = peers.CONFIGS[name]
    theirs = peers.to_transformers(config, peers.random_weights(config, dtype=np.float32))
    theirs.save_pretrained(tmp_path)
    model = minids.load(tmp_path)
    assert model.config.num_nextn_predict_layers == 0, "transformers keeps no MTP modules"
    tokens, _ = peers.example(name)
    with torch.no_grad():
        want = theirs(torch.tensor(tokens)).logits.numpy()
    assert np.abs(model.logits(tokens) - want).max() <= 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_our_own_round_trip_keeps_every_bit(name, tmp_path):
    model = ours(peers.CONFIGS[name])
    minids.save(model, tmp_path)
    again = minids.load(tmp_path)
    assert again.config == model.config
    for p in model.parameters:
        assert np.array_equal(p.value, again.parameters[p.name].value), p.name
    for buffer, bias in model.parameters.buffers.items():
        assert np.array_equal(bias, again.parameters.buffers[buffer]), buffer


def test_a_trained_model_writes_the_same_greedy_text_in_transformers(tmp_path):
    """200 tokens, its own tokenizer.json: the command of the README."""
    model_config = minids.ModelConfig.preset("tiny", num_hidden_layers=2)
    train = TrainConfig.preset("tiny", steps=40, batch_size=4, sample_every=0, eval_every=40, save_every=40, eval_tokens=1024)
    folder = Run.start(tmp_path / "run", model_config, train, ["builtin"], "tiny", lambda line: None).run()
    prompt = "def "
    model = minids.load(folder)
    new = minids.generate(model, prompt, 200)
    tokenizer, theirs = AutoTokenizer.from_pretrained(folder), opened(folder)
    ids = tokenizer(prompt, return_tensors="pt")
    assert ids.input_ids[0].tolist() == model.tokenizer.encode(prompt).tolist()
    greedy = GenerationConfig(max_new_tokens=200, do_sample=False, pad_token_id=257)
    with torch.no_grad():
        out = theirs.generate(**ids, generation_config=greedy)[0, ids.input_ids.shape[1] :].tolist()
    assert new.tolist() == out
    assert tokenizer.decode(out) == model.tokenizer.decode(new)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "deepseek_v3"
