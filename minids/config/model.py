"""The model's configuration: DeepSeek-V3's, its relatives', and those of the attentions it is compared with."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from minids.config.checks import Replaceable, check_fields
from minids.config.presets import model_fields
from minids.errors import refuse

MOST_BLOCKS = 10_000
"""Blocks of a model, and MTP modules; V3 has 61 and 1. More is a slip of the keyboard, and listing them would take hours."""


@dataclass(frozen=True)
class Yarn:
    """YaRN context extension (Peng et al. 2023; DeepSeek-V3 section 4.3). It acts on the decoupled RoPE dimensions only."""

    factor: float = 40.0
    """s: how many times longer than in pre-training the context becomes."""
    original_max_position_embeddings: int = 4096
    """Context length of pre-training, in tokens."""
    beta_fast: float = 32.0
    """Dimensions that turn more often than this over the original context keep their frequency."""
    beta_slow: float = 1.0
    """Dimensions that turn less often than this are divided by ``factor``; between the two lies the ramp."""
    mscale: float = 1.0
    """Multiplies cos and sin by m(s, mscale) / m(s, mscale_all_dim); 1 when both are equal, as in V3."""
    mscale_all_dim: float = 1.0
    """The softmax scale is multiplied by m(s, mscale_all_dim)², where m(s, a) = 0.1 · a · ln s + 1."""

    def __post_init__(self) -> None:
        check_fields(self, above={"factor": 0, "beta_fast": 0, "beta_slow": 0}, prefix="rope_scaling.")
        if self.factor < 1:
            raise refuse("rope_scaling.factor", self.factor, "YaRN stretches the context, so it must be at least 1")
        if self.beta_fast < self.beta_slow:
            because = f"must not be below beta_slow = {self.beta_slow}; V3 has 32 and 1"
            raise refuse("rope_scaling.beta_fast", self.beta_fast, because)


@dataclass(frozen=True)
class ModelConfig(Replaceable):
    """A DeepSeek-V3 (or V2) model. Defaults are DeepSeek-V3's own 671B sizes; see ``preset`` for those a laptop trains."""

    vocab_size: int = 129280
    """V: rows of the embedding and of the head."""
    hidden_size: int = 7168
    """d: width of the residual stream."""
    num_hidden_layers: int = 61
    """L: blocks of the main model (MTP modules are extra)."""
    first_k_dense_replace: int = 3
    """The first k blocks have a dense feed-forward network, the others a mixture of experts."""
    intermediate_size: int = 18432
    """Hidden width of the dense feed-forward networks."""
    moe_intermediate_size: int = 2048
    """Hidden width of one expert."""

    num_attention_heads: int = 128
    """H: attention heads."""
    q_lora_rank: int | None = 1536
    """d_c': width of the query latent; None projects queries straight from the hidden state (V2-Lite, Moonlight)."""
    kv_lora_rank: int = 512
    """d_c: width of the key-value latent, which is what MLA caches."""
    qk_nope_head_dim: int = 128
    """Query/key size per head that carries content and no position."""
    qk_rope_head_dim: int = 64
    """d_r: query/key size that carries the rotary position; the key part is one for all heads."""
    v_head_dim: int = 128
    """Value size per head."""

    n_routed_experts: int = 256
    """E: routed experts per MoE layer."""
    n_shared_experts: int = 1
    """Shared experts that see every token; they are merged into one wider network."""
    num_experts_per_tok: int = 8
    """K: routed experts a token is sent to."""
    n_group: int = 8
    """Groups the routed experts are divided into: in V3 one group is one node."""
    topk_group: int = 4
    """M: groups (nodes) a token may touch."""
    scoring_func: Literal["sigmoid", "softmax"] = "sigmoid"
    """How router logits become scores: sigmoid in V3, softmax in V2."""
    topk_method: Literal["noaux_tc", "group_limited_greedy", "greedy"] = "noaux_tc"
    """noaux_tc: bias-corrected choice, group score = sum of its two best (V3); group_limited_greedy: group score = its
    best, no bias (V2); greedy: no groups, no bias (V2-Lite)."""
    norm_topk_prob: bool = True
    """Divide the chosen scores by their sum (V3) or use them as they are (V2)."""
    routed_scaling_factor: float = 2.5
    """Factor on the gates of routed experts."""

    max_position_embeddings: int = 163840
    """Longest context the model is meant for, in tokens."""
    rope_theta: float = 10000.0
    """Base of the rotary frequencies."""
    rope_interleave: bool = True
    """True: rotated pairs are neighbours (2i, 2i+1), as in DeepSeek's weights; False: pairs are (i, i + d_r/2)."""
    rope_scaling: Yarn | None = None
    """YaRN, or None for plain RoPE as in pre-training."""
    rms_norm_eps: float = 1e-6
    """ε inside the root of the block norms."""
    attention_bias: bool = False
    """Bias on q_a_proj, kv_a_proj_with_mqa and o_proj (on all four projections for MHA, GQA, MQA)."""
    tie_word_embeddings: bool = False
    """Use the embedding matrix as the output head."""
    num_nextn_predict_layers: int = 1
    """D: multi-token-prediction modules, one per further token predicted."""
    initializer_range: float = 0.006
    """Standard deviation of the initial weights (V3 section 4.2)."""
    bos_token_id: int | None = 0
    """Token that starts a document, or None."""
    eos_token_id: int | None = 1
    """Token that ends a document, or None."""

    attention: Literal["mla", "mha", "gqa", "mqa"] = "mla"
    """mla, or one of the three it is compared with; those have the same heads and head sizes."""
    num_key_value_heads: int | None = None
    """Key-value heads of GQA. None means one per head for mla and mha, and one in all for mqa."""
    balance: Literal["bias", "aux_loss", "none"] = "bias"
    """How expert load is kept even: a dynamic bias on the choice (V3), a loss alone (V2), or nothing."""
    bias_update_speed: float = 0.001
    """γ: step of the bias after every optimizer step (balance = bias)."""
    bias_update_rule: Literal["sign", "proportional"] = "sign"
    """b += γ · sign(e) as in V3, or γ · e with e = the mean load minus the expert's, as a share of the mean load."""
    aux_loss_alpha: float = 0.0001
    """α: weight of the balance loss. With balance = bias it is V3's complementary loss; 0 switches it off."""
    seq_aux: bool = True
    """Balance loss per sequence (V3 eqs 17-20), or over the whole batch (the classic one)."""
    aux_loss_counts: Literal["selected", "unbiased"] = "selected"
    """Which choice the balance loss counts: the one really made, or the top-K of the scores without bias and groups,
    as eq. 18 is written."""
    mtp_state: Literal["normed", "unnormed"] = "normed"
    """What MTP module k hands to module k + 1: its output after its final norm, or before, where the norm belongs to the head
    alone. Public servers disagree (SGLang passes on the first, vLLM the second); with one module, as released, both are one."""
    mtp_own_matrices: bool = False
    """Every MTP module has an embedding and a head of its own, as some folders hold them; in V3 they are the main model's."""
    mtp_loss_weight: float = 0.3
    """λ: weight of the mean MTP loss."""
    precision: Literal["fp32", "bf16", "fp8"] = "fp32"
    """fp8: attention projections and feed-forward networks multiply quantised numbers (V3 section 3.3), all else does not.
    bf16: the same products on operands in BF16, with which V3 compares."""
    fp8_scaling: Literal["tile", "tensor", "delayed"] = "tile"
    """One scale per tile (V3), or one per matrix: from its own largest number, or from those of the last 16 steps (delayed)."""
    fp8_tile: int = 128
    """Side of the tiles: 1 × 128 for activations, 128 × 128 for weights in V3. A narrower matrix has one tile per row."""
    fp8_promotion: bool = True
    """False: products are summed in the 14 bits of a tensor core from end to end, as they were before V3 (slow to simulate)."""

    def __post_init__(self) -> None:
        may_be_0 = ("first_k_dense_replace", "qk_nope_head_dim", "n_shared_experts", "num_nextn_predict_layers")
        check_fields(
            self,
            at_least=dict.fromkeys((*may_be_0, "bos_token_id", "eos_token_id"), 0),
            # at rope_theta 1 all pairs turn alike, and YaRN divides by its logarithm, 0
            above={"routed_scaling_factor": 0, "rms_norm_eps": 0, "rope_theta": 1},
            at_most={"num_hidden_layers": MOST_BLOCKS, "num_nextn_predict_layers": MOST_BLOCKS},
        )
        self._check_attention()
        self._check_experts()
        for name, token in (("bos_token_id", self.bos_token_id), ("eos_token_id", self.eos_token_id)):
            if token is not None and token >= self.vocab_size:
                raise refuse(name, token, f"must be below vocab_size = {self.vocab_size}, or None")

    def _check_attention(self) -> None:
        if self.qk_rope_head_dim % 2:
            raise refuse("qk_rope_head_dim", self.qk_rope_head_dim, "RoPE turns pairs, so it must be even")
        if self.rope_scaling is not None and not isinstance(self.rope_scaling, Yarn):
            raise refuse("rope_scaling", self.rope_scaling, "must be a Yarn(...) or None")
        heads, kv_heads = self.num_attention_heads, self.num_key_value_heads
        because = f"attention = {self.attention!r} "
        if self.attention in ("mla", "mha") and kv_heads not in (None, heads):
            raise refuse("num_key_value_heads", kv_heads, because + f"has one per head; leave it out or say {heads}")
        if self.attention == "mqa" and kv_heads not in (None, 1):
            raise refuse("num_key_value_heads", kv_heads, because + "has one for all heads; leave it out or say 1")
        if self.attention == "gqa" and (kv_heads is None or heads % kv_heads):
            raise refuse("num_key_value_heads", kv_heads, because + f"needs a divisor of num_attention_heads = {heads}")

    def _check_experts(self) -> None:
        experts, groups, top_k = self.n_routed_experts, self.n_group, self.num_experts_per_tok
        if (dense := self.first_k_dense_replace) > self.num_hidden_layers:
            raise refuse("first_k_dense_replace", dense, f"must not be above num_hidden_layers = {self.num_hidden_layers}")
        if experts % groups:
            divisors = ", ".join(str(g) for g in range(1, min(experts, 1024) + 1) if experts % g == 0)
            raise refuse("n_group", groups, f"must divide n_routed_experts = {experts} evenly: one of {divisors}")
        if self.topk_group > groups:
            raise refuse("topk_group", self.topk_group, f"cannot keep more groups than n_group = {groups}")
        if self.topk_method == "greedy" and groups != 1:
            raise refuse("n_group", groups, "topk_method = 'greedy' knows no groups; say 1, or 'group_limited_greedy'")
        held = self.topk_group * (experts // groups)
        if top_k > held:
            because = f"the {self.topk_group} kept groups of {experts // groups} experts hold only {held}; "
            raise refuse("num_experts_per_tok", top_k, because + "lower it, or raise topk_group or n_routed_experts")
        if self.topk_method == "noaux_tc" and experts // groups < 2:
            raise refuse("n_group", groups, "topk_method = 'noaux_tc' scores a group by its two best experts, so it needs two")
        if self.balance == "bias" and self.topk_method != "noaux_tc":
            raise refuse("balance", "bias", "only topk_method = 'noaux_tc' has a bias; say 'aux_loss' or 'none'")

    @property
    def qk_head_dim(self) -> int:
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def kv_heads(self) -> int:
        return 1 if self.attention == "mqa" else self.num_key_value_heads or self.num_attention_heads

    def is_moe(self, layer: int) -> bool:
        """Whether block ``layer`` (from 0; MTP blocks follow the main ones) has experts."""
        return layer >= self.first_k_dense_replace

    def extended(self, factor: float, trained_length: int = 0) -> ModelConfig:
        """A copy with a context ``factor`` times as long, by YaRN with V3's constants, or with its own where it has YaRN.
        ``trained_length`` in tokens; if 0, YaRN's original length or ``max_position_embeddings``."""
        had = self.rope_scaling
        original = trained_length or (had.original_max_position_embeddings if had else self.max_position_embeddings)
        yarn = dataclasses.replace(had or Yarn(), factor=factor, original_max_position_embeddings=original)
        return self.replace(rope_scaling=yarn, max_position_embeddings=int(original * factor))

    @classmethod
    def preset(cls, name: str, **changes: Any) -> ModelConfig:
        """A named configuration: sizes for a laptop, or those of the published models. No weight is allocated."""
        named = model_fields(name)
        if yarn := named.get("rope_scaling"):
            named["rope_scaling"] = Yarn(**yarn)
        return cls(**named).replace(**changes)
