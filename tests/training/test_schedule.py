"""The learning rate has V3's shape, and λ and γ switch where V3 switched them."""

import math

import pytest

from minids.config import ModelConfig, TrainConfig
from minids.training.schedule import learning_rate, settings

V3_RUN = TrainConfig(steps=148_000, warmup_steps=2000, learning_rate=2.2e-4)  # a step stands for 100M of 14.8T tokens
V3 = ModelConfig()


@pytest.mark.parametrize(
    ("tokens_in_t", "rate"),
    [(1.0, 2.2e-4), (9.99, 2.2e-4), (10 + 4.3 / 2, (2.2e-4 + 2.2e-5) / 2), (14.4, 2.2e-5), (14.6, 2.2e-5), (14.7, 7.3e-6)],
)
def test_v3_rates(tokens_in_t, rate):
    assert learning_rate(round(tokens_in_t * 10_000), V3_RUN) == pytest.approx(rate, rel=1e-9)


def test_warm_up_is_linear_and_ends_at_the_peak():
    rates = [learning_rate(step, V3_RUN) for step in range(2001)]
    assert rates[0] == pytest.approx(2.2e-4 / 2000)
    assert rates[999] == pytest.approx(2.2e-4 / 2)
    assert rates[1999] == rates[2000] == 2.2e-4


def test_the_decay_is_a_cosine():
    quarter = learning_rate(round((10 + 4.3 / 4) * 10_000), V3_RUN)
    assert quarter == pytest.approx(2.2e-4 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4))), rel=1e-9)


def test_a_straight_decay_falls_evenly_from_the_warm_up_to_the_end():
    run = TrainConfig(
        steps=100,
        warmup_steps=4,
        learning_rate=2.0,
        constant_until=0,
        decay_until=1,
        final_from=1,
        decay_to=0,
        decay_shape="linear",
    )
    assert [learning_rate(step, run) for step in (3, 4, 50, 75, 99)] == pytest.approx([2.0, 1.92, 1.0, 0.5, 0.02])


def test_a_short_run_warms_up_for_a_tenth_of_it_at_most():
    run = TrainConfig(steps=20, warmup_steps=50, learning_rate=1.0)
    assert learning_rate(1, run) == learning_rate(2, run) == 1.0
    assert learning_rate(0, run) == 0.5
    assert learning_rate(0, TrainConfig(steps=1, learning_rate=1.0)) == 1.0


@pytest.mark.parametrize(
    ("tokens_in_t", "weight", "speed"), [(9.9, 0.3, 1e-3), (10.1, 0.1, 1e-3), (14.2, 0.1, 1e-3), (14.4, 0.1, 0)]
)
def test_mtp_weight_and_bias_speed(tokens_in_t, weight, speed):
    now = settings(round(tokens_in_t * 10_000), V3, V3_RUN)
    assert now.mtp_loss_weight == pytest.approx(weight)
    assert now.bias_update_speed == speed
    assert now.mtp


def test_mtp_modules_rest_before_the_share_that_is_asked_for():
    run = TrainConfig(steps=10, mtp_from=0.3)
    assert [settings(step, V3, run).mtp for step in range(10)] == [False] * 3 + [True] * 7
