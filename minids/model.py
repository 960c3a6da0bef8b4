"""DeepSeek-V3: embedding, blocks, norm, head, and the multi-token-prediction modules that branch off at the end.

    tokens (B, T) → Embedding → L × Block → norm → h⁰ → head → logits (B, T, V)
    depth k = 1 … D:  Emb(t_{i+k}), h^{k−1} → MTP module k → h^k → the same head → logits of t_{i+k+1}

    loss = L_main + λ/D Σ_k L^k + α Σ_layers L_bal        eqs 24, 25 and 17

The backward pass is the same list read upwards; each of the D + 1 uses of embedding and head adds its share to their gradients.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from minids import arguments
from minids.backend import op
from minids.blas import one_blas_thread
from minids.config import ModelConfig
from minids.errors import refuse
from minids.layers import block, moe, mtp
from minids.layers.basic import Embedding, Linear, RMSNorm, SavedLinear
from minids.layers.parameters import Array, Parameters
from minids.layers.positions import Rotary, rotary, sample_starts
from minids.model_checks import (
    check_choices,
    check_length,
    check_recompute,
    check_segments,
    check_targets,
    check_tokens,
    checked_dtype,
)
from minids.words import table

SavedBlock: TypeAlias = "block.Saved | block.Kept"  # the second with recomputation
IGNORE = op.cross_entropy.IGNORE


class Losses(NamedTuple):
    """What one batch cost, in nats per token."""

    total: float  # main + λ/D Σ mtp + balance: what is minimised
    main: float  # next-token cross-entropy
    mtp: tuple[float, ...]  # cross-entropy of each depth, eq. 24
    balance: float  # α Σ_layers L_bal
    counts: Array  # (MoE layers, E) int: tokens sent to each expert, MTP modules' layers last


class Objective(Protocol):
    """What is minimised instead of the next token's cross-entropy: a policy loss, say. The balance loss is then left out, and
    targets say what the MTP modules have to guess."""

    def forward(self, logits: Array) -> tuple[float, Any]:
        """logits (B·T, V) of all positions → the loss, and what ``backward`` needs."""

    def backward(self, d_loss: float, saved: Any) -> Array:
        """dL → d_logits (B·T, V)."""


class Packing(NamedTuple):
    """How a batch's tokens lie in their sequences."""

    rotary: Rotary
    starts: Array | None = None  # (B, T) where each token's sample begins; None where a sequence is one
    segments: Array | None = None  # (B, T) the number of its sample

    def first(self, count: int) -> Packing:
        """Of the first ``count`` positions."""
        starts, segments = (None if a is None else a[:, :count] for a in (self.starts, self.segments))
        return Packing(self.rotary.first(count), starts, segments)


class SavedModule(NamedTuple):
    embedding: op.embedding.Saved
    module: mtp.Saved
    readout: op.rmsnorm.Saved | None = None


class SavedHead(NamedTuple):
    shape: tuple[int, int]  # (B, T − k) of the states that it reads
    head: SavedLinear
    loss: Any  # what op.cross_entropy saved, or the objective


class SavedReadOut(Protocol):
    """What ``read_out_backward`` needs: ``Saved``, or a pipeline stage's."""

    @property
    def modules(self) -> list[SavedModule]: ...
    @property
    def heads(self) -> list[SavedHead]: ...
    @property
    def mtp_loss_weight(self) -> float: ...
    @property
    def objective(self) -> Objective | None: ...


class Saved(NamedTuple):
    """What ``backward`` needs of a ``forward`` pass."""

    embedding: op.embedding.Saved
    blocks: list[SavedBlock]
    norm: op.rmsnorm.Saved
    modules: list[SavedModule]
    heads: list[SavedHead]
    mtp_loss_weight: float  # λ
    objective: Objective | None = None

    @property
    def moe(self) -> list[moe.Saved]:
        """Of every layer with experts, those of the MTP modules last."""
        ffns = [saved.ffn for saved in (*self.blocks, *(m.module.block for m in self.modules))]
        return [ffn for ffn in ffns if isinstance(ffn, moe.Saved)]


