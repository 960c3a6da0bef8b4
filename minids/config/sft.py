"""The configuration of supervised fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass

from minids.config.checks import Replaceable, check_fields
from minids.config.training import TrainConfig
from minids.errors import refuse


@dataclass(frozen=True)
class SFTConfig(Replaceable):
    """Supervised fine-tuning on prompts and answers, as DeepSeek-V3's (section 5.1)."""

    epochs: int = 2
    """Times that every sample is learned from (V3: 2)."""
    batch_size: int = 8
    """Sequences of a step, at most; each holds as many samples as fit."""
    context_length: int = 256
    """T: tokens per sequence."""
    learning_rate: float = 1e-4
    """Rate at the beginning (V3: 5e-6)."""
    decay_to: float = 0.2
    """Rate at the end of half a cosine, as a share of that (V3: 1e-6 of 5e-6)."""
    warmup_steps: int = 10
    """Steps of linear warm-up from 0, at most a tenth of all."""
    restart: bool = True
    """Positions begin at 0 in every sample, as where it stands alone; else they run on through the sequence. RoPE looks at
    differences, so that both give the same up to rounding."""
    mtp: bool = True
    """Train the MTP modules along, on the answers."""
    weight_decay: float = 0.0
    """Decoupled decay of AdamW."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this global norm; 0 switches clipping off."""
    seed: int = 0
    """Seed of the samples' order."""
    log_every: int = 10
    """Steps between two lines about the loss."""
    save_every: int = 50
    """Steps between two checkpoints (one more comes at the end)."""

    def __post_init__(self) -> None:
        check_fields(self, at_least={"warmup_steps": 0, "seed": 0}, above={"learning_rate": 0})
        if self.decay_to > 1:
            raise refuse("decay_to", self.decay_to, "must lie between 0 and 1")

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
            mtp_late_factor=1.0,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
            seed=self.seed,
            workers=1,
        )
