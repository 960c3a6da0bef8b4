"""What every parameter is called, what shape it has, and how many there are: in all, and at work on one token.

One list of names and shapes serves everything here. ``parameter_shapes`` walks it tensor by tensor in the naming of the
released Hugging Face checkpoints (linear layers are ``(out, in)``); ``parts`` sums it up by kind; nothing is allocated.

Symbols: d model, d_c KV latent, d_c' query latent, d_r RoPE, d_h head, H heads, E experts, K chosen, V vocabulary, L layers.
Per layer (DeepSeek-V2 report, appendix C; DeepSeek-V3 report, section 2.1):

    MLA    d·d_c' + d_c' + d_c'·H(d_nope + d_r) + d(d_c + d_r) + d_c + d_c·H(d_nope + d_v) + H·d_v·d
    norms  2d
    dense  3·d·I
    MoE    (E + N_s)·3·d·I_m + E·d + E        the last E is the routing bias, a buffer that no optimizer touches
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import NamedTuple

from minids.config import ModelConfig

Shape = tuple[int, ...]


class Tensor(NamedTuple):
    """One tensor: its name (below its layer or in full), its shape, and the part of the model it is counted under."""

    name: str
    shape: Shape
    part: str

    @property
    def size(self) -> int:
        return prod(self.shape)


class Part(NamedTuple):
    """All parameters of one kind in the whole model."""

    name: str
    total: int
    activated: int
    """Of these, how many take part in the forward pass of one token."""
    formula: str


ROUTED = "routed experts"
ROUTING_BIAS = "routing bias"

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
    "router": "L_moe·E·d",
    ROUTING_BIAS: "L_moe·E, a buffer",
    "shared experts": "L_moe·N_s·3·d·I_m",
    ROUTED: "L_moe·E·3·d·I_m; activated: K of E",
    "MTP block": "D·(norms + attention + FFN of one block); activated: K of E experts",
    "MTP eh_proj": "D·2d·d",
    "MTP norms": "D·3d (enorm, hnorm, shared_head.norm)",
}


def attention_tensors(config: ModelConfig) -> list[Tensor]:
    """Parameters of one attention layer, names below ``self_attn.``."""
    c = config
    d, heads, d_qk, d_v = c.hidden_size, c.num_attention_heads, c.qk_head_dim, c.v_head_dim
    biased = ["o_proj"]
    if c.attention == "mla":
        if c.q_lora_rank is None:
            rows = [("q_proj", (heads * d_qk, d))]
        else:
            rows = [
                ("q_a_proj", (c.q_lora_rank, d)),
                ("q_a_layernorm", (c.q_lora_rank,)),
                ("q_b_proj", (heads * d_qk, c.q_lora_rank)),
            ]
            biased.append("q_a_proj")
        rows += [
            ("kv_a_proj_with_mqa", (c.kv_lora_rank + c.qk_rope_head_dim, d)),
            ("kv_a_layernorm", (c.kv_lora_rank,)),
            ("kv_b_proj", (heads * (c.qk_nope_head_dim + d_v), c.kv_lora_rank)),
        ]
        biased.append("kv_a_proj_with_mqa")
    else:
        rows = [("q_proj", (heads * d_qk, d)), ("k_proj", (c.kv_heads * d_qk, d)), ("v_proj", (c.kv_heads * d_v, d))]
        biased += ["q_proj", "k_proj", "v_proj"]
    rows.append(("o_proj", (d, heads * d_v)))
    tensors = []
    for name, shape in rows:
        tensors.append(Tensor(f"self_attn.{name}.weight", shape, name))
        if c.attention_bias and name in biased:
            tensors.append(Tensor(f"self_attn.{name}.bias", shape[:1], name))
    return tensors


def mlp_tensors(prefix: str, width: int, hidden_size: int, part: str) -> list[Tensor]:
    """The three matrices of one SwiGLU network: gate and up (width, d), down (d, width)."""
    return [
        Tensor(f"{prefix}.gate_proj.weight", (width, hidden_size), part),
        Tensor(f"{prefix}.up_proj.weight", (width, hidden_size), part),
        Tensor(f"{prefix}.down_proj.weight", (hidden_size, width), part),
    ]


def _feed_forward_tensors(config: ModelConfig, moe: bool, experts: range) -> list[Tensor]:
    """Parameters of one feed-forward layer with the routed experts of ``experts`` only."""
    c = config
    if not moe:
        return mlp_tensors("mlp", c.intermediate_size, c.hidden_size, "dense FFN")
    tensors = [Tensor("mlp.gate.weight", (c.n_routed_experts, c.hidden_size), "router")]
    if c.topk_method == "noaux_tc":
        tensors.append(Tensor("mlp.gate.e_score_correction_bias", (c.n_routed_experts,), ROUTING_BIAS))
    for expert in experts:
        tensors += mlp_tensors(f"mlp.experts.{expert}", c.moe_intermediate_size, c.hidden_size, ROUTED)
    if c.n_shared_experts:
        width = c.n_shared_experts * c.moe_intermediate_size
        tensors += mlp_tensors("mlp.shared_experts", width, c.hidden_size, "shared experts")
    return tensors


def block_tensors(config: ModelConfig, moe: bool, experts: range | None = None) -> list[Tensor]:
    """Parameters of one Transformer block, names below ``model.layers.{l}.``; all experts unless told otherwise."""
    d = config.hidden_size
    return [
        Tensor("input_layernorm.weight", (d,), "block norms"),
        *attention_tensors(config),
        Tensor("post_attention_layernorm.weight", (d,), "block norms"),
        *_feed_forward_tensors(config, moe, range(config.n_routed_experts) if experts is None else experts),
    ]


def mtp_tensors(config: ModelConfig, copies: bool = False) -> list[Tensor]:
    """What an MTP module has besides its block; with ``copies`` also the shared matrices that checkpoints repeat in it."""
    d, vocab = config.hidden_size, config.vocab_size
    tensors = [
        Tensor("enorm.weight", (d,), "MTP norms"),
        Tensor("hnorm.weight", (d,), "MTP norms"),
        Tensor("eh_proj.weight", (d, 2 * d), "MTP eh_proj"),
        Tensor("shared_head.norm.weight", (d,), "MTP norms"),
    ]
    if copies:
        tensors.insert(0, Tensor("embed_tokens.weight", (vocab, d), "MTP copies"))
        tensors.append(Tensor("shared_head.head.weight", (vocab, d), "MTP copies"))
    return tensors


def parameter_shapes(config: ModelConfig, mtp: bool = True, copies: bool = False) -> Iterator[tuple[str, Shape]]:
    """Every (name, shape) of the model in checkpoint naming, expert by expert, the routing bias included.

    MTP modules are the layers after the last (``model.layers.61.*`` in V3). Checkpoints repeat the embedding and the head in
    them: ask for that with ``copies``.
    """
    d, vocab, layers = config.hidden_size, config.vocab_size, config.num_hidden_layers
    yield "model.embed_tokens.weight", (vocab, d)
    for layer in range(layers):
        for tensor in block_tensors(config, config.is_moe(layer)):
            yield f"model.layers.{layer}.{tensor.name}", tensor.shape
    yield "model.norm.weight", (d,)
    if not config.tie_word_embeddings:
        yield "lm_head.weight", (vocab, d)
    if mtp:
        for layer in range(layers, layers + config.num_nextn_predict_layers):
            for tensor in [*mtp_tensors(config, copies), *block_tensors(config, config.is_moe(layer))]:
                yield f"model.layers.{layer}.{tensor.name}", tensor.shape


def _block_sizes(config: ModelConfig, moe: bool) -> dict[str, tuple[int, int]]:
    """(total, activated) of one block by part, the experts counted by multiplication instead of one by one."""
    sizes: dict[str, tuple[int, int]] = {}
    for tensor in block_tensors(config, moe, experts=range(1)):
        times, active = (config.n_routed_experts, config.num_experts_per_tok) if tensor.part == ROUTED else (1, 1)
        total, activated = sizes.get(tensor.part, (0, 0))
        sizes[tensor.part] = total + times * tensor.size, activated + active * tensor.size
    return sizes


def parts(config: ModelConfig) -> list[Part]:
    """Parameters of the whole model by part, in the order a batch meets them; parts of size 0 are left out.

    The MTP parts come last and are extra: no total of the main model includes them. The embedding is listed as activated in
    full although a token reads one row of it; which of embedding and head count as activated is for ``activated`` to say.
    """
    c = config
    vd = c.vocab_size * c.hidden_size
    dense_layers = min(c.first_k_dense_replace, c.num_hidden_layers)
    sizes: dict[str, list[int]] = {"embedding": [vd, vd]}
    for moe, layers in ((False, dense_layers), (True, c.num_hidden_layers - dense_layers)):
        for part, (total, activated) in _block_sizes(c, moe).items() if layers else ():
            entry = sizes.setdefault(part, [0, 0])
            entry[0] += layers * total
            entry[1] += layers * activated
    sizes["final norm"] = [c.hidden_size, c.hidden_size]
    if not c.tie_word_embeddings:
        sizes["head"] = [vd, vd]
    modules = c.num_nextn_predict_layers
    if modules:
        block = _block_sizes(c, c.is_moe(c.num_hidden_layers)).values()
        sizes["MTP block"] = [modules * sum(total for total, _ in block), modules * sum(active for _, active in block)]
        for tensor in mtp_tensors(c):
            entry = sizes.setdefault(tensor.part, [0, 0])
            entry[0] += modules * tensor.size
            entry[1] += modules * tensor.size
    biased = {t.part for t in attention_tensors(c) if t.name.endswith(".bias")}
    return [Part(name, *counts, _FORMULAS[name] + (" + its bias" if name in biased else "")) for name, counts in sizes.items()]


def _count(config: ModelConfig, mtp: bool, activated: bool) -> int:
    return sum(p.activated if activated else p.total for p in parts(config) if p.name.startswith("MTP") == mtp)


def total(config: ModelConfig) -> int:
    """Parameters of the main model, embedding, head and routing bias included, MTP modules not (V3: 671,026,419,200)."""
    return _count(config, mtp=False, activated=False)


def activated(config: ModelConfig, count: str = "head") -> int:
    """Parameters of the main model at work on one token, in one of the three conventions found in print.

    ``both``: input embedding and output head counted in full (V2's 21B); ``head``: head only, the embedding being a look-up
    (V2-Lite's 2.4B; it is also what a forward pass multiplies by); ``neither`` (Moonlight's 2.24B). A tied matrix counts as
    the head wherever the head does.
    """
    vd = config.vocab_size * config.hidden_size
    matrices = 1 if config.tie_word_embeddings else 2
    inner = _count(config, mtp=False, activated=True) - matrices * vd
    return inner + {"both": matrices, "head": 1, "neither": 0}[count] * vd


def mtp_total(config: ModelConfig) -> int:
    """Parameters only the MTP modules have: blocks, eh_proj and three norms each (V3: 11,610,068,224)."""
    return _count(config, mtp=True, activated=False)


def mtp_activated(config: ModelConfig) -> int:
    """Of these, at work on one token; embedding and head not counted, for they are the main model's."""
    return _count(config, mtp=True, activated=True)
