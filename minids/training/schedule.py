"""What changes during training: learning rate, weight of the MTP loss, speed of the balancing bias.

DeepSeek-V3 section 4.2, in shares of a run of 14.8T tokens:

    learning rate   linear from 0 over the first 2000 steps; constant to 10T; cosine to a tenth over 4.3T;
                    constant for 333B; a thirtieth for the last 167B
    λ               0.3 to 10T, then 0.1
    γ               0.001 to 14.3T, then 0

The same shape, in shares of any run. Short runs keep the warm-up to a tenth of their steps.
"""

import math
from typing import NamedTuple

from minids.config import ModelConfig, TrainConfig
from minids.training.batch_ramp import share_done


class Settings(NamedTuple):
    """What one step is taken with."""

    learning_rate: float
    mtp_loss_weight: float
    bias_update_speed: float
    mtp: bool  # whether the MTP modules take part


def settings(step: int, model: ModelConfig, train: TrainConfig) -> Settings:
    """Of step ``step``, counted from 0."""
    done = share_done(step, train)
    mtp_loss_weight = model.mtp_loss_weight * (train.mtp_late_factor if done >= train.constant_until else 1.0)
    bias_update_speed = model.bias_update_speed if done < train.decay_until else 0.0
    return Settings(learning_rate(step, train), mtp_loss_weight, bias_update_speed, mtp=done >= train.mtp_from)


def learning_rate(step: int, train: TrainConfig) -> float:
    """Of step ``step``, counted from 0."""
    warmup = min(train.warmup_steps, train.steps // 10)
    if step < warmup:
        return train.learning_rate * (step + 1) / warmup
    done = share_done(step, train)
    if done < train.constant_until:
        return train.learning_rate
    if done < train.decay_until:
        along = (done - train.constant_until) / (train.decay_until - train.constant_until)  # 0 … 1
        left = 1 - along if train.decay_shape == "linear" else 0.5 * (1 + math.cos(math.pi * along))  # 1 … 0
        return train.learning_rate * (train.decay_to + (1 - train.decay_to) * left)
    return train.learning_rate * (train.decay_to if done < train.final_from else train.final_to)
