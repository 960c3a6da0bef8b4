"""What FP8's arithmetic does at given weights: nothing is trained, so that nothing drifts apart.

Two training runs that differ by one rounding are different runs after a few hundred steps, and what FP8 does to the loss is
lost in what chance does. At the same weights and on the same text only the arithmetic differs:

    validation as ARM          nats per token of held-out text
    gradient as ARM            ‖g − g₃₂‖ / ‖g₃₂‖, where g₃₂ is float32's gradient of the same batch; mean over the batches
    prescribed gradient as ARM the same with float32's choice of experts: what is left is rounding, without what it tips over
    experts kept as ARM        of the experts chosen in float32, over all tokens and MoE layers: the share chosen by ARM as well
    gradient of another batch  as above between float32's gradients of two batches: the noise that a step has anyway
"""

from contextlib import nullcontext

import numpy as np

from minids.config import ModelConfig, TrainConfig
from minids.lab.analysis.same_weights import same_weights
from minids.lab.studies.training import validate
from minids.layers.parameters import Array
from minids.model import DeepSeekV3, routing_fixed
from minids.training.batches import Batches
from minids.training.text import Text


def readings(
    model: DeepSeekV3, arms: dict[str, ModelConfig], text: Text, run: TrainConfig, seed: int, batches: int = 8
) -> dict[str, float]:
    """The numbers above of every arm, its configuration given, at the weights of ``model``, which is in float32."""
    source = Batches(text.training, run.batch_size, run.context_length, np.random.default_rng([seed, 2]))
    read = [source.next() for _ in range(batches)]
    exact = [gradient(model, *batch) for batch in read]
    chosen = [model.choices(*batch) for batch in read]
    norms = [np.linalg.norm(g) for g in exact]

    def off(gradients: list[Array]) -> float:
        return float(np.mean([np.linalg.norm(g - g_32) / norm for g, g_32, norm in zip(gradients, exact, norms, strict=True)]))

    numbers = {}
    for arm, config in arms.items():
        twin = same_weights(model, config)
        numbers[f"validation as {arm}"] = validate(twin, text, run).mean_loss
        numbers[f"gradient as {arm}"] = off([gradient(twin, *batch) for batch in read])
        prescribed = [gradient(twin, *batch, experts) for batch, experts in zip(read, chosen, strict=True)]
        numbers[f"prescribed gradient as {arm}"] = off(prescribed)
        kept = [share_kept(experts, twin.choices(*batch)) for batch, experts in zip(read, chosen, strict=True)]
        numbers[f"experts kept as {arm}"] = float(np.mean(kept))
    others = [np.linalg.norm(a - b) / norm for a, b, norm in zip(exact[1:], exact, norms, strict=False)]
    return numbers | {"gradient of another batch": float(np.mean(others))}


def gradient(model: DeepSeekV3, tokens: Array, targets: Array, chosen: list[Array] | None = None) -> Array:
    """(P,) of the whole loss on one batch, every expert chosen anew, or as ``chosen`` prescribes."""
    model.parameters.zero_grads()
    with nullcontext() if chosen is None else routing_fixed(model, chosen):
        model.forward_backward(tokens, targets)
    return model.parameters.grads.copy()


def share_kept(chosen: list[Array], others: list[Array]) -> float:
    """Of the experts in ``chosen``, (N, K) of each MoE layer, the share that ``others`` gives to the same tokens."""
    kept = [(a[:, :, None] == b[:, None, :]).any(axis=2) for a, b in zip(chosen, others, strict=True)]  # (N, K) each
    return float(np.concatenate([layer.ravel() for layer in kept]).mean())
