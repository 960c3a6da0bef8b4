"""QK-Clip, Kimi-K2's guard against attention logits that grow without end under Muon.

After every optimizer step, for every head h whose largest logit S_h in the step's forward pass is above the threshold τ,

    γ_h = min(1, τ / S_h)        W^UQ_h, W^UK_h ← √γ_h · W        W^QR_h ← γ_h · W

so that each of the two parts of a logit, q^C · k^C and q^R · k^R, is γ_h times what it was. The rotary key is one for all
heads and stays: another head's logits are no reason to change it. No gradient flows through this, and there is no state: the
next step measures anew.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np

from minids.backend import op
from minids.config import ModelConfig, TrainConfig
from minids.errors import refuse
from minids.layers.mla import MLA
from minids.layers.parameters import Array
from minids.model import DeepSeekV3


def check_clip(model: ModelConfig, train: TrainConfig) -> None:
    if train.qk_clip and model.attention != "mla":
        raise refuse("qk_clip", train.qk_clip, f"is a rule for MLA's weights, and attention = {model.attention!r}")


class QKClip:
    """Of a model and those that share its weights, one for each thread."""

    def __init__(self, models: Sequence[DeepSeekV3], threshold: float):
        self.layers = [attentions(model) for model in models]
        self.threshold = threshold
        heads = models[0].config.num_attention_heads
        self.seen = np.full((len(models), len(self.layers[0]), heads), -np.inf)  # largest logits of the step

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Within it forward passes are looked at; the step begins anew."""
        self.seen[...] = -np.inf
        try:
            for which, layers in enumerate(self.layers):
                for i, layer in enumerate(layers):
                    layer.on_queries_keys = partial(self._record, (which, i), layer.scale)
            yield
        finally:
            for layer in (layer for layers in self.layers for layer in layers):
                layer.on_queries_keys = None

    def _record(self, at: tuple[int, int], scale: float, q: Array, k: Array) -> None:
        np.maximum(self.seen[at], op.largest_logit.forward(q, k, scale), out=self.seen[at])

    def apply(self, greatest: Callable[[Array], Array] = lambda seen: seen.max(axis=0)) -> float:
        """Scale the heads above the threshold → the largest logit of the step, before. ``greatest``: over all threads."""
        largest = greatest(self.seen)  # (layers, H)
        for layer, of_head in zip(self.layers[0], largest, strict=True):
            if (of_head > self.threshold).any():
                clip(layer, np.minimum(1.0, self.threshold / np.maximum(of_head, self.threshold)))
        return float(largest.max())


def attentions(model: DeepSeekV3) -> list[MLA]:
    """Every MLA layer: the main model's in order, then those of the MTP modules."""
    layers = [block.attention for block in (*model.blocks, *(module.block for module in model.mtp))]
    return [layer for layer in layers if isinstance(layer, MLA)]


def clip(layer: MLA, gamma: Array) -> None:
    """gamma (H,): every head's logits become so many times what they are."""
    up = layer.q_b_proj if layer.compresses_queries else layer.q_proj
    queries = up.weight.value.reshape(layer.heads, layer.d_nope + layer.d_rope, -1)  # per head W^UQ, then W^QR
    keys = layer.kv_b_proj.weight.value.reshape(layer.heads, layer.d_nope + layer.d_v, -1)  # per head W^UK, then W^UV
    gamma = gamma.astype(queries.dtype)[:, None, None]
    queries[:, : layer.d_nope] *= np.sqrt(gamma)
    queries[:, layer.d_nope :] *= gamma
    keys[:, : layer.d_nope] *= np.sqrt(gamma)
