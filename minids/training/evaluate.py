"""Validation: loss and bits per byte of held-out text. Model and balancing bias are left as they are."""

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
    """Domain → its ``score``, over at most ``max_tokens`` tokens of it, and ``beside_mtp`` over a quarter of them."""
    found = {}
    for domain, stream in domains.items():
        batches = list(validation_windows(stream.tokens, batch, length, max_tokens))
        found[domain] = score(model, batches, tokenizer) | beside_mtp(model, batches[: -(-len(batches) // 4)])
    return found


def score(model: DeepSeekV3, batches: Iterable[tuple[Array, Array]], tokenizer: Tokenizer) -> dict[str, float]:
    """Of the next token: mean ``loss`` in nats per token, and ``bits_per_byte``."""
    nats, count, n_bytes = 0.0, 0, 0
    for tokens, targets in batches:  # (≤ B, T) each
        counted = int(np.sum(targets != IGNORE))
        nats += model.losses(tokens, targets, mtp=False).main * counted
        count += counted
        n_bytes += tokenizer.count_bytes(targets)
    return {"loss": nats / count, "bits_per_byte": bits_per_byte(nats, n_bytes)}


def beside_mtp(model: DeepSeekV3, batches: list[tuple[Array, Array]]) -> dict[str, float]:
    """Each MTP module's loss ``mtp_k``, and ``main_beside_mtp_k``, the main model's on the same tokens, in nats per token.

    The losses of a training step cannot be compared: eq. 24 divides module k's sum over T − k tokens by T, and the first k
    tokens, which have the least before them, are the main model's alone.
    """
    found: dict[str, float] = {}
    for k in range(1, len(model.mtp) + 1):
        main = mtp = count = 0.0
        for tokens, targets in batches:  # (≤ B, T) each
            same = np.where(np.arange(targets.shape[1]) < k, IGNORE, targets)
            if counted := int(np.sum(same != IGNORE)):
                losses = model.losses(tokens, same)
                main, mtp, count = main + losses.main * counted, mtp + losses.mtp[k - 1] * counted, count + counted
        if count:
            found |= {f"main_beside_mtp_{k}": main / count, f"mtp_{k}": mtp / count}
    return found
