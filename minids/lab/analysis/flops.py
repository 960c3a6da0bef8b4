"""Floating-point operations per token: forward, training, and three ways of decoding.

A multiplication and an addition count as 2. Only matrix products are counted, as everywhere in the field: norms, softmax, SiLU
and RoPE add well under one percent. N is the number of parameters at work on one token, head in, input embedding out; as in the
field's "6 N" rule the few norm gains among them count as if they were matrices (0.003 % of V3):

    forward    2·N + attention               attention = 2·n_h·(d_qk + d_v)·C·L for C keys seen
    training   3 × forward                   the backward pass multiplies twice: by the weight and by the input
    causal     a token sees T/2 keys on average (exactly (T + 1)/2; the reports use T/2)

These are the conventions under which the ISCA 2025 paper's Table 2 (its "GFLOPS" is GFLOP per token) comes out at 250 for
V3 and 155 for V2. That table leaves out the MTP module; ``mtp_training`` adds it.
"""

from typing import NamedTuple

from minids.config import ModelConfig
from minids.errors import refuse
from minids.lab.analysis import kv_cache
from minids.lab.analysis.parameters import activated, mtp_activated


def usual_context(config: ModelConfig) -> int:
    """Tokens of a sequence where none are given: V3's 4,096 of pre-training, or the model's longest if that is less."""
    return min(4096, config.max_position_embeddings)


def check_whole(**fields: int) -> None:
    """Refuse what is not a whole number of at least 1, by its name."""
    for field, value in fields.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise refuse(field, value, "must be a whole number of at least 1")


def attention_per_pair(config: ModelConfig) -> int:
    """FLOPs per query-key pair and layer, keys and values expanded: 2·n_h·(d_qk + d_v) (V3: 81,920)."""
    return 2 * config.num_attention_heads * (config.qk_head_dim + config.v_head_dim)


def absorbed_attention_per_pair(config: ModelConfig) -> int:
    """FLOPs per query-key pair and layer on the latent itself: 2·n_h·((d_c + d_r) + d_c) (V3: 278,528, 3.4 times more)."""
    return 2 * config.num_attention_heads * (2 * config.kv_lora_rank + config.qk_rope_head_dim)


def attention_forward(config: ModelConfig, context: int, causal: bool = True) -> float:
    """FLOPs per token of scores and weighted values over all layers, in a sequence of ``context`` tokens."""
    pairs = context / 2 if causal else context
    return attention_per_pair(config) * pairs * config.num_hidden_layers


def forward(config: ModelConfig, context: int, causal: bool = True) -> float:
    """FLOPs per token of one forward pass over ``context`` tokens, main model only."""
    return 2 * activated(config) + attention_forward(config, context, causal)


def training(config: ModelConfig, context: int, causal: bool = True) -> float:
    """FLOPs per token of forward and backward, without recomputation and MTP. V3 at 4096: 219.75 + 30.70 = 250.46 G causal."""
    return 3 * forward(config, context, causal)


def mtp_training(config: ModelConfig, context: int, causal: bool = True) -> float:
    """What the MTP modules add to ``training`` per token of the context: blocks, eh_proj and one more use of the head each."""
    modules, flops = config.num_nextn_predict_layers, 0.0
    for k in range(1, modules + 1):  # module k works on context − k positions
        weights = mtp_activated(config) // modules + config.vocab_size * config.hidden_size
        positions = max(context - k, 0)
        pairs = positions / 2 if causal else positions
        flops += positions * (2 * weights + attention_per_pair(config) * pairs)
    return 3 * flops / context


class Decode(NamedTuple):
    """One new token behind ``context`` cached ones: work, and what is read from the cache."""

    flops: float
    cache_elements: int  # read per sequence, over all layers


DECODE_MODES = ("absorbed", "full cache", "re-expand", "no cache")


def decode_modes(config: ModelConfig) -> tuple[str, ...]:
    """The ways this configuration can decode: a latent that is absorbed or re-expanded has MLA only."""
    return DECODE_MODES if config.attention == "mla" else ("full cache", "no cache")


