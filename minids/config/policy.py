"""The configuration of a run of GRPO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from minids.config.checks import Replaceable, check_fields
from minids.config.training import TrainConfig
from minids.errors import refuse


@dataclass(frozen=True)
class PolicyConfig(Replaceable):
    """Learning from rewards by GRPO (DeepSeek-V3, section 5.2.2), with what later reports repaired in it."""

    steps: int = 300
    """Rounds: questions are drawn, answered, and learned from."""
    questions: int = 16
    """Questions of a step."""
    group: int = 8
    """Answers to each question (R1: 16). They are each other's measure, so one alone teaches nothing."""
    max_new_tokens: int = 64
    """Tokens of an answer, at most."""
    temperature: float = 1.0
    """Answers are drawn at this temperature, and the policy that learns is the model at this temperature."""
    top_p: float = 1.0
    """Answers are drawn among the fewest tokens that together have this probability; 1 for all."""
    keep_mask: bool = True
    """With top_p below 1: the policy that learns is the model among the tokens that were left to be drawn (V3.2), so that both
    sides of the ratio are; else it is compared with a part of itself."""
    learning_rate: float = 1e-4
    """Peak learning rate of AdamW."""
    warmup_steps: int = 10
    """Steps of linear warm-up from 0."""
    constant_until: float = 0.5
    """Share of the run after which the rate falls, along half a cosine."""
    decay_to: float = 0.1
    """Rate at the end, as a share of the peak."""
    updates: int = 1
    """Optimizer steps of a round, each from its share of the questions; from the second on the answers are a little old."""
    by: Literal["token", "answer"] = "token"
    """The ratio π/π_old of each token (DeepSeekMath, V3.2), or of the whole answer, as the V3 report prints it."""
    by_std: bool = True
    """Divide advantages by the standard deviation of their group; Dr. GRPO does not."""
    divisor: float = 0.0
    """With by = token: a constant that divides each answer's sum (Dr. GRPO), instead of its length; 0 for the length."""
    clip: float = 0.2
    """ε: how far the ratio may go from 1 before it stops counting."""
    drop_above: float = 0.0
    """δ: an answer of negative advantage counts no more where its tokens have become less likely since it was drawn, by more
    than this on average (mean ln(π_old/π), in nats; V3.2); 0 for no such limit."""
    beta: float = 0.0
    """Weight of the divergence from the reference, the model as it began; 0 for none, and then no reference is kept."""
    corrected: bool = True
    """Multiply the divergence by the ratio, so that its gradient is that of KL(π ‖ π_ref), as V3.2 does."""
    reference_every: int = 0
    """Steps after which the present model becomes the reference (R1: 400); 0 for never."""
    keep_routing: bool = True
    """Have the update send each token to the experts that it went to when the answer was drawn (V3.2)."""
    mtp: bool = True
    """Train the MTP modules along, on the answers; without, speculation gets worse as the model moves away from them."""
    weight_decay: float = 0.0
    """Decoupled decay of AdamW."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this global norm; 0 switches clipping off."""
    seed: int = 0
    """Seed of the one random generator: questions and answers."""
    log_every: int = 10
    """Steps between two lines of metrics."""
    eval_every: int = 100
    """Steps between two measurements on held-out questions (one comes before the first step and one at the end); 0 for none
    on the way."""
    eval_questions: int = 128
    """Held-out questions asked each time, at most."""
    save_every: int = 50
    """Steps between two checkpoints (one more comes at the end)."""

    def __post_init__(self) -> None:
        may_be_0 = dict.fromkeys(("warmup_steps", "reference_every", "seed", "eval_every"), 0)
        check_fields(self, at_least=may_be_0, above={"temperature": 0, "learning_rate": 0, "clip": 0})
        if self.group < 2:
            because = "a group of one has nothing to be compared with, and its advantage is 0; say at least 2"
            raise refuse("group", self.group, because)
        if not 0 < self.top_p <= 1:
            raise refuse("top_p", self.top_p, "must be above 0 and at most 1")
        if self.drop_above and self.updates == 1 and self.keep_routing and (self.keep_mask or self.top_p == 1):
            because = "with one update of each answer the policy is still the one that drew it; say updates = 2 or more"
            raise refuse("drop_above", self.drop_above, because)
        if self.constant_until > 1 or self.decay_to > 1:
            name = "constant_until" if self.constant_until > 1 else "decay_to"
            raise refuse(name, getattr(self, name), "must lie between 0 and 1")
        if self.updates > self.questions:
            raise refuse("updates", self.updates, f"each takes some of the {self.questions} questions; say no more than those")
        if self.by == "answer" and self.divisor:
            raise refuse("divisor", self.divisor, "by = 'answer' has one ratio for an answer, divided by nothing; leave it out")
        if self.reference_every and not self.beta:
            raise refuse("reference_every", self.reference_every, "there is no reference to replace; say beta = 0.001 too")

    def as_training(self) -> TrainConfig:
        """What the loop and the optimizer are told."""
        return TrainConfig(
            steps=self.steps * self.updates,
            learning_rate=self.learning_rate,
            warmup_steps=self.warmup_steps * self.updates,
            constant_until=self.constant_until,
            decay_until=1.0,
            final_from=1.0,
            decay_to=self.decay_to,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
            seed=self.seed,
            workers=1,
        )
