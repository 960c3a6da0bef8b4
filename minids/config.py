"""Every size and switch of the model, and every setting of a training run.

Field names are those of the Hugging Face ``DeepseekV3Config``, so that ``config.json`` of a real checkpoint reads like
this file; ours come last. A configuration that cannot work is refused when it is made, never later.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import sys
import typing
from dataclasses import dataclass, fields
from typing import Literal

from minids.errors import refuse

# Beyond these lies a slip of the keyboard, and the machine would be busy for hours before it says so.
MOST_BLOCKS = 10_000
"""Blocks of a model, and MTP modules; V3 has 61 and 1."""
MOST_TOKENS = 2**28
"""Tokens in one batch: 268 million, four times V3's whole step."""


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

    def __post_init__(self):
        for name in ("factor", "beta_fast", "beta_slow"):
            _finite(self, name, above=0.0, prefix="rope_scaling.")
        for name in ("mscale", "mscale_all_dim"):
            _finite(self, name, at_least=0.0, prefix="rope_scaling.")
        _whole(self, "original_max_position_embeddings", at_least=1, prefix="rope_scaling.")
        if self.factor < 1:
            raise refuse("rope_scaling.factor", self.factor, "YaRN stretches the context, so it must be at least 1")
        if self.beta_fast < self.beta_slow:
            raise refuse(
                "rope_scaling.beta_fast", self.beta_fast, f"must not be below beta_slow = {self.beta_slow}; V3 has 32 and 1"
            )