class DeepSeekV3:
    """The model. All arrays have ``dtype``: float32 to train, float64 to check gradients."""

    def __init__(
        self,
        config: ModelConfig,
        seed: int | np.random.Generator | None = 0,
        dtype: DTypeLike = np.float32,
        parameters: Parameters | None = None,
    ):
        """``seed`` draws the initial weights; None leaves them zero. ``parameters``: build on these, as they are."""
        arguments.instance("config", config, ModelConfig, "a ModelConfig, such as minids.ModelConfig.preset('tiny')")
        self.config, self.dtype = config, checked_dtype(dtype)
        whole = isinstance(seed, int | np.integer) and not isinstance(seed, bool) and seed >= 0
        if not (seed is None or whole or isinstance(seed, np.random.Generator)):
            raise refuse("seed", seed, "must be a whole number from 0 on, a numpy Generator, or None for weights of 0")
        self.tokenizer: Any = None  # set by `minids.load` where the folder has one
        self.generation: Any = None  # likewise how it was meant to generate: a `checkpoint.generation_json.Generation`
        self._rotary = rotary(config, np.arange(0), self.dtype)

        self.parameters = p = Parameters() if parameters is None else parameters
        self.embed_tokens = Embedding(p, "model.embed_tokens", config.vocab_size, config.hidden_size)
        self.blocks = [block.Block(config, p, index) for index in range(config.num_hidden_layers)]
        self.norm = RMSNorm(p, "model.norm", config.hidden_size, config.rms_norm_eps)
        self.head = self.make_head(p)
        self.mtp = [mtp.MTPModule(config, p, depth) for depth in range(1, config.num_nextn_predict_layers + 1)]
        if parameters is None:
            p.allocate(self.dtype)
            if seed is not None:
                p.initialise(np.random.default_rng(seed), config.initializer_range)

    def make_head(self, parameters: Parameters) -> Linear:
        """What reads the final states. A reward model has another."""
        c, tied = self.config, self.embed_tokens.weight if self.config.tie_word_embeddings else None
        return Linear(parameters, "lm_head", c.vocab_size, c.hidden_size, weight=tied)

    def __repr__(self) -> str:
        """A short table: what the model is made of, with the number of its parameters."""
        c, sizes = self.config, dict.fromkeys(("embedding", "blocks", "head", "MTP modules"), 0)
        for p in self.parameters:
            layer = int(p.name.split(".")[2]) if p.name.startswith("model.layers.") else None
            part = "blocks" if layer is not None and layer < c.num_hidden_layers else "MTP modules"
            part = part if layer is not None else "embedding" if p.name.startswith("model.embed") else "head"
            sizes[part] += p.size
        dense = c.first_k_dense_replace
        what = {
            "embedding": f"{c.vocab_size:,} × {c.hidden_size:,}",
            "blocks": f"{c.num_hidden_layers} of {c.attention}, {dense} dense and {c.num_hidden_layers - dense} with experts",
            "head": "the embedding's" if c.tie_word_embeddings else f"a norm and {c.vocab_size:,} × {c.hidden_size:,}",
            "MTP modules": f"{c.num_nextn_predict_layers}",
        }
        rows = [(part, what[part], f"{size:,}") for part, size in sizes.items()]
        total = f"DeepSeekV3: {sum(sizes.values()):,} parameters, {self.dtype.name}"
        return f"{total}\n{table(rows, align='llr')}"

    @classmethod
    def declared(cls, config: ModelConfig) -> Parameters:
        """The names and shapes of all parameters, without a weight: for 671 billion of them too."""
        return cls(config, parameters=Parameters()).parameters

    def embedding_of(self, depth: int) -> Embedding:
        """What MTP module ``depth`` looks its tokens up in."""
        return self.mtp[depth - 1].embed_tokens or self.embed_tokens

    def head_of(self, depth: int) -> Linear:
        """What reads the states of MTP module ``depth``; of the main model for 0."""
        return (self.mtp[depth - 1].head if depth else None) or self.head

    def sharing_weights(self) -> DeepSeekV3:
        """Another model on the same weights and routing biases, with gradients of its own: for another thread."""
        other = DeepSeekV3(self.config, dtype=self.dtype, parameters=self.parameters.shared())
        other.tokenizer, other.generation = self.tokenizer, self.generation
        other._rotary, other.recompute = self._rotary, self.recompute
        return other

    @property
    def recompute(self) -> bool:
        """Whether the backward pass forms again what the forward pass then need not keep: see ``layers/recompute``."""
        return self.blocks[0].recompute

    @recompute.setter
    def recompute(self, on: bool) -> None:
        check_recompute(self.config, on)
        for each in (*self.blocks, *(module.block for module in self.mtp)):
            each.recompute = on

    @property
    def moe_layers(self) -> list[moe.MoE]:
        """Every layer with experts: the main model's in order, then those of the MTP modules."""
        return self.moe_layers_at_work(mtp=True)

    def moe_layers_at_work(self, mtp: bool) -> list[moe.MoE]:
        """The same; without ``mtp``, those of the main model alone."""
        modules = self.mtp if mtp else []
        return [b.moe for b in (*self.blocks, *(m.block for m in modules)) if b.moe]

    @one_blas_thread()
    def forward(
        self,
        tokens: ArrayLike,
        targets: ArrayLike,
        mtp_loss_weight: float | None = None,
        mtp: bool = True,
        objective: Objective | None = None,
        segments: ArrayLike | None = None,
        restart: bool = True,
    ) -> tuple[Losses, Saved]:
        """tokens and targets (B, T) int → the losses, and what ``backward`` needs. targets[b, t] comes after tokens[b, t],
        or -100 where it does not count. ``mtp_loss_weight``: λ, if not the configuration's; ``mtp=False``: no MTP modules.
        ``objective``: what is minimised instead of the main model's cross-entropy. ``segments`` (B, T) int: the number of the
        sample that each token belongs to, where several lie packed in a sequence: none sees another (V3 section 5.1). With
        ``restart`` each sample's positions begin at 0."""
        tokens = check_tokens(self.config, tokens)
        targets = check_targets(self.config, tokens, targets)
        if objective is not None and not all(hasattr(objective, name) for name in ("forward", "backward")):
            raise refuse("objective", objective, "must have forward and backward, as minids.model.Objective says")
        modules = self.mtp if arguments.switch("mtp", mtp) else []
        check_length(tokens.shape[1], len(modules))
        weight = (
            self.config.mtp_loss_weight if mtp_loss_weight is None else arguments.number("mtp_loss_weight", mtp_loss_weight)
        )
        packing = self.packing(tokens, segments, restart)
        hidden, saved_embedding, saved_blocks, saved_norm = self.hidden_states(tokens, packing)
        losses, saved_modules, saved_heads = self.read_out(tokens, targets, hidden, packing, len(modules), objective)
        saved = Saved(saved_embedding, saved_blocks, saved_norm, saved_modules, saved_heads, weight, objective)
        counts = np.array([s.plan.counts for s in saved.moe], dtype=np.int64).reshape(-1, self.config.n_routed_experts)
        balance = 0.0 if objective else sum(s.balance_loss for s in saved.moe)
        mtp_loss = weight * sum(losses[1:]) / len(modules) if modules else 0.0
        return Losses(losses[0] + mtp_loss + balance, losses[0], tuple(losses[1:]), balance, counts), saved

    def read_out(
        self, tokens: Array, targets: Array, hidden: Array, packing: Packing, depths: int, objective: Objective | None = None
    ) -> tuple[list[float], list[SavedModule], list[SavedHead]]:
        """h⁰ (B, T, d) after the final norm → the cross-entropy of head and of each of ``depths`` MTP modules, and what
        ``read_out_backward`` needs."""
        divisor = max(int((targets != IGNORE).sum()), 1)  # eq. 24 divides every depth's loss by T, not by T − k
        losses, saved_modules, saved_heads = [], [], []
        for depth in range(depths + 1):
            read = hidden  # by the head
            if depth:
                hidden, saved_module = self.deeper(depth, tokens, hidden, packing)
                read, saved_readout = self.mtp[depth - 1].readout(hidden)
                saved_modules.append(saved_module._replace(readout=saved_readout))
            logits, saved_head = self.head_of(depth).forward(read.reshape(-1, read.shape[-1]))  # (B·(T − k), V)
            saved_loss: Any
            if objective is not None and not depth:
                loss, saved_loss = objective.forward(logits)
            else:
                goals = targets[:, depth:]
                if depth and packing.segments is not None:  # a module at the end of a sample is shown the next one's tokens
                    same = packing.segments[:, depth:] == packing.segments[:, :-depth]
                    goals = np.where(same, goals, IGNORE)
                loss, saved_loss = op.cross_entropy.forward(logits, goals.reshape(-1), divisor)
            losses.append(loss)
            saved_heads.append(SavedHead(hidden.shape[:2], saved_head, saved_loss))
        return losses, saved_modules, saved_heads

    @one_blas_thread()
    def backward(self, saved: Saved, weight: float = 1.0) -> None:
        """Add ``weight`` times the gradient of the total loss into every parameter's gradient. Of several threads that do so
        one waits for the other: there is one set of gradients. ``sharing_weights`` gives each its own, to work side by side."""
        arguments.instance("saved", saved, Saved, "what forward returned beside the losses")
        arguments.number("weight", weight, -math.inf)
        with self.parameters.lock:
            self._backward(saved, weight)

    def _backward(self, saved: Saved, weight: float) -> None:
        balance_weight = 0.0 if saved.objective else weight
        dx = self.norm.backward(self.read_out_backward(saved, weight), saved.norm)
        for layer, saved_block in zip(reversed(self.blocks), reversed(saved.blocks), strict=True):
            dx = layer.backward(dx, saved_block, balance_weight)
        self.embed_tokens.backward(dx, saved.embedding)

    def read_out_backward(self, saved: SavedReadOut, weight: float) -> Array:
        """→ dh⁰ (B, T, d), of head and MTP modules."""
        depths, objective = len(saved.modules), saved.objective
        balance_weight = 0.0 if objective else weight
        d_deeper = None
        # From the deepest module up: d_hidden is the gradient of h^k, which the head at depth k and module k + 1 both read.
        for depth in range(depths, -1, -1):
            shape, saved_head, saved_loss = saved.heads[depth]
            d_loss = weight * (saved.mtp_loss_weight / depths if depth else 1.0)
            if objective is not None and not depth:
                d_logits = objective.backward(d_loss, saved_loss)
            else:
                d_logits = op.cross_entropy.backward(d_loss, saved_loss)
            d_hidden = self.head_of(depth).backward(d_logits, saved_head).reshape(*shape, -1)
            if depth:
                d_hidden = self.mtp[depth - 1].readout_backward(d_hidden, saved.modules[depth - 1].readout)
            if d_deeper is not None:
                d_hidden[:, : d_deeper.shape[1]] += d_deeper  # the deeper module did not see the last position
            if depth:
                saved_embedding, saved_module, _ = saved.modules[depth - 1]
                d_embedding, d_deeper = self.mtp[depth - 1].backward(d_hidden, saved_module, balance_weight)
                self.embedding_of(depth).backward(d_embedding, saved_embedding)
        return d_hidden

    def forward_backward(
        self,
        tokens: ArrayLike,
        targets: ArrayLike,
        weight: float = 1.0,
        mtp_loss_weight: float | None = None,
        mtp: bool = True,
        objective: Objective | None = None,
        segments: ArrayLike | None = None,
        restart: bool = True,
    ) -> Losses:
        """Both. Arguments as above."""
        losses, saved = self.forward(tokens, targets, mtp_loss_weight, mtp, objective, segments, restart)
        self.backward(saved, weight)
        return losses

    def update_biases(self, counts: Array, speed: float) -> None:
        """After an optimizer step: counts (MoE layers, E) of the whole global batch, as summed from ``Losses.counts``.
        Layers of MTP modules that rested have none, and keep their biases."""
        arguments.number("speed", speed)
        main, every = (self.moe_layers_at_work(mtp) for mtp in (False, True))
        layers = main if np.shape(counts)[:1] == (len(main),) else every
        wanted = (len(layers), self.config.n_routed_experts)
        if np.shape(counts) != wanted or np.asarray(counts).dtype.kind not in "iuf":
            raise refuse("counts", f"of shape {np.shape(counts)}", f"must be numbers of shape {wanted}, as Losses.counts")
        if self.config.balance == "bias":
            for layer, count in zip(layers, counts, strict=True):
                layer.update_bias(count, speed)

    @one_blas_thread()
    def logits(self, tokens: ArrayLike) -> Array:
        """tokens (B, T) int → logits of the next token after each, (B, T, V)."""
        tokens = check_tokens(self.config, tokens)
        return self.head.forward(self.hidden_states(tokens)[0])[0]

    @one_blas_thread()
    def mtp_logits(self, tokens: ArrayLike) -> list[Array]:
        """tokens (B, T) → for each depth k the logits (B, T − k, V) of token i + k + 1."""
        tokens = check_tokens(self.config, tokens)
        check_length(tokens.shape[1], len(self.mtp))
        hidden, out = self.hidden_states(tokens)[0], []
        for depth in range(1, len(self.mtp) + 1):
            hidden, _ = self.deeper(depth, tokens, hidden)
            out.append(self.head_of(depth).forward(self.mtp[depth - 1].readout(hidden)[0])[0])
        return out

    def losses(self, tokens: ArrayLike, targets: ArrayLike, mtp: bool = True) -> Losses:
        """The losses of a batch, without gradients. Arguments as for ``forward``."""
        return self.forward(tokens, targets, mtp=mtp)[0]

    def loss_and_grads(self, tokens: ArrayLike, targets: ArrayLike) -> tuple[Losses, dict[str, Array]]:
        """The losses of a batch and the gradient of their total by every parameter, by name. Threads may call it at once."""
        with self.parameters.lock:
            self.parameters.zero_grads()
            losses = self.forward_backward(tokens, targets)
            return losses, {p.name: p.grad.copy() for p in self.parameters}

    def choices(self, tokens: ArrayLike, targets: ArrayLike) -> list[Array]:
        """The experts chosen in every MoE layer, (N, K) each: what ``routing_fixed`` takes."""
        return [s.routing.chosen for s in self.forward(tokens, targets)[1].moe]

    @one_blas_thread()
    def hidden_states(
        self, tokens: Array, packing: Packing | None = None
    ) -> tuple[Array, op.embedding.Saved, list[SavedBlock], op.rmsnorm.Saved]:
        """tokens (B, T) → h⁰ after the final norm (B, T, d), and what each step saved."""
        rotary, starts, _ = packing or Packing(self.rotary(tokens.shape[1]))
        x, saved_embedding = self.embed_tokens.forward(tokens)
        saved_blocks = []
        for layer in self.blocks:
            x, saved = layer.forward(x, rotary, starts)
            saved_blocks.append(saved)
        h, saved_norm = self.norm.forward(x)
        return h, saved_embedding, saved_blocks, saved_norm

    @one_blas_thread()
    def deeper(self, depth: int, tokens: Array, hidden: Array, packing: Packing | None = None) -> tuple[Array, SavedModule]:
        """h^{k−1} → h^k (B, T − k, d) by module k = ``depth``: position i is shown token i + k."""
        embedding, saved_embedding = self.embedding_of(depth).forward(tokens[:, depth:])
        time = embedding.shape[1]
        rotary, starts, _ = (packing or Packing(self.rotary(time))).first(time)
        hidden, saved = self.mtp[depth - 1].forward(embedding, hidden[:, :time], rotary, starts)
        return hidden, SavedModule(saved_embedding, saved)

    def packing(self, tokens: Array, segments: ArrayLike | None = None, restart: bool = True) -> Packing:
        """Positions and samples of tokens (B, T), as ``forward`` takes them."""
        angles = self.rotary(tokens.shape[1])
        arguments.switch("restart", restart)
        if segments is None:
            return Packing(angles)
        segments = check_segments(tokens, segments)
        starts = sample_starts(segments)
        positions = np.arange(tokens.shape[1]) - starts
        return Packing(angles.at(positions) if restart else angles, starts, segments)

    def rotary(self, length: int) -> Rotary:
        """Angles of positions 0 … length − 1, kept from call to call."""
        kept = self._rotary  # looked up once: another thread may put a shorter one in its place meanwhile
        if len(kept.cos) < length:  # twice as many as before: decoding asks for one more every time
            kept = self._rotary = rotary(self.config, np.arange(max(length, 2 * len(kept.cos))), self.dtype)
        return kept.first(length)


@contextmanager
def routing_fixed(model: DeepSeekV3, chosen: Sequence[ArrayLike | None]) -> Iterator[None]:
    """In its block tokens go to the experts ``chosen``, as ``model.choices`` returned them: a choice is a step function, and
    to compare losses at neighbouring weights it has to be held still. Layers with None choose for themselves."""
    layers = model.moe_layers
    arrays = check_choices(model.config, len(layers), chosen)
    before = [layer.fixed_choice for layer in layers]
    try:
        for layer, choice in zip(layers, arrays, strict=True):
            layer.fixed_choice = choice
        yield
    finally:
        for layer, earlier in zip(layers, before, strict=True):
            layer.fixed_choice = earlier