def decode(config: ModelConfig, context: int, mode: str | None = None) -> Decode:
    """FLOPs of one decoding step at ``context`` tokens, the new one included, per sequence.

    absorbed    2·N + 2·n_h(2·d_c + d_r)·C·L      latent cache; kv_b_proj works on queries and outputs instead of keys and
                                                  values, at the FLOPs of one token whatever C is (V2 report, section 2.1.2)
    full cache  2·N + 2·n_h(d_qk + d_v)·C·L       expanded keys and values cached, n_h(d_qk + d_v) each
    re-expand   full cache + 2·kv_b·(C − 1)·L     latent cache, every old key and value made anew
    no cache    C · forward over C tokens         everything made anew, causal

    Default: absorbed for MLA, full cache otherwise (MHA, GQA and MQA know only the last two with a cache of their own).
    """
    c = config
    mode = mode or decode_modes(c)[0]
    if mode not in decode_modes(c):
        raise refuse("mode", mode, f"attention = {c.attention!r} decodes as one of {', '.join(decode_modes(c))}")
    once, keys = 2 * activated(c), context * c.num_hidden_layers
    expanded, latent = once + attention_per_pair(c) * keys, keys * kv_cache.mla_elements(c)
    if mode == "no cache":
        return Decode(context * forward(c, context), 0)
    if mode == "full cache":
        return Decode(expanded, keys * kv_cache.full_elements(c))
    if mode == "absorbed":
        return Decode(once + absorbed_attention_per_pair(c) * keys, latent)
    kv_b = c.kv_lora_rank * c.num_attention_heads * (c.qk_nope_head_dim + c.v_head_dim)
    return Decode(expanded + 2 * kv_b * (context - 1) * c.num_hidden_layers, latent)


def absorption_pays_until(config: ModelConfig) -> float:
    """Queries per sequence below which absorbed attention needs fewer FLOPs than re-expanding the latents (V3: 170.7).

    Re-expanding costs 2·kv_b a key once for all queries; absorbed costs 2·n_h(2·d_c − d_nope − d_v) more a pair. Decoding
    brings 1 or 2, prefill thousands: hence the two modes of DeepSeek's code.
    """
    c = config
    content = c.qk_nope_head_dim + c.v_head_dim
    extra = 2 * c.kv_lora_rank - content
    return c.kv_lora_rank * content / extra if extra > 0 else float("inf")


def distinct_experts(config: ModelConfig, batch: int) -> float:
    """Routed experts of one layer that a batch of tokens touches on average, if each picks K of E evenly and on its own."""
    experts = config.n_routed_experts
    return experts * (1 - (1 - config.num_experts_per_tok / experts) ** batch)


def weights_read(config: ModelConfig, tokens: int = 1, mtp: bool = False) -> float:
    """Weights of the main model, or of one MTP module and its head, that a pass over ``tokens`` tokens at once reads.

    Dense weights are read once for all, routed experts as ``distinct_experts`` says; the embedding is not counted.
    """
    c = config
    more = (distinct_experts(c, tokens) - c.num_experts_per_tok) * 3 * c.hidden_size * c.moe_intermediate_size
    if mtp:
        module = mtp_activated(c.replace(num_nextn_predict_layers=1)) + c.vocab_size * c.hidden_size
        return module + c.is_moe(c.num_hidden_layers) * more
    return activated(c) + sum(c.is_moe(layer) for layer in range(c.num_hidden_layers)) * more


class Intensity(NamedTuple):
    """One decoding step of ``batch`` sequences: FLOPs, bytes moved, and their quotient."""

    flops: float
    weight_bytes: float
    cache_bytes: float

    @property
    def flops_per_byte(self) -> float:
        return self.flops / (self.weight_bytes + self.cache_bytes)


def decode_intensity(
    config: ModelConfig, context: int, batch: int, weight_bits: int = 8, cache_bits: int = 16, mode: str | None = None
) -> Intensity:
    """FLOPs per byte read while decoding: every weight in use is read once a step, the cache once a sequence.

    A machine reaches its peak only above peak FLOP/s over memory bandwidth: about 295 for an H800 in BF16 (989 TFLOP/s over
    3.35 TB/s, the bandwidth recalled).
    """
    step = decode(config, context, mode)
    weights, cache = weights_read(config, batch) * weight_bits / 8, batch * step.cache_elements * cache_bits / 8
    return Intensity(batch * step.flops, weights, cache)


def attention_intensity(config: ModelConfig, cache_bits: int = 16) -> float:
    """FLOPs per cached byte of attention alone, as decoded: what no batch size can improve.

    MLA absorbed 2·n_h(2·d_c + d_r)/(d_c + d_r) per element (V3, BF16: 241.8 a byte), otherwise 2·n_h/n_kv per element (MHA: 1 a
    byte in BF16).
    """
    pair = absorbed_attention_per_pair(config) if config.attention == "mla" else attention_per_pair(config)
    return pair / (kv_cache.elements(config) * cache_bits / 8)
