"""Logits, losses, chosen experts and gradients against numbers that transformers and PyTorch autograd gave, without either."""

from pathlib import Path

import numpy as np
import pytest
from golden import formula
from parity.small_models import CONFIGS

from minids import pico
from minids.model import DeepSeekV3


def model_and_golden(name):
    config, weights = CONFIGS[name], formula.weights(CONFIGS[name])
    model = DeepSeekV3(config, None, np.float64)
    for p in model.parameters:
        p.value[...] = weights[p.name]
    for buffer, bias in model.parameters.buffers.items():
        bias[...] = weights[buffer]
    with np.load(Path(__file__).with_name(f"{name}.npz")) as file:
        return model, weights, dict(file)


@pytest.mark.parametrize("name", formula.NAMES)
def test_logits_and_choices(name):
    model, weights, golden = model_and_golden(name)
    tokens, targets = formula.batch(model.config)
    assert np.abs(model.logits(tokens) - golden["logits"]).max() < 1e-9
    assert np.abs(pico.deepseek_v3(tokens, weights, model.config) - golden["logits"]).max() < 1e-9
    for depth, logits in enumerate(model.mtp_logits(tokens), start=1):
        assert np.abs(logits - golden[f"mtp_logits.{depth}"]).max() < 1e-9, f"MTP depth {depth}"
    layers = sorted(int(key.split(".")[1]) for key in golden if key.startswith("chosen."))
    for layer, chosen in zip(layers, model.choices(tokens, targets), strict=True):
        want = golden[f"chosen.{layer}"].reshape(chosen.shape)
        assert np.array_equal(np.sort(chosen, axis=-1), want), f"layer {layer} chose other experts"


@pytest.mark.parametrize("name", formula.NAMES)
def test_loss_and_gradients(name):
    model, _, golden = model_and_golden(name)
    losses, gradients = model.loss_and_grads(*formula.batch(model.config))
    assert losses.total == pytest.approx(float(golden["loss"]), rel=1e-12)
    assert {f"gradient.{parameter}" for parameter in gradients} == {key for key in golden if key.startswith("gradient.")}
    for parameter, gradient in gradients.items():
        got, want = formula.fingerprint(gradient), golden[f"gradient.{parameter}"]
        assert np.abs(got - want).max() <= 1e-8 * want[0], f"{parameter}: {got} instead of {want}"
