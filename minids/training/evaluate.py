"""Validation: loss and bits per byte of held-out text. Model and balancing bias are left as they are."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from minids.checkpoint.tokenizer import Tokenizer
from minids.layers.parameters import Array
from minids.model import IGNORE, DeepSeekV3
from minids.training.batches import TokenStream, validation_windows
from minids.training.metrics import bits_per_byte


def validation(
    model: DeepSeekV3, domains: dict[str, TokenStream], tokenizer: Tokenizer, batch: int, length: int, max_tokens: int | None
) -> dict[str, dict[str, float]]:
    """Domain → its ``score``, over windows (``batch``, ``length``) of at most ``max_tokens`` tokens of it."""
    windows = {domain: validation_windows(stream.tokens, batch, length, max_tokens) for domain, stream in domains.items()}
    return {domain: score(model, batches, tokenizer) for domain, batches in windows.items()}


def score(model: DeepSeekV3, batches: Iterable[tuple[Array, Array]], tokenizer: Tokenizer) -> dict[str, float]:
    """Of the next token: mean ``loss`` in nats per token, and ``bits_per_byte``."""
    nats, count, n_bytes = 0.0, 0, 0
    for tokens, targets in batches:  # (≤ B, T) each
        counted = int(np.sum(targets != IGNORE))
        nats += model.losses(tokens, targets, mtp=False).main * counted
        count += counted
        n_bytes += tokenizer.count_bytes(targets)
    return {"loss": nats / count, "bits_per_byte": bits_per_byte(nats, n_bytes)}
