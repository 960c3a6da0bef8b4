"""What every parameter is called, what shape it has, and how many there are: in all, and at work on one token.

Names and shapes are those that the layers declare (``DeepSeekV3.declared``, which allocates nothing): the model that is counted
is the model that is built. Here each tensor is given the part of the model it is counted under.

Symbols: d model, d_c KV latent, d_c' query latent, d_r RoPE, d_h head, H heads, E experts, K chosen, V vocabulary, L layers.
Per layer (DeepSeek-V2 report, appendix C; DeepSeek-V3 report, section 2.1):

    MLA    d·d_c' + d_c' + d_c'·H(d_nope + d_r) + d(d_c + d_r) + d_c + d_c·H(d_nope + d_v) + H·d_v·d
    norms  2d
    dense  3·d·I
    MoE    (E + N_s)·3·d·I_m + E·d + E        the last E is the routing bias, a buffer that no optimizer touches
"""

from collections.abc import Iterator
from functools import lru_cache
from math import prod
from typing import NamedTuple

from minids.config import ModelConfig
from minids.model import DeepSeekV3

Shape = tuple[int, ...]


class Tensor(NamedTuple):
    """One tensor: its name (below its layer, or in full outside of one), its shape, and the part it is counted under."""

    name: str
    shape: Shape
    part: str = ""
    layer: int | None = None

    @property
    def size(self) -> int:
        return prod(self.shape)


class Part(NamedTuple):
    """All parameters of one kind in the whole model."""

    name: str
    total: int
    activated: int  # of these, at work in the forward pass of one token
    formula: str


ROUTED, ROUTING_BIAS, ROUTER = "routed experts", "routing bias", "router"

_FORMULAS = {
    "embedding": "V·d",
    "head": "V·d (none of its own when tied to the embedding)",
    "final norm": "d",
    "block norms": "L·2d",
    "q_a_proj": "L·d·d_c'",
    "q_a_layernorm": "L·d_c'",
    "q_b_proj": "L·d_c'·H(d_nope + d_r)",
    "q_proj": "L·d·H(d_nope + d_r)",
    "kv_a_proj_with_mqa": "L·d(d_c + d_r)",
    "kv_a_layernorm": "L·d_c",
    "kv_b_proj": "L·d_c·H(d_nope + d_v)",
    "k_proj": "L·d·H_kv(d_nope + d_r)",
    "v_proj": "L·d·H_kv·d_v",
    "o_proj": "L·H·d_v·d",
    "dense FFN": "L_dense·3·d·I",
    ROUTER: "L_moe·E·d",
    ROUTING_BIAS: "L_moe·E, a buffer",
    "shared experts": "L_moe·N_s·3·d·I_m",
    ROUTED: "L_moe·E·3·d·I_m; activated: K of E",
    "MTP block": "D·(norms + attention + FFN of one block); activated: K of E experts",
    "MTP eh_proj": "D·2d·d",
    "MTP norms": "D·3d (enorm, hnorm, shared_head.norm)",
    "MTP embeddings and heads": "D·2·V·d, where they are not the main model's",
}
_PARTS = {
    "model.embed_tokens": "embedding", "model.norm": "final norm", "lm_head": "head",
    "input_layernorm": "block norms", "post_attention_layernorm": "block norms",
    "mlp.experts": ROUTED, "mlp.shared_experts": "shared experts", "mlp.gate.weight": ROUTER,
    "mlp.gate.e_score_correction_bias": ROUTING_BIAS, "mlp": "dense FFN",
    "eh_proj": "MTP eh_proj", "enorm": "MTP norms", "hnorm": "MTP norms", "shared_head.norm": "MTP norms",
    "embed_tokens": "MTP embeddings and heads", "shared_head.head": "MTP embeddings and heads",
}  # fmt: skip
"""First words of a name → the part; in attention every projection is a part of its own."""


def _part(name: str) -> str:
    if name.startswith("self_attn."):
        return name.split(".")[1]
    return next(part for beginning, part in _PARTS.items() if name.startswith(f"{beginning}.") or name == beginning)


@lru_cache(maxsize=64)
def tensors(config: ModelConfig) -> tuple[Tensor, ...]:
    """Every tensor, the routed experts of a layer stacked: (E, out, in). MTP modules are the layers after the last."""
    declared = DeepSeekV3.declared(config)
    found = []
    for p in declared:
        found.append(_tensor(p.name, p.shape))
        bias = p.name.replace(".weight", ".e_score_correction_bias")
        if bias in declared.buffers:
            found.append(_tensor(bias, declared.buffers[bias].shape))
    return tuple(found)


def _tensor(name: str, shape: Shape) -> Tensor:
    layer = None
    if name.startswith("model.layers."):
        number, name = name.removeprefix("model.layers.").split(".", 1)
        layer = int(number)
    return Tensor(name, shape, _part(name), layer)


