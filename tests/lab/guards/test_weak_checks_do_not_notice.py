"""Why shapes, non-zero gradients and a falling loss prove little: all three pass with the known mistakes in.

Each check is run on a small whole model with the mistake put in. Where one notices a mistake after all, the table of guards
says so with the reason, and it is asserted that it really does.
"""

import numpy as np
import pytest
import support
from guard_table import FALLING, GUARDS, NOT_ZERO, SHAPES

from minids.lab.mistakes import IN_GENERATION, made
from minids.lab.mistakes.fp8 import IN_FP8
from minids.lab.mistakes.policy import IN_POLICY

CONFIG = support.TINY.replace(rope_scaling=support.SHORT_YARN, rope_theta=10.0, aux_loss_alpha=0.001)
FP8 = CONFIG.replace(precision="fp8")


def shapes_are_right(model, tokens, targets):
    assert model.logits(tokens).shape == (*tokens.shape, CONFIG.vocab_size)
    assert [x.shape[1] for x in model.mtp_logits(tokens)] == [tokens.shape[1] - 1, tokens.shape[1] - 2]
    losses, gradients = model.loss_and_grads(tokens, targets)
    assert np.isfinite(losses.total)
    for p in model.parameters:
        assert gradients[p.name].shape == p.value.shape and np.isfinite(gradients[p.name]).all()


def gradients_are_not_zero(model, tokens, targets):
    for name, gradient in model.loss_and_grads(tokens, targets)[1].items():
        assert gradient.any(), name


def loss_falls(model, tokens, targets):
    history = support.adam(model, tokens, targets, steps=25, rate=0.01)
    assert history[-1].total < 0.7 * history[0].total
    assert history[-1].main < 0.7 * history[0].main
    assert all(after < 0.8 * before for before, after in zip(history[0].mtp, history[-1].mtp, strict=True))
    model.losses(tokens, targets)


CHECKS = {SHAPES: shapes_are_right, NOT_ZERO: gradients_are_not_zero, FALLING: loss_falls}
CASES = [
    pytest.param(
        guard,
        check,
        id=f"{guard.mistake.__name__}-{check}",
        marks=pytest.mark.slow if guard.mistake in IN_FP8 and check == FALLING else (),  # a second or two each, in NumPy
    )
    for guard in GUARDS
    if guard.mistake not in (*IN_GENERATION, *IN_POLICY)  # where these checks have nothing to say
    for check in CHECKS
]


@pytest.mark.parametrize(("guard", "check"), CASES)
def test_the_weak_check_passes_with_the_mistake_in(guard, check):
    tokens, targets = support.batch(CONFIG, 3, 8, seed=2)
    with made(guard.mistake):
        model = support.build(FP8 if guard.mistake in IN_FP8 else CONFIG, dtype=np.float32, lively=check != FALLING)
        if check in guard.weak_checks:
            with pytest.raises(AssertionError):
                CHECKS[check](model, tokens, targets)
        else:
            CHECKS[check](model, tokens, targets)


@pytest.mark.parametrize("config", [CONFIG, FP8], ids=lambda config: config.precision)
@pytest.mark.parametrize("check", CHECKS)
def test_the_weak_check_passes_on_the_right_model_too(check, config):
    model = support.build(config, dtype=np.float32, lively=check != FALLING)
    CHECKS[check](model, *support.batch(CONFIG, 3, 8, seed=2))
