"""What one generated token leaves behind in memory: the key-value cache of MHA, GQA, MQA and MLA.

Elements per token and layer (DeepSeek-V2 report, Table 1), with content keys and values of the same head size d_h:

    MHA   2·n_h·d_h       GQA   2·n_g·d_h       MQA   2·d_h       MLA   d_c + d_r

Where key and value heads differ, 2·d_h becomes d_nope + d_v. MLA caches one normalised latent and one rotated key for all heads
(the "latent" cache); DeepSeek's demo code can also cache the expanded keys and values ("full", its naive mode), which costs
n_h·((d_nope + d_r) + d_v).
"""

from typing import NamedTuple

from minids.config import ModelConfig

BITS = {"fp32": 32, "bf16": 16, "fp8": 8, "6-bit": 6}
"""Bits per cached element. V2 serves with 6 bits on average (V2 report, section 3.2.3)."""

KINDS = ("mha", "gqa", "mqa", "mla")
GQA_GROUPS = 8  # groups shown for GQA where the configuration names none: what Llama-3.1-405B and Qwen2.5-72B use


def mqa_elements(config: ModelConfig) -> int:
    """Elements per token and layer of one head, its content key and its value: d_nope + d_v (V3's sizes: 256)."""
    return config.qk_nope_head_dim + config.v_head_dim


def gqa_elements(config: ModelConfig, groups: int) -> int:
    """Elements per token and layer with ``groups`` key-value heads: n_g(d_nope + d_v)."""
    return groups * mqa_elements(config)


def mha_elements(config: ModelConfig) -> int:
    """Elements per token and layer if every head cached its own key and value: n_h(d_nope + d_v) (V3's sizes: 32,768)."""
    return gqa_elements(config, config.num_attention_heads)


def mla_elements(config: ModelConfig) -> int:
    """Elements per token and layer of the latent cache: d_c + d_r (V3: 512 + 64 = 576)."""
    return config.kv_lora_rank + config.qk_rope_head_dim


def full_elements(config: ModelConfig) -> int:
    """Elements per token and layer when expanded keys and values are cached: n_kv((d_nope + d_r) + d_v) (V3: 40,960).

    For MHA, GQA and MQA as this package builds them, RoPE dimensions included, it is the only cache there is.
    """
    return config.kv_heads * (config.qk_head_dim + config.v_head_dim)


def elements(config: ModelConfig) -> int:
    """Elements per token and layer that this configuration has to cache."""
    return mla_elements(config) if config.attention == "mla" else full_elements(config)


def by_kind(config: ModelConfig) -> dict[str, int]:
    """V2's Table 1 for this configuration's sizes: elements per token and layer of each mechanism."""
    groups = config.num_key_value_heads if config.attention == "gqa" else min(GQA_GROUPS, config.num_attention_heads)
    elements = mha_elements(config), gqa_elements(config, groups), mqa_elements(config), mla_elements(config)
    return dict(zip(KINDS, elements, strict=True))


def bytes_of(elements: int, form: str = "bf16") -> int | float:
    """Bytes of that many elements in one of ``BITS``; a whole number wherever it is one."""
    bits = elements * BITS[form]
    return bits // 8 if bits % 8 == 0 else bits / 8


def bytes_per_token(config: ModelConfig, form: str = "bf16") -> int | float:
    """Bytes one token adds over all L layers (V3 in BF16: 61 · 576 · 2 = 70,272; ISCA 2025 paper, Table 1)."""
    return bytes_of(config.num_hidden_layers * elements(config), form)


def cache_bytes(config: ModelConfig, context: int, batch: int = 1, form: str = "bf16") -> int | float:
    """Bytes of the whole cache for ``batch`` sequences of ``context`` tokens."""
    return bytes_of(batch * context * config.num_hidden_layers * elements(config), form)


def gqa_equivalent_groups(config: ModelConfig) -> float:
    """How many GQA groups cache as much as MLA: (d_c + d_r) / (d_nope + d_v) (V2 report, section 2.1.4: 2.25)."""
    return mla_elements(config) / mqa_elements(config)


def mha_over_mla(config: ModelConfig) -> float:
    """How many times larger MHA's cache would be with the same heads (V3's sizes: 56.9)."""
    return mha_elements(config) / mla_elements(config)


def flashmla_fp8_bytes(config: ModelConfig) -> int:
    """Bytes per token and layer of FlashMLA's FP8 cache: E4M3 latent, a float32 scale per 128 of it, BF16 RoPE key (656)."""
    return config.kv_lora_rank + 4 * -(-config.kv_lora_rank // 128) + 2 * config.qk_rope_head_dim


class Reduction(NamedTuple):
    """How much smaller a cache is than another, by elements alone and with both stored at their own width."""

    by_elements: float
    by_bits: float


def reduction(new: int, old: int, new_bits: int, old_bits: int) -> Reduction:
    """1 − new/old, once counting elements and once counting bits, as the 93.3 % of DeepSeek-V2's abstract does."""
    return Reduction(1 - new / old, 1 - new * new_bits / (old * old_bits))
