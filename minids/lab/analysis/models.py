"""DeepSeek-V3 beside other models: parameters, cache and FLOPs as rows of one table.

The family's own models come from the presets. The dense models they are compared with need only a few numbers each, whose
products are the totals their authors publish. Layers, key-value heads and head size of Llama and Qwen are confirmed by the
cache bytes printed in the ISCA 2025 paper, Table 1; their other sizes are recalled from the public ``config.json`` files, and
all sizes of DeepSeek 67B are recalled.
"""

from dataclasses import dataclass
from typing import NamedTuple

from minids.config import ModelConfig
from minids.lab.analysis import flops, kv_cache
from minids.lab.analysis.parameters import activated, total


@dataclass(frozen=True)
class DenseModel:
    """A dense decoder with grouped-query attention, SwiGLU and RMSNorm, embedding and head untied."""

    name: str
    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    qkv_bias: bool
    note: str

    @property
    def layer_parameters(self) -> int:
        """2·d·n_h·d_h + 2·d·n_kv·d_h + 3·d·I + 2·d, and (n_h + 2·n_kv)·d_h where q, k and v have a bias."""
        d, q, kv = self.hidden_size, self.heads * self.head_dim, self.kv_heads * self.head_dim
        bias = q + 2 * kv if self.qkv_bias else 0
        return 2 * d * q + 2 * d * kv + 3 * d * self.intermediate_size + 2 * d + bias

    @property
    def total(self) -> int:
        """L · layer + 2·V·d + d."""
        return self.layers * self.layer_parameters + (2 * self.vocab_size + 1) * self.hidden_size

    @property
    def activated(self) -> int:
        """All of them but the input embedding."""
        return self.total - self.vocab_size * self.hidden_size

    @property
    def cache_elements(self) -> int:
        """Per token, all layers: 2·n_kv·d_h·L (DeepSeek-V2 report, Table 1)."""
        return 2 * self.kv_heads * self.head_dim * self.layers

    def training_flops(self, context: int) -> float:
        """Per token: 6·N + 3·2·n_h·2·d_h·(C/2)·L, as for the DeepSeek models (``flops.training``)."""
        return 6 * self.activated + 3 * 2 * self.heads * 2 * self.head_dim * context / 2 * self.layers


LLAMA_405B = DenseModel("Llama-3.1-405B", 126, 16384, 128, 8, 128, 53248, 128256, False, "GQA with 8 groups")
QWEN_72B = DenseModel("Qwen2.5-72B", 80, 8192, 64, 8, 128, 29568, 152064, True, "GQA with 8 groups")
DEEPSEEK_67B = DenseModel("DeepSeek 67B", 95, 8192, 64, 8, 128, 22016, 102400, False, "GQA with 8 groups; sizes recalled")

DENSE_MODELS = (LLAMA_405B, QWEN_72B, DEEPSEEK_67B)

FAMILY = {
    "DeepSeek-V2": "deepseek-v2",
    "DeepSeek-V2-Lite": "deepseek-v2-lite",
    "DeepSeek-V3": "deepseek-v3",
    "Moonlight-16B-A3B": "moonlight-16b-a3b",
    "Kimi-K2": "kimi-k2",
}


class ModelRow(NamedTuple):
    """One model of the comparison."""

    name: str
    total: int
    activated: int  # head in, input embedding out
    cache_elements: int  # per token, all layers
    cache_bytes: int  # the same in BF16
    training_flops: float  # per token, causal
    note: str


def comparison(context: int = 4096) -> list[ModelRow]:
    """All models, dense ones first; the cache bytes are those of the ISCA 2025 paper, Table 1, where it has the model."""
    rows = [
        ModelRow(m.name, m.total, m.activated, m.cache_elements, 2 * m.cache_elements, m.training_flops(context), m.note)
        for m in DENSE_MODELS
    ]
    for name, preset in FAMILY.items():
        c = ModelConfig.preset(preset)
        elements, work = c.num_hidden_layers * kv_cache.elements(c), flops.training(c, context)
        note = f"MLA; {c.num_experts_per_tok} of {c.n_routed_experts} experts, {c.n_shared_experts} shared"
        rows.append(ModelRow(name, total(c), activated(c), elements, 2 * elements, work, note))
    return rows


def format_comparison(rows: list[ModelRow]) -> str:
    """The rows as a table for the terminal."""
    head = f"{'model':<18} {'total':>10} {'activated':>10} {'cache B/token':>14} {'× V3':>6} {'GFLOP/token':>12}  note"
    base = next(row.cache_bytes for row in rows if row.name == "DeepSeek-V3")
    lines = [head, "-" * len(head)]
    for r in rows:
        sizes = f"{r.total / 1e9:>9.3f}B {r.activated / 1e9:>9.3f}B {r.cache_bytes:>14,} {r.cache_bytes / base:>6.3f}"
        lines.append(f"{r.name:<18} {sizes} {r.training_flops / 1e9:>12.2f}  {r.note}")
    return "\n".join(lines)
