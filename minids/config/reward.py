"""The configuration of training a reward model."""

from __future__ import annotations

from dataclasses import dataclass

from minids.config.checks import Replaceable, check_fields
from minids.config.training import TrainConfig
from minids.errors import refuse


@dataclass(frozen=True)
class RewardConfig(Replaceable):
    """A reward model, trained on pairs of answers of which one was preferred (DeepSeek-V3, section 5.2.1)."""

    epochs: int = 1
    """Times that every pair is learned from; more than one is soon learned by heart (InstructGPT: 1)."""
    batch_size: int = 16
    """Pairs of a step."""
    learning_rate: float = 1e-4
    """Rate at the beginning, after the warm-up."""
    decay_to: float = 0.1
    """Rate at the end of half a cosine, as a share of that."""
    warmup_steps: int = 10
    """Steps of linear warm-up from 0, at most a tenth of all."""
    weight_decay: float = 0.0
    """Decoupled decay of AdamW."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this global norm; 0 switches clipping off."""
    validation_share: float = 0.1
    """Share of the prompts that are held out with all their pairs, to measure loss and accuracy on; 0 for none."""
    eval_every: int = 50
    """Steps between two such measurements (one comes before the first step and one at the end); 0 for none on the way."""
    seed: int = 0
    """Seed of the pairs' order, and of which are held out."""
    log_every: int = 10
    """Steps between two lines about the loss."""
    save_every: int = 50
    """Steps between two checkpoints (one more comes at the end)."""

    def __post_init__(self) -> None:
        check_fields(self, at_least={"warmup_steps": 0, "seed": 0, "eval_every": 0}, above={"learning_rate": 0})
        if self.decay_to > 1:
            raise refuse("decay_to", self.decay_to, "must lie between 0 and 1")
        if self.validation_share >= 1:
            raise refuse("validation_share", self.validation_share, "must be below 1, or nothing is left to learn from")

    def as_training(self, steps: int) -> TrainConfig:
        """What the loop and the optimizer are told."""
        return TrainConfig(
            steps=steps,
            learning_rate=self.learning_rate,
            warmup_steps=self.warmup_steps,
            constant_until=0.0,
            decay_until=1.0,
            final_from=1.0,
            decay_to=self.decay_to,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
            seed=self.seed,
            workers=1,
        )
