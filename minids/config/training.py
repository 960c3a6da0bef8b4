"""The configuration of a training run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from minids.config.checks import Replaceable, check_fields
from minids.config.presets import train_fields
from minids.errors import refuse

MOST_TOKENS = 2**28
"""Tokens in one batch: 268 million, four times V3's whole step. More is a slip of the keyboard, and would fill any memory."""


@dataclass(frozen=True)
class TrainConfig(Replaceable):
    """A training run. The recipe is DeepSeek-V3's (sections 4.1 and 4.2), with lengths that suit a laptop."""

    steps: int = 1000
    """Optimizer steps."""
    batch_size: int = 16
    """Sequences per micro-batch."""
    context_length: int = 128
    """T: tokens per sequence."""
    gradient_accumulation_steps: int = 1
    """Micro-batches per optimizer step."""
    short_context_until: float = 0.0
    """Share of the run's tokens that are read in short sequences, as many tokens a step (V3 extends last: 4.3); 0 for none."""
    short_context: int = 64
    """With short_context_until: tokens per sequence in that part; a longer ``context_length`` must be a multiple."""
    batch_ramp_until: float = 0.0
    """Share of the run's tokens during which micro-batches grow to ``batch_size`` (V3: 469B of 14.8T, 0.032); 0 for none."""
    batch_ramp_from: float = 0.2
    """With batch_ramp_until: what they grow from, as a share of ``batch_size`` (V3: 3,072 of 15,360)."""
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
    mtp_from: float = 0.0
    """Share of the run's tokens before which the MTP modules rest: not read and not trained (V3 trains them from the start)."""
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
    """How AdamW's two moments are kept; bf16 as in V3 (section 3.3.3), half the bytes. The step itself is float32."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this global norm; 0 switches clipping off."""
    qk_clip: float = 0.0
    """Heads whose largest attention logit is above this have query and key weights scaled down (Kimi-K2: 100); 0 for none."""
    ema_decay: float = 0.0
    """Decay of a moving average of the weights, kept beside them and validated too (V3, section 3.2.3); 0 for none."""
    ema_save: bool = False
    """Write that average with every checkpoint, as a model folder of its own: RUN/step-…/ema."""
    recompute: bool = False
    """Form norms, MLA's up-projections, attention weights and the SwiGLU product again in the backward pass instead of keeping
    them (V3, section 3.2.3): the same gradients to the bit, from less memory."""
    seed: int = 0
    """Seed of the one random generator: initial weights and the order of the data."""
    workers: int = 0
    """Threads that share each batch; 0 for one per core."""
    validation_share: float = 0.1
    """Share of each domain's documents kept for validation; 0 for none, and then nothing tells how well it does on others."""
    tokenizer: Literal["bytes", "bpe", "chars"] = "bytes"
    """One token per byte, byte-pair encoding learned from the training documents, or one per character they hold."""
    bpe_vocab_size: int = 2048
    """Vocabulary of the BPE tokenizer."""
    bpe_line_tokens: bool = False
    """BPE tokens may join punctuation and the line break behind it, as those of V3 do (section 4.1)."""
    line_token_split_rate: float = 0.0
    """Share of such tokens that are split in two in the training text, against the bias that they bring."""
    fim_rate: float = 0.0
    """Share of the training documents laid out as prefix, suffix, middle, for models that fill in (V3, section 4.1: 0.1); the
    vocabulary then has three tokens more. Of a document longer than half the context every such stretch counts as one."""
    log_every: int = 10
    """Steps between two lines of metrics."""
    eval_every: int = 200
    """Steps between two validation passes (one comes before the first step and one at the end); 0 for none on the way."""
    eval_tokens: int = 32768
    """Validation tokens per domain and pass, at most."""
    sample_every: int = 500
    """Steps between two samples of text; 0 for none on the way."""
    save_every: int = 200
    """Steps between two checkpoints (one more comes at the end)."""
    trace_every: int = 0
    """Steps between two records of which experts each token was sent to (RUN/routing/*.npz); 0 for none."""

    def __post_init__(self) -> None:
        may_be_0 = ("warmup_steps", "sample_every", "eval_every", "validation_share", "seed", "workers", "trace_every")
        above = {"learning_rate": 0, "adam_eps": 0, "batch_ramp_from": 0}
        check_fields(self, at_least=dict.fromkeys(may_be_0, 0) | {"bpe_vocab_size": 300}, above=above)
        shares = ("constant_until", "decay_until", "final_from")
        may_be_1 = (*shares, "fim_rate", "line_token_split_rate", "short_context_until", "batch_ramp_until", "batch_ramp_from")
        for name in (*may_be_1, "mtp_from", "beta1", "beta2", "ema_decay", "muon_momentum", "validation_share"):
            if getattr(self, name) > 1 or (name not in may_be_1 and getattr(self, name) == 1):
                raise refuse(name, getattr(self, name), "must lie between 0 and 1")
        if self.batch_size * self.context_length > MOST_TOKENS:
            because = f"times context_length = {self.context_length} it is more than {MOST_TOKENS:,} tokens at once; "
            raise refuse("batch_size", self.batch_size, because + "gradient_accumulation_steps makes large steps of small ones")
        if self.short_context_until and self.context_length > self.short_context and self.context_length % self.short_context:
            because = f"must divide context_length = {self.context_length}; or say short_context_until = 0"
            raise refuse("short_context", self.short_context, because)
        if self.moments == "bf16" and self.optimizer == "muon":
            raise refuse("moments", "bf16", "Muon's momentum is kept in fp32; say that, or optimizer = 'adamw'")
        if self.bpe_line_tokens and self.tokenizer != "bpe":
            raise refuse("bpe_line_tokens", True, f"tokenizer = {self.tokenizer!r} joins nothing; say 'bpe'")
        if self.line_token_split_rate and not self.bpe_line_tokens:
            raise refuse("line_token_split_rate", self.line_token_split_rate, "none joins; say bpe_line_tokens too")
        if self.ema_save and not self.ema_decay:
            raise refuse("ema_save", True, "there is no average to write; say ema_decay = 0.99 too")
        if not self.constant_until <= self.decay_until <= self.final_from:
            raise refuse("decay_until", self.decay_until, "must lie between constant_until and final_from")

    @property
    def tokens_per_step(self) -> int:
        return self.batch_size * self.context_length * self.gradient_accumulation_steps

    @classmethod
    def preset(cls, name: str, **changes: Any) -> TrainConfig:
        """The run that goes with a model preset of the same name; with ``optimizer="adamw"`` by V3's own recipe."""
        return cls(**train_fields(name, changes.get("optimizer"))).replace(**changes)
