"""DeepSeek-V3: embedding, blocks, norm, head, and the multi-token-prediction modules that branch off at the end.

    tokens (B, T) → Embedding → L × Block → norm → h⁰ → head → logits (B, T, V)
    depth k = 1 … D:  Emb(t_{i+k}), h^{k−1} → MTP module k → h^k → the same head → logits of t_{i+k+1}

    loss = L_main + λ/D Σ_k L^k + α Σ_layers L_bal        eqs 24, 25 and 17

The backward pass is the same list read upwards. The embedding and the head are used D + 1 times, so each use adds its share to
their gradients.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from minids.backend import op
from minids.config import ModelConfig
from minids.errors import MinidsError, refuse
from minids.layers.basic import Embedding, Linear, RMSNorm
from minids.layers.block import Block
from minids.layers.moe import MoE
from minids.layers.mtp import MTPModule
from minids.layers.parameters import Array, Parameters
from minids.layers.positions import Rotary, rotary

IGNORE = op.cross_entropy.IGNORE


class Losses(NamedTuple):
    """What one batch cost, in nats per token, and what its tokens chose."""

    total: float  # main + λ/D Σ mtp + balance: what is minimised
    main: float  # next-token cross-entropy
    mtp: tuple[float, ...]  # cross-entropy of each depth, eq. 24
    balance: float  # α Σ_layers L_bal
    counts: Array  # (MoE layers, E) int: tokens sent to each expert, MTP modules' layers last


class SavedDepth(NamedTuple):
    """One pass through the head, and through the MTP module before it (depth 0 has none)."""

    embedding: Any
    module: Any
    head: Any
    loss: Any


class Saved(NamedTuple):
    embedding: Any
    blocks: list
    norm: Any
    depths: list[SavedDepth]


class DeepSeekV3:
    """The model. All arrays have ``dtype``: float32 to train, float64 to check gradients."""

    def __init__(self, config: ModelConfig, seed: int | np.random.Generator | None = 0, dtype=np.float32):
        """``seed`` draws the initial weights; None leaves them zero, for a caller who has others."""
        self.config = config
        self.dtype = np.dtype(dtype)
        if self.dtype not in (np.float32, np.float64):
            raise refuse("dtype", str(self.dtype), "weights are float32, or float64 to check gradients")
        whole = isinstance(seed, int | np.integer) and seed >= 0
        if not (seed is None or whole or isinstance(seed, np.random.Generator)):
            raise refuse("seed", seed, "must be a whole number from 0 on, a numpy Generator, or None for weights of 0")
        self.tokenizer = None  # set by `minids.load` where the folder has one
        self._build(Parameters())
        self.parameters.allocate(self.dtype)
        if seed is not None:
            self.parameters.initialise(np.random.default_rng(seed), config.initializer_range)
        self._rotary = rotary(config, np.arange(0), self.dtype)

    @classmethod
    def declared(cls, config: ModelConfig) -> Parameters:
        """The names and shapes of all parameters, without a weight: for 671 billion of them too."""
        model = cls.__new__(cls)
        model.config = config
        model._build(Parameters())
        return model.parameters

    def sharing_weights(self) -> DeepSeekV3:
        """Another model on the same weights and routing biases, with gradients of its own: for another thread."""
        other = DeepSeekV3.__new__(DeepSeekV3)
        other.config, other.dtype, other.tokenizer, other._rotary = self.config, self.dtype, self.tokenizer, self._rotary
        other._build(Parameters())
        other.parameters.allocate(self.dtype, self.parameters.values)
        other.parameters.buffers.update(self.parameters.buffers)
        return other

    def _build(self, parameters: Parameters):
        self.parameters = parameters
        c, p = self.config, self.parameters
        self.embed_tokens = Embedding(p, "model.embed_tokens", c.vocab_size, c.hidden_size)
        self.blocks = [Block(c, p, index) for index in range(c.num_hidden_layers)]
        self.norm = RMSNorm(p, "model.norm", c.hidden_size, c.rms_norm_eps)
        if c.tie_word_embeddings:
            self.head = Linear.__new__(Linear)
            self.head.weight, self.head.bias = self.embed_tokens.weight, None
        else:
            self.head = Linear(p, "lm_head", c.vocab_size, c.hidden_size)
        self.mtp = [MTPModule(c, p, depth) for depth in range(1, c.num_nextn_predict_layers + 1)]

    @property
    def moe_layers(self) -> list[MoE]:
        """Every layer with experts: the main model's in order, then those of the MTP modules."""
        return [b.moe for b in (*self.blocks, *(m.block for m in self.mtp)) if b.moe]

    # Forward.

    def logits(self, tokens: Array) -> Array:
        """tokens (B, T) int → logits of the next token after each, (B, T, V)."""
        tokens = self.check_tokens(tokens)
        return self.head.forward(self._hidden(tokens, None)[0])[0]

    def mtp_logits(self, tokens: Array) -> list[Array]:
        """tokens (B, T) → for each depth k the logits (B, T − k, V) of token i + k + 1."""
        tokens = self.check_tokens(tokens)
        self.check_length(tokens.shape[1], len(self.mtp))
        hidden = self._hidden(tokens, None)[0]
        out = []
        for depth, module in enumerate(self.mtp, start=1):
            hidden, _, _ = self._deeper(module, depth, tokens, hidden, None)
            out.append(self.head.forward(hidden)[0])
        return out

    def losses(self, tokens: Array, targets: Array, mtp: bool = True, chosen: list[Array] | None = None) -> Losses:
        """The losses of a batch, without gradients. ``mtp=False`` leaves the MTP modules out.

        tokens and targets (B, T): targets[b, t] is the token after tokens[b, t], or -100 where it does not count.
        ``chosen`` prescribes the experts of every MoE layer, as ``choices`` returns them.
        """
        return self.forward(tokens, targets, None, mtp, chosen)[0]

    def choices(self, tokens: Array, targets: Array) -> list[Array]:
        """The experts chosen in every MoE layer, (N, K) each: what ``chosen`` takes."""
        saved = self.forward(tokens, targets)[1]
        ffns = [s.ffn for s in saved.blocks] + [d.module.block.ffn for d in saved.depths[1:]]
        return [s.routing.chosen for s in ffns if hasattr(s, "routing")]

    # Backward.

    def loss_and_grads(
        self, tokens: Array, targets: Array, chosen: list[Array] | None = None
    ) -> tuple[Losses, dict[str, Array]]:
        """The losses of a batch and the gradient of their total by every parameter, by name."""
        self.parameters.zero_grads()
        losses = self.forward_backward(tokens, targets, chosen=chosen)
        return losses, {p.name: p.grad.copy() for p in self.parameters}

    def forward_backward(
        self,
        tokens: Array,
        targets: Array,
        weight: float = 1.0,
        mtp_loss_weight: float | None = None,
        chosen: list[Array] | None = None,
    ) -> Losses:
        """Add ``weight`` times the gradient of the total loss into every parameter's gradient.

        ``mtp_loss_weight`` is λ where a schedule moves it away from the configuration's.
        """
        if mtp_loss_weight is None:
            mtp_loss_weight = self.config.mtp_loss_weight
        losses, saved = self.forward(tokens, targets, mtp_loss_weight, True, chosen)
        depths = len(self.mtp)
        # From the deepest module up: d_hidden is the gradient of h^k, which depth k + 1 and the head at depth k both read.
        d_hidden = None
        for depth in range(depths, -1, -1):
            at = saved.depths[depth]
            d_loss = weight * (mtp_loss_weight / depths if depth else 1.0)
            d_logits = op.cross_entropy.backward(d_loss, at.loss)
            d_here = self.head.backward(d_logits, at.head).reshape(*self._shape(tokens, depth), -1)
            if d_hidden is not None:
                d_here[:, : d_hidden.shape[1]] += d_hidden  # the deeper module did not see the last position
            if depth:
                d_embedding, d_hidden = self.mtp[depth - 1].backward(d_here, at.module, weight)
                self.embed_tokens.backward(d_embedding, at.embedding)
        dx = self.norm.backward(d_here, saved.norm)
        for block, saved_block in zip(reversed(self.blocks), reversed(saved.blocks), strict=True):
            dx = block.backward(dx, saved_block, weight)
        self.embed_tokens.backward(dx, saved.embedding)
        return losses

    # The balancing bias.

    def update_biases(self, counts: Array, speed: float) -> None:
        """After an optimizer step: counts (MoE layers, E) of the whole global batch, as summed from ``Losses.counts``."""
        if self.config.balance != "bias":
            return
        for layer, count in zip(self.moe_layers, counts, strict=True):
            layer.update_bias(count, speed)

    # Within.

    def _hidden(self, tokens: Array, chosen: list[Array] | None) -> tuple[Array, Any, list, Any]:
        """tokens (B, T) → h⁰ after the final norm (B, T, d), and what each step saved. Takes its choices off ``chosen``."""
        rotary = self.rotary(tokens.shape[1])
        x, saved_embedding = self.embed_tokens.forward(tokens)
        saved_blocks = []
        for block in self.blocks:
            x, saved = block.forward(x, rotary, chosen.pop(0) if chosen and block.moe else None)
            saved_blocks.append(saved)
        h, saved_norm = self.norm.forward(x)
        return h, saved_embedding, saved_blocks, saved_norm

    def _deeper(self, module: MTPModule, depth: int, tokens: Array, hidden: Array, chosen) -> tuple[Array, Any, Any]:
        """h^{k−1} → h^k (B, T − k, d): position i is shown token i + k."""
        embedding, saved_embedding = self.embed_tokens.forward(tokens[:, depth:])
        rotary = self.rotary(tokens.shape[1] - depth)
        choice = chosen.pop(0) if chosen and module.block.moe else None
        hidden, saved = module.forward(embedding, hidden[:, : embedding.shape[1]], rotary, choice)
        return hidden, saved_embedding, saved

    def forward(
        self,
        tokens: Array,
        targets: Array,
        mtp_loss_weight: float | None = None,
        mtp: bool = True,
        chosen: list[Array] | None = None,
    ) -> tuple[Losses, Saved]:
        """The losses of a batch, and all that the backward pass needs. Arguments as for ``losses``."""
        tokens, targets = self.check_tokens(tokens), self._checked_targets(tokens, targets)
        modules = self.mtp if mtp else []
        self.check_length(tokens.shape[1], len(modules))
        if mtp_loss_weight is None:
            mtp_loss_weight = self.config.mtp_loss_weight
        chosen = self._checked_choices(chosen, tokens, modules)
        hidden, saved_embedding, saved_blocks, saved_norm = self._hidden(tokens, chosen)
        divisor = max(int((targets != IGNORE).sum()), 1)  # eq. 24 divides every depth's loss by T, not by T − k
        losses, depths = [], []
        for depth in range(len(modules) + 1):
            if depth == 0:
                saved_look, saved_module = None, None
            else:
                hidden, saved_look, saved_module = self._deeper(modules[depth - 1], depth, tokens, hidden, chosen)
            logits, saved_head = self.head.forward(hidden.reshape(-1, hidden.shape[-1]))  # (B·(T − k), V)
            loss, saved_loss = op.cross_entropy.forward(logits, targets[:, depth:].reshape(-1), divisor)
            losses.append(loss)
            depths.append(SavedDepth(saved_look, saved_module, saved_head, saved_loss))
        moe = [s.ffn for s in saved_blocks] + [d.module.block.ffn for d in depths[1:]]
        moe = [s for s in moe if hasattr(s, "routing")]
        balance = sum(s.balance_loss for s in moe)
        counts = np.array([s.plan.counts for s in moe], dtype=np.int64).reshape(len(moe), self.config.n_routed_experts)
        mtp_loss = mtp_loss_weight * sum(losses[1:]) / len(modules) if modules else 0.0
        total = losses[0] + mtp_loss + balance
        return Losses(total, losses[0], tuple(losses[1:]), balance, counts), Saved(
            saved_embedding, saved_blocks, saved_norm, depths
        )

    def rotary(self, length: int) -> Rotary:
        """Angles of positions 0 … length − 1, kept from call to call."""
        known = len(self._rotary.cos)
        if known < length:  # twice as many as before: decoding asks for one more every time
            self._rotary = rotary(self.config, np.arange(max(length, 2 * known)), self.dtype)
        return self._rotary.first(length)

    @staticmethod
    def _shape(tokens: Array, depth: int) -> tuple[int, int]:
        return np.shape(tokens)[0], np.shape(tokens)[1] - depth

    @staticmethod
    def check_length(length: int, modules: int) -> None:
        """Refuse sequences too short for so many MTP modules."""
        if length <= modules:
            raise refuse("context_length", length, f"{modules} MTP modules look that far ahead; give at least one more")

    def check_tokens(self, tokens: Array) -> Array:
        """Tokens as an array; refused unless they are integers of shape (B, T), each inside the vocabulary."""
        tokens = _as_array(tokens, "tokens")
        if tokens.ndim != 2 or not np.issubdtype(tokens.dtype, np.integer):
            raise MinidsError(f"tokens: expected integers of shape (batch, time), got {tokens.dtype} of shape {tokens.shape}")
        if tokens.size == 0:
            raise MinidsError(f"tokens: nothing to read in shape {tokens.shape}; give at least one token")
        self._inside(tokens, tokens, "tokens")
        return tokens

    def _checked_targets(self, tokens: Array, targets: Array) -> Array:
        targets = _as_array(targets, "targets")
        if targets.shape != np.shape(tokens) or not np.issubdtype(targets.dtype, np.integer):
            raise MinidsError(
                f"targets: expected integers of the tokens' shape {np.shape(tokens)}, got {targets.dtype} of {targets.shape}"
            )
        self._inside(targets[targets != IGNORE], targets, "targets")
        return targets

    def _checked_choices(self, chosen, tokens: Array, modules: list[MTPModule]) -> list[Array] | None:
        """What ``choices`` returned for such tokens; the last ones may be those of MTP modules that are left out."""
        if chosen is None:
            return None
        (batch, time), c = tokens.shape, self.config
        sizes = [batch * time for block in self.blocks if block.moe]
        used = len(sizes) + sum(module.block.moe is not None for module in modules)
        sizes += [batch * (time - depth) for depth, module in enumerate(self.mtp, start=1) if module.block.moe]
        chosen = [np.asarray(choice) for choice in chosen]
        if len(chosen) not in (used, len(sizes)):
            given = f"those of {len(chosen)} layers"
            raise refuse("chosen", given, f"there are {used} layers with experts; give one array for each")
        for layer, (choice, size) in enumerate(zip(chosen, sizes, strict=False)):
            expected = size, c.num_experts_per_tok
            if choice.shape != expected or not np.issubdtype(choice.dtype, np.integer):
                what = f"{choice.dtype} of shape {choice.shape}"
                raise refuse(f"chosen[{layer}]", what, f"must be integers of shape {expected}, as choices() returns them")
            if choice.size and not 0 <= choice.min() <= choice.max() < c.n_routed_experts:
                bad = int(choice.min() if choice.min() < 0 else choice.max())
                raise refuse(f"chosen[{layer}]", bad, f"experts of this model run from 0 to {c.n_routed_experts - 1}")
        return chosen

    def _inside(self, ids: Array, whole: Array, name: str) -> None:
        vocabulary = self.config.vocab_size
        if ids.size and (ids.min() < 0 or ids.max() >= vocabulary):
            bad = int(ids.min() if ids.min() < 0 else ids.max())
            where = tuple(int(i) for i in np.argwhere(whole == bad)[0])
            raise refuse(f"{name}{list(where)}", bad, f"token ids of this model run from 0 to {vocabulary - 1}")


def _as_array(ids, name: str) -> Array:
    try:
        return np.asarray(ids)
    except ValueError as error:  # NumPy's answer to rows of different lengths
        raise MinidsError(f"{name}: every sequence of a batch must have the same length; pad or cut them") from error
