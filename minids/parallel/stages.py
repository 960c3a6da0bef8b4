"""A model cut into pipeline stages: neighbouring blocks each, the embedding with the first, norm, heads and MTP with the last.

    stage 0:      tokens (B, T) → Embedding → its blocks → x (B, T, d)
    stage s:      x → its blocks → x
    stage P − 1:  x → its blocks → norm → head and MTP modules → losses

An MTP module counts as a block when the blocks are shared out, for it costs as much. It looks tokens up in the embedding of the
first stage and reads out by the head of the last (V3 section 3.2.3: both lie on one device, "physically shared"). So does a
device here that holds both stages, as DualPipe's outermost ones do; elsewhere the last stage has a copy of the embedding, and
the gradients of the two are added.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minids.backend import op
from minids.blas import one_blas_thread
from minids.config import ModelConfig
from minids.errors import refuse
from minids.layers import moe
from minids.layers.parameters import Array, Parameters
from minids.model import DeepSeekV3, Losses, Objective, Packing, SavedBlock, SavedHead, SavedModule
from minids.parallel.communicator import even_bounds


class Part(NamedTuple):
    """What one stage has of the losses of a micro-batch; what it has not is 0, so that parts add up to the whole."""

    cross_entropies: Array  # (1 + D,) of the head and of each MTP module
    balance: float
    counts: Array  # (MoE layers of the model, E)

    def plus(self, more: Part) -> Part:
        return Part(self.cross_entropies + more.cross_entropies, self.balance + more.balance, self.counts + more.counts)


class SavedStage(NamedTuple):
    """What a stage's ``backward`` needs, as ``model.Saved``; None and nothing where it has no such part."""

    embedding: op.embedding.Saved | None
    blocks: list[SavedBlock]
    norm: op.rmsnorm.Saved | None
    modules: list[SavedModule]
    heads: list[SavedHead]
    mtp_loss_weight: float
    part: Part
    objective: Objective | None = None


def bounds(config: ModelConfig, stages: int) -> list[int]:
    """Stage s has the layers bounds[s] … bounds[s + 1] − 1, MTP modules last."""
    layers = config.num_hidden_layers + config.num_nextn_predict_layers
    if not 1 <= stages <= layers:
        mtp = config.num_nextn_predict_layers
        what = f"{config.num_hidden_layers} blocks and {mtp} MTP module{'s' * (mtp != 1)}"
        raise refuse("stages", stages, f"a model of {what} has 1 to {layers} stages")
    found = even_bounds(layers, stages)
    if found[stages - 1] > config.num_hidden_layers:
        raise refuse("stages", stages, "would part the MTP modules, which the last stage has all of; take fewer stages")
    return found


def has(config: ModelConfig, stages: int, stage: int, name: str) -> bool:
    """Whether a parameter or buffer of this name belongs to the stage."""
    if name.startswith("model.layers."):
        ends = bounds(config, stages)
        return ends[stage] <= int(name.split(".")[2]) < ends[stage + 1]
    if name.startswith("model.embed_tokens."):
        looked_up = config.num_nextn_predict_layers > 0 and not config.mtp_own_matrices
        return stage == 0 or (stage == stages - 1 and (looked_up or config.tie_word_embeddings))
    return stage == stages - 1  # model.norm, lm_head


def skeleton(config: ModelConfig, stages: int, held: tuple[int, ...], dtype: np.dtype) -> DeepSeekV3:
    """A model that has the parameters of the stages ``held`` and no others, all 0."""
    model = DeepSeekV3(config, dtype=dtype, parameters=Parameters())
    model.parameters.keep(lambda name: any(has(config, stages, stage, name) for stage in held))
    model.parameters.allocate(dtype)
    return model


class Stage:
    """Stage ``index`` of ``stages``, by the layers of a ``skeleton`` that holds it."""

    def __init__(self, model: DeepSeekV3, stages: int, index: int):
        self.model, self.index = model, index
        self.first, self.last = index == 0, index == stages - 1
        ends = bounds(model.config, stages)
        self.blocks = model.blocks[ends[index] : ends[index + 1]]
        self._moe_before = sum(map(model.config.is_moe, range(ends[index])))

    @one_blas_thread()
    def forward(
        self, x: Array | None, tokens: Array, targets: Array, mtp_loss_weight: float
    ) -> tuple[Array | None, SavedStage]:
        """x (B, T, d), None for the first stage → x for the next one, None from the last."""
        model = self.model
        packing = Packing(model.rotary(tokens.shape[1]))
        saved_embedding, saved_norm, saved_blocks = None, None, []
        if x is None:
            x, saved_embedding = model.embed_tokens.forward(tokens)
        for block in self.blocks:
            x, saved = block.forward(x, packing.rotary)
            saved_blocks.append(saved)
        losses = [0.0] * (1 + len(model.mtp))
        modules: list[SavedModule] = []
        heads: list[SavedHead] = []
        if self.last:
            h, saved_norm = model.norm.forward(x)
            losses, modules, heads = model.read_out(tokens, targets, h, packing, len(model.mtp))
        ffns = [saved.ffn for saved in (*saved_blocks, *(m.module.block for m in modules))]
        routed = [ffn for ffn in ffns if isinstance(ffn, moe.Saved)]
        counts = np.zeros((len(model.moe_layers), model.config.n_routed_experts), np.int64)
        for layer, ffn in enumerate(routed, self._moe_before):
            counts[layer] = ffn.plan.counts
        part = Part(np.array(losses), float(sum(ffn.balance_loss for ffn in routed)), counts)
        saved_stage = SavedStage(saved_embedding, saved_blocks, saved_norm, modules, heads, mtp_loss_weight, part)
        return None if self.last else x, saved_stage

    @one_blas_thread()
    def backward(self, dx: Array | None, saved: SavedStage, weight: float) -> Array | None:
        """dx (B, T, d) from the next stage, None for the last one → for the stage before, None from the first. Adds ``weight``
        times the gradients of the parameters; within ``weights_put_off`` those of matrices are put off."""
        model = self.model
        if saved.norm is not None:
            dx = model.norm.backward(model.read_out_backward(saved, weight), saved.norm)
        assert dx is not None, "a stage before the last needs the gradient of what it gave"
        for block, saved_block in zip(reversed(self.blocks), reversed(saved.blocks), strict=True):
            dx = block.backward(dx, saved_block, weight)
        if saved.embedding is None:
            return dx
        model.embed_tokens.backward(dx, saved.embedding)
        return None


def whole(part: Part, mtp_loss_weight: float) -> Losses:
    """The losses of a micro-batch, from the sum of its parts."""
    main, *mtp = part.cross_entropies.tolist()
    of_mtp = mtp_loss_weight * sum(mtp) / len(mtp) if mtp else 0.0
    return Losses(main + of_mtp + part.balance, main, tuple(mtp), part.balance, part.counts)
