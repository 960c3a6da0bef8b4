"""Writes the golden files from transformers and PyTorch autograd: ``python tests/golden/make.py`` (needs the parity extra).

Nothing of the minids model is used here, so what the default tests compare with is independent of it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "parity")]

import peers  # noqa: E402
from golden import formula  # noqa: E402


def golden(name: str) -> dict[str, np.ndarray]:
    """Logits of every depth, the loss, the chosen experts and the fingerprint of every gradient."""
    config = peers.CONFIGS[name]
    weights = formula.weights(config)
    tokens, targets = formula.batch(config)
    logits, mtp_logits, chosen = peers.torch_forward(config, weights, tokens)
    loss, gradients = peers.torch_loss_and_grads(config, weights, tokens, targets)
    result = {"logits": logits, "loss": np.array(float(loss))}
    result |= {f"mtp_logits.{k}": values for k, values in enumerate(mtp_logits, start=1)}
    result |= {f"chosen.{layer}": np.sort(np.asarray(ids), axis=-1).astype(np.int16) for layer, ids in chosen.items()}
    result |= {f"gradient.{parameter}": formula.fingerprint(values) for parameter, values in gradients.items()}
    return {key: np.asarray(value) for key, value in sorted(result.items())}


if __name__ == "__main__":
    for name in formula.NAMES:
        path = HERE / f"{name}.npz"
        np.savez_compressed(path, **golden(name))
        print(path.name, f"{path.stat().st_size:,} bytes")
