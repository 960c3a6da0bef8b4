"""nanoGPT's recipe for a CPU, as the yardstick of the race on tiny Shakespeare: transformers' GPT-2 on PyTorch.

    python train.py config/train_shakespeare_char.py --device=cpu --compile=False --block_size=64 --batch_size=12
        --n_layer=4 --n_head=4 --n_embd=128 --max_iters=2000 --lr_decay_iters=2000 --dropout=0.0

is a GPT-2 without biases (here they are 0 and have no gradient), with the exact GELU, embedding and head tied, and with its
AdamW: 1e-3 after 100 steps of warm-up, along a cosine to 1e-4, β = 0.9 and 0.99, decay 0.1 for matrices, clipped to norm 1.
It is given PyTorch's fused attention and fused AdamW.
"""

import importlib
import math
from collections.abc import Iterator

import numpy as np

from minids.layers.parameters import Array
from minids.training.batches import Batches, TokenStream

BATCH, LENGTH, STEPS = 12, 64, 2000
WARM_UP, PEAK, LAST = 100, 1e-3, 1e-4


def learning_rate(step: int, steps: int = STEPS) -> float:
    """Of step 0 … ``steps`` − 1."""
    if step < WARM_UP:
        return PEAK * (step + 1) / (WARM_UP + 1)
    return LAST + 0.5 * (1 + math.cos(math.pi * (step - WARM_UP) / (steps - WARM_UP))) * (PEAK - LAST)


class NanoGPT:
    """The model, and its training step by step on the text of the race."""

    def __init__(self, stream: TokenStream, vocabulary: int, threads: int, seed: int = 0):
        self.torch = torch = importlib.import_module("torch")
        transformers = importlib.import_module("transformers")
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        config = transformers.GPT2Config(
            vocab_size=vocabulary, n_positions=LENGTH, n_embd=128, n_layer=4, n_head=4, activation_function="gelu",
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=None, eos_token_id=None,
            use_cache=False, attn_implementation="sdpa",
        )  # fmt: skip
        self.model = transformers.GPT2LMHeadModel(config).train()
        for name, p in self.model.named_parameters():
            p.requires_grad_(not name.endswith("bias"))
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in self.trained if p.dim() > 1], "weight_decay": 0.1},
            {"params": [p for p in self.trained if p.dim() < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.99), fused=True)
        self.batches = Batches(stream, BATCH, LENGTH, np.random.default_rng([seed, 1]))

    @property
    def parameters(self) -> int:
        """How many are trained."""
        return sum(p.numel() for p in self.trained)

    def training(self) -> Iterator[float]:
        """Step by step, as they are asked for: the loss of each before its update."""
        for step in range(STEPS):
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(step)
            loss = self._loss(*self.batches.next())
            loss.backward()
            self.torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            yield loss.item()

    def validation(self, windows: Iterator[tuple[Array, Array]], ignore: int) -> float:
        """Mean loss in nats per character over ``windows`` of (tokens, targets); targets that are ``ignore`` do not count."""
        nats, count = 0.0, 0
        with self.torch.no_grad():
            for tokens, targets in windows:
                counted = int((targets != ignore).sum())
                nats += self._loss(tokens, targets, ignore).item() * counted
                count += counted
        return nats / count

    def _loss(self, tokens: Array, targets: Array, ignore: int = -100):
        tokens, targets = (self.torch.from_numpy(np.ascontiguousarray(array, np.int64)) for array in (tokens, targets))
        logits = self.model(tokens, use_cache=False).logits
        return self.torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=ignore)
