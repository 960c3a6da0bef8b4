"""The package against transformers: logits, chosen experts, every gradient of the training loss, cached decoding."""

import numpy as np
import peers
import pytest
import torch

from minids.config import ModelConfig
from minids.inference.decoder import Decoder
from minids.model import DeepSeekV3

pytestmark = pytest.mark.parity


def built(config: ModelConfig, weights: dict, dtype) -> DeepSeekV3:
    """Our model with these weights."""
    model = DeepSeekV3(config, None, dtype)
    for p in model.parameters:
        p.value[...] = weights[p.name]
    for name, buffer in model.parameters.buffers.items():
        buffer[...] = weights[name]
    return model


def example(name, dtype=np.float64):
    config = peers.CONFIGS[name]
    weights = peers.random_weights(config, dtype=dtype)
    tokens, targets = peers.example(name)
    return config, weights, tokens, targets


def relative(got, want, floor: float = 1e-300) -> float:
    """Largest error, as a share of the largest entry of the array, or of ``floor`` where that is larger."""
    return float(np.abs(got - want).max() / max(np.abs(want).max(), floor)) if want.size else 0.0


@pytest.mark.parametrize("name", peers.CONFIGS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-9), (np.float32, 1e-4)])
def test_logits(name, dtype, tolerance):
    config, weights, tokens, _ = example(name, dtype)
    ours = built(config, weights, dtype).logits(tokens)
    theirs = peers.transformers_logits(config, weights, tokens)
    assert np.abs(ours - theirs).max() <= tolerance


@pytest.mark.parametrize("name", peers.CONFIGS)
def test_mtp_logits_and_chosen_experts(name):
    config, weights, tokens, targets = example(name)
    model = built(config, weights, np.float64)
    logits, mtp_logits, chosen = peers.torch_forward(config, weights, tokens)
    assert relative(model.logits(tokens), logits) <= 1e-9
    assert len(mtp_logits) == config.num_nextn_predict_layers
    for ours, theirs in zip(model.mtp_logits(tokens), mtp_logits, strict=True):
        assert relative(ours, theirs) <= 1e-9
    ours = model.choices(tokens, targets)
    theirs = [np.asarray(chosen[layer]).reshape(-1, config.num_experts_per_tok) for layer in sorted(chosen)]
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert np.array_equal(np.sort(mine), np.sort(other)), "other experts were chosen"


@pytest.mark.parametrize(
    ("name", "changes"),
    [(name, {}) for name in peers.CONFIGS]
    + [("base", {"seq_aux": False}), ("base", {"aux_loss_counts": "unbiased"}), ("v2_like", {"seq_aux": False})],
)
def test_every_gradient_of_the_training_loss(name, changes):
    """Main loss, MTP losses and balance loss together, by every parameter."""
    config, weights, tokens, targets = example(name)
    config = config.replace(**changes)
    losses, ours = built(config, weights, np.float64).loss_and_grads(tokens, targets)
    loss, theirs = peers.torch_loss_and_grads(config, weights, tokens, targets)
    assert losses.total == pytest.approx(float(loss), rel=1e-12)
    assert set(ours) == set(theirs)
    # A gradient that is 0 in exact arithmetic (a query's, with one position to attend to) is measured against the others.
    floor = 1e-6 * max(float(np.abs(gradient).max()) for gradient in theirs.values())
    for parameter, gradient in theirs.items():
        if tokens.shape[1] > 1:  # a single position attends to itself whatever its query is
            assert np.abs(gradient).max() > 0, f"{parameter} has no gradient, so nothing is compared"
        assert relative(ours[parameter], np.asarray(gradient), floor) <= 1e-8, parameter


@pytest.mark.parametrize("name", ["base", "no_query_latent", "half_split_yarn", "yarn_beyond_original", "v2_like"])
@pytest.mark.parametrize("cache", ["latent", "full"])
def test_cached_decoding(name, cache):
    """Their cache and ours, fed the same chunks."""
    config, weights, tokens, _ = example(name)
    decoder = Decoder(built(config, weights, np.float64), cache, len(tokens))
    theirs = peers.to_transformers(config, weights)
    past = None
    with torch.no_grad(), peers.computing_in(torch.float64):
        for start, stop in ((0, 5), (5, 6), (6, 7), (7, tokens.shape[1])):
            out = theirs(torch.tensor(tokens[:, start:stop]), past_key_values=past, use_cache=True)
            past = out.past_key_values
            ours = decoder.model.head.forward(decoder.read(tokens[:, start:stop]))[0]
            assert np.abs(ours - out.logits.numpy()).max() <= 1e-9