@dataclass(frozen=True)
class ModelConfig:
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
    mtp_loss_weight: float = 0.3
    """λ: weight of the mean MTP loss."""
    precision: Literal["fp32", "fp8"] = "fp32"
    """fp8: attention projections and feed-forward networks multiply quantised numbers (V3 section 3.3), all else does not."""
    fp8_scaling: Literal["tile", "tensor"] = "tile"
    """One scale per tile (V3), or one per matrix."""
    fp8_tile: int = 128
    """Side of the tiles: 1 × 128 for activations, 128 × 128 for weights in V3. A narrower matrix has one tile per row."""
    fp8_promotion: bool = True
    """False: products are summed in the 14 bits of a tensor core from end to end, as they were before V3 (slow to simulate)."""

    def __post_init__(self):
        for name in (
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "intermediate_size",
            "moe_intermediate_size",
            "num_attention_heads",
            "kv_lora_rank",
            "qk_rope_head_dim",
            "v_head_dim",
            "n_routed_experts",
            "num_experts_per_tok",
            "n_group",
            "topk_group",
            "max_position_embeddings",
            "fp8_tile",
        ):
            _whole(self, name, at_least=1)
        for name in ("first_k_dense_replace", "qk_nope_head_dim", "n_shared_experts", "num_nextn_predict_layers"):
            _whole(self, name, at_least=0)
        for name in ("num_hidden_layers", "num_nextn_predict_layers"):
            _whole(self, name, at_least=0, at_most=MOST_BLOCKS)
        for name in ("q_lora_rank", "num_key_value_heads"):
            if getattr(self, name) is not None:
                _whole(self, name, at_least=1)
        for name in ("norm_topk_prob", "rope_interleave", "attention_bias", "tie_word_embeddings", "seq_aux", "fp8_promotion"):
            if not isinstance(getattr(self, name), bool):
                raise refuse(name, getattr(self, name), "must be true or false")
        for name in ("routed_scaling_factor", "rms_norm_eps"):
            _finite(self, name, above=0.0)
        _finite(self, "rope_theta", above=1.0)  # at 1 all pairs turn alike, and YaRN divides by its logarithm, 0
        for name in ("initializer_range", "bias_update_speed", "aux_loss_alpha", "mtp_loss_weight"):
            _finite(self, name, at_least=0.0)
        _choices(self)
        self._check_attention()
        self._check_experts()
        for name in ("bos_token_id", "eos_token_id"):
            token = getattr(self, name)
            if token is not None:
                _whole(self, name, at_least=0)
                if token >= self.vocab_size:
                    raise refuse(name, token, f"must be below vocab_size = {self.vocab_size}, or None")

    def _check_attention(self):
        if self.qk_rope_head_dim % 2:
            raise refuse("qk_rope_head_dim", self.qk_rope_head_dim, "RoPE turns pairs, so it must be even")
        if self.rope_scaling is not None and not isinstance(self.rope_scaling, Yarn):
            raise refuse("rope_scaling", self.rope_scaling, "must be a Yarn(...) or None")
        heads, kv_heads = self.num_attention_heads, self.num_key_value_heads
        if self.attention in ("mla", "mha") and kv_heads not in (None, heads):
            raise refuse(
                "num_key_value_heads", kv_heads, f"attention = {self.attention!r} has one per head; leave it out or say {heads}"
            )
        if self.attention == "mqa" and kv_heads not in (None, 1):
            raise refuse("num_key_value_heads", kv_heads, "attention = 'mqa' has one for all heads; leave it out or say 1")
        if self.attention == "gqa" and (kv_heads is None or heads % kv_heads):
            raise refuse("num_key_value_heads", kv_heads, f"attention = 'gqa' needs a divisor of num_attention_heads = {heads}")

    def _check_experts(self):
        experts, groups, top_k = self.n_routed_experts, self.n_group, self.num_experts_per_tok
        if self.first_k_dense_replace > self.num_hidden_layers:
            raise refuse(
                "first_k_dense_replace",
                self.first_k_dense_replace,
                f"must not be above num_hidden_layers = {self.num_hidden_layers}",
            )
        if experts % groups:
            divisors = [g for g in range(1, min(experts, 1024) + 1) if experts % g == 0]
            raise refuse(
                "n_group", groups, f"must divide n_routed_experts = {experts} evenly: one of {', '.join(map(str, divisors))}"
            )
        if self.topk_group > groups:
            raise refuse("topk_group", self.topk_group, f"cannot keep more groups than n_group = {groups}")
        if self.topk_method == "greedy" and groups != 1:
            raise refuse("n_group", groups, "topk_method = 'greedy' knows no groups; say 1, or 'group_limited_greedy'")
        held = self.topk_group * (experts // groups)
        if top_k > held:
            raise refuse(
                "num_experts_per_tok",
                top_k,
                f"the {self.topk_group} kept groups of {experts // groups} experts hold only {held}; "
                "lower it, or raise topk_group or n_routed_experts",
            )
        if self.topk_method == "noaux_tc" and experts // groups < 2:
            raise refuse("n_group", groups, "topk_method = 'noaux_tc' scores a group by its two best experts, so it needs two")
        if self.balance == "bias" and self.topk_method != "noaux_tc":
            raise refuse("balance", "bias", "only topk_method = 'noaux_tc' has a bias; say 'aux_loss' or 'none'")

    # What follows from the fields.

    @property
    def qk_head_dim(self) -> int:
        """Size of one query or key head: content and position parts side by side."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def kv_heads(self) -> int:
        """Heads that keys and values are computed for."""
        if self.attention == "mqa":
            return 1
        return self.num_key_value_heads or self.num_attention_heads

    def is_moe(self, layer: int) -> bool:
        """Whether block ``layer`` (from 0; MTP blocks follow the main ones) has experts."""
        return layer >= self.first_k_dense_replace

    def replace(self, **changes) -> ModelConfig:
        """A copy with some fields changed; checked like a new one."""
        _known(type(self), changes)
        return dataclasses.replace(self, **changes)

    def extended(self, factor: float, trained_length: int = 0) -> ModelConfig:
        """A copy with a context ``factor`` times as long, by YaRN with V3's constants, or with its own where it has YaRN.

        ``trained_length``: tokens of the sequences it was trained with; if 0, YaRN's original length or
        ``max_position_embeddings``.
        """
        had = self.rope_scaling
        original = trained_length or (had.original_max_position_embeddings if had else self.max_position_embeddings)
        yarn = dataclasses.replace(had or Yarn(), factor=factor, original_max_position_embeddings=original)
        return self.replace(rope_scaling=yarn, max_position_embeddings=int(original * factor))

    @classmethod
    def preset(cls, name: str, **changes) -> ModelConfig:
        """A named configuration: sizes for a laptop, or those of the published models. No weight is allocated."""
        from minids.presets import model_preset  # the table imports this class

        return model_preset(name).replace(**changes)


@dataclass(frozen=True)
class TrainConfig:
    """A training run. The recipe is DeepSeek-V3's (sections 4.1 and 4.2), with lengths that suit a laptop."""

    steps: int = 1000
    """Optimizer steps."""
    batch_size: int = 16
    """Sequences per micro-batch."""
    context_length: int = 128
    """T: tokens per sequence."""
    gradient_accumulation_steps: int = 1
    """Micro-batches per optimizer step."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """adamw as DeepSeek-V3, or muon as Moonlight and Kimi-K2 (then AdamW for embedding, head and vectors only)."""
    muon_momentum: float = 0.95
    """Muon's decay of the averaged gradient."""
    muon_rounds: int = 5
    """Newton-Schulz rounds of Muon. Fewer take less time and cost a little loss: docs/race.md has numbers."""
    learning_rate: float = 3e-3
    """Peak learning rate."""
    warmup_steps: int = 50
    """Steps of linear warm-up from 0."""
    constant_until: float = 10.0 / 14.8
    """Share of the run after which the decay begins (V3: 10T of 14.8T tokens)."""
    decay_until: float = 14.3 / 14.8
    """Share of the run at which it ends (V3: after another 4.3T)."""
    final_from: float = 14.633 / 14.8
    """Share of the run from which the last, lowest rate is used (V3: the last 167B)."""
    decay_shape: Literal["cosine", "linear"] = "cosine"
    """Course of the decay: half a cosine (V3), or a straight line."""
    decay_to: float = 0.1
    """Rate after the decay, as a share of the peak (V3: 2.2e-5 of 2.2e-4)."""
    final_to: float = 7.3e-6 / 2.2e-4
    """Last rate, as a share of the peak (V3: 7.3e-6 of 2.2e-4)."""
    mtp_late_factor: float = 1.0 / 3.0
    """λ is multiplied by this once the decay begins (V3: 0.3, then 0.1)."""
    weight_decay: float = 0.1
    """Decoupled decay of either optimizer; matrices only, never norm gains, biases or the routing bias."""
    beta1: float = 0.9
    """AdamW's decay of the first moment."""
    beta2: float = 0.95
    """AdamW's decay of the second moment."""
    adam_eps: float = 1e-8
    """Added to the root of the second moment (the paper does not give it)."""
    moments: Literal["fp32", "bf16"] = "fp32"
    """How AdamW's two moments are kept; bf16 as in V3 (section 3.3.2), half the bytes. The step itself is float32."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this global norm; 0 switches clipping off."""
    seed: int = 0
    """Seed of the one random generator: initial weights and the order of the data."""
    workers: int = 0
    """Threads that share each batch; 0 for one per core."""
    validation_share: float = 0.1
    """Share of each domain's documents kept for validation."""
    tokenizer: Literal["bytes", "bpe", "chars"] = "bytes"
    """One token per byte, byte-pair encoding learned from the training documents, or one per character they hold."""
    bpe_vocab_size: int = 2048
    """Vocabulary of the BPE tokenizer."""
    log_every: int = 10
    """Steps between two lines of metrics."""
    eval_every: int = 200
    """Steps between two validation passes (one more comes at the end)."""
    eval_tokens: int = 32768
    """Validation tokens per domain and pass, at most."""
    sample_every: int = 500
    """Steps between two samples of text; 0 for none on the way."""
    save_every: int = 200
    """Steps between two checkpoints (one more comes at the end)."""
    trace_every: int = 0
    """Steps between two records of which experts each token was sent to (RUN/routing/*.npz); 0 for none."""

    def __post_init__(self):
        for name in (
            "steps",
            "batch_size",
            "context_length",
            "gradient_accumulation_steps",
            "muon_rounds",
            "log_every",
            "eval_every",
            "eval_tokens",
            "save_every",
        ):
            _whole(self, name, at_least=1)
        for name in ("warmup_steps", "sample_every", "seed", "workers", "trace_every"):
            _whole(self, name, at_least=0)
        if self.batch_size * self.context_length > MOST_TOKENS:
            because = f"times context_length = {self.context_length} it is more than {MOST_TOKENS:,} tokens at once; "
            raise refuse(
                "batch_size", self.batch_size, because + "gradient_accumulation_steps makes a large step of small ones"
            )
        _whole(self, "bpe_vocab_size", at_least=300)
        for name in ("learning_rate", "adam_eps", "validation_share"):
            _finite(self, name, above=0.0)
        for name in ("decay_to", "final_to", "mtp_late_factor", "weight_decay", "clip_norm"):
            _finite(self, name, at_least=0.0)
        for name in ("beta1", "beta2", "muon_momentum", "validation_share", "constant_until", "decay_until", "final_from"):
            _finite(self, name, at_least=0.0)
            if getattr(self, name) > 1 or (
                name in ("beta1", "beta2", "muon_momentum", "validation_share") and getattr(self, name) == 1
            ):
                raise refuse(name, getattr(self, name), "must lie between 0 and 1")
        if self.moments == "bf16" and self.optimizer == "muon":
            raise refuse("moments", "bf16", "Muon's momentum is kept in fp32; say that, or optimizer = 'adamw'")
        if not self.constant_until <= self.decay_until <= self.final_from:
            raise refuse("decay_until", self.decay_until, "must lie between constant_until and final_from")
        _choices(self)

    @property
    def tokens_per_step(self) -> int:
        return self.batch_size * self.context_length * self.gradient_accumulation_steps

    def replace(self, **changes) -> TrainConfig:
        """A copy with some fields changed; checked like a new one."""
        _known(type(self), changes)
        return dataclasses.replace(self, **changes)

    @classmethod
    def preset(cls, name: str, **changes) -> TrainConfig:
        """The run that goes with a model preset of the same name."""
        from minids.presets import train_preset

        return train_preset(name).replace(**changes)


# The checks, one per kind of value. Each names the field, the value and what would work.


def _whole(config, name: str, at_least: int, at_most: float = math.inf, prefix: str = "") -> None:
    value = getattr(config, name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise refuse(prefix + name, value, f"must be a whole number of at least {at_least}")
    if value < at_least:
        raise refuse(prefix + name, value, f"must be at least {at_least}")
    if value > at_most:
        raise refuse(prefix + name, value, f"must be at most {at_most:,}")


def _finite(config, name: str, above: float | None = None, at_least: float | None = None, prefix: str = "") -> None:
    value = getattr(config, name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
        raise refuse(prefix + name, value, "must be a finite number")
    if above is not None and not value > above:
        raise refuse(prefix + name, value, f"must be above {above:g}")
    if at_least is not None and not value >= at_least:
        raise refuse(prefix + name, value, f"must be at least {at_least:g}")


def _choices(config) -> None:
    """Every ``Literal`` field holds one of its values."""
    for name, hint in typing.get_type_hints(type(config)).items():
        if typing.get_origin(hint) is Literal and getattr(config, name) not in typing.get_args(hint):
            raise refuse(name, getattr(config, name), f"must be one of {', '.join(typing.get_args(hint))}")


def _known(cls, changes: dict) -> None:
    names = [field.name for field in fields(cls)]
    for name in changes:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            raise refuse(
                name, changes[name], f"{cls.__name__} has no such field" + (f"; did you mean {close[0]}?" if close else "")
            )