def layer_tensors(config: ModelConfig, layer: int | None) -> list[Tensor]:
    """The tensors of one layer, or those outside of all layers."""
    return [t for t in tensors(config) if t.layer == layer]


def attention_tensors(config: ModelConfig) -> list[Tensor]:
    """Parameters of one attention layer, names below its block."""
    return [t for t in layer_tensors(config, 0) if t.name.startswith("self_attn.")]


def block_tensors(config: ModelConfig, moe: bool) -> list[Tensor]:
    """Parameters of the first block with experts, or without, as checkpoints have them: every expert by itself."""
    layer = next(layer for layer in range(config.num_hidden_layers) if config.is_moe(layer) == moe)
    return [one for t in layer_tensors(config, layer) for one in _one_by_one(t)]


def mtp_copies(config: ModelConfig) -> list[Tensor]:
    """The shared matrices that released checkpoints repeat in every MTP module; none where each has its own."""
    if config.mtp_own_matrices:
        return []
    shape, first = (config.vocab_size, config.hidden_size), config.num_hidden_layers
    layers = range(first, first + config.num_nextn_predict_layers)
    names = "embed_tokens.weight", "shared_head.head.weight"
    return [Tensor(name, shape, "MTP copies", layer) for layer in layers for name in names]


def parameter_shapes(config: ModelConfig, copies: bool = False) -> Iterator[tuple[str, Shape]]:
    """Every (name, shape) of the model in checkpoint naming, expert by expert, with the routing bias and ``mtp_copies``."""
    for stacked in (*tensors(config), *(mtp_copies(config) if copies else ())):
        for t in _one_by_one(stacked):
            yield t.name if t.layer is None else f"model.layers.{t.layer}.{t.name}", t.shape


def _one_by_one(tensor: Tensor) -> list[Tensor]:
    """Stacked experts one after another; any other tensor as it is."""
    if tensor.part != ROUTED:
        return [tensor]
    name, shape = tensor.name.removeprefix("mlp.experts."), tensor.shape[1:]
    return [tensor._replace(name=f"mlp.experts.{e}.{name}", shape=shape) for e in range(tensor.shape[0])]


@lru_cache(maxsize=64)
def parts(config: ModelConfig) -> tuple[Part, ...]:
    """Parameters of the whole model by part, in the order a batch meets them, MTP last; parts of size 0 are left out.

    The embedding is listed as activated in full; which of embedding and head count is for ``activated`` to say.
    """
    sizes: dict[str, list[int]] = {}
    for t in tensors(config):
        part = t.part
        if t.layer is not None and t.layer >= config.num_hidden_layers:
            sizes.setdefault("MTP block", [0, 0])
            part = part if part.startswith("MTP") else "MTP block"
        counts = sizes.setdefault(part, [0, 0])
        counts[0] += t.size
        counts[1] += t.size // config.n_routed_experts * config.num_experts_per_tok if t.part == ROUTED else t.size
    biased = {t.part for t in attention_tensors(config) if t.name.endswith(".bias")}
    return tuple(Part(name, *n, _FORMULAS[name] + (" + its bias" if name in biased else "")) for name, n in sizes.items())


def total(config: ModelConfig) -> int:
    """Parameters of the main model, embedding, head and routing bias included, MTP modules not (V3: 671,026,419,200)."""
    return sum(p.total for p in parts(config) if not p.name.startswith("MTP"))


def activated(config: ModelConfig, count: str = "head") -> int:
    """Parameters of the main model at work on one token, in one of the three conventions found in print.

    ``both``: input embedding and output head counted in full (V2's 21B); ``head``: head only, the embedding being a look-up
    (V2-Lite's 2.4B; it is also what a forward pass multiplies by); ``neither`` (Moonlight's 2.24B). A tied matrix counts as
    the head wherever the head does.
    """
    inner = sum(p.activated for p in parts(config) if not p.name.startswith("MTP") and p.name not in ("embedding", "head"))
    matrices = {"both": 1 if config.tie_word_embeddings else 2, "head": 1, "neither": 0}[count]
    return inner + matrices * config.vocab_size * config.hidden_size


def mtp_total(config: ModelConfig) -> int:
    """Parameters only the MTP modules have: blocks, eh_proj and three norms each (V3: 11,610,068,224)."""
    return sum(p.total for p in parts(config) if p.name.startswith("MTP"))


def mtp_activated(config: ModelConfig) -> int:
    """Of these, at work on one token; embedding and head not counted, for they are the main model's as a rule."""
    return sum(p.activated for p in parts(config) if p.name.startswith("MTP") and p.name != "MTP embeddings and heads")
