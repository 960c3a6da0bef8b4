"""Validation looks at the tokens it says, and compares the main model and its MTP modules on the same ones."""

import numpy as np
import pytest
import support

from minids.model import IGNORE
from minids.training.evaluate import beside_mtp


def nats(logits, targets):
    """-log p of each target, by hand: logits (..., V), targets (...)."""
    z = logits - logits.max(-1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    return -np.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]


@pytest.mark.parametrize("unfilled", [0, 3], ids=["whole windows", "a window that is not filled"])
def test_both_losses_are_means_over_the_tokens_that_both_predict(unfilled):
    model = support.build()
    batches = [support.batch(size=3, length=9, seed=seed) for seed in (0, 1)]
    if unfilled:
        batches[1][1][-1, -unfilled:] = IGNORE
    found = beside_mtp(model, batches)
    for k in (1, 2):
        main, mtp = [], []
        for tokens, targets in batches:
            counted = targets[:, k:] != IGNORE
            label = np.where(counted, targets[:, k:], 0)
            main.append(nats(model.logits(tokens)[:, k:], label)[counted])
            mtp.append(nats(model.mtp_logits(tokens)[k - 1], label)[counted])
        assert found[f"main_beside_mtp_{k}"] == pytest.approx(np.concatenate(main).mean(), rel=1e-12)
        assert found[f"mtp_{k}"] == pytest.approx(np.concatenate(mtp).mean(), rel=1e-12)


def test_a_model_without_modules_has_nothing_to_compare():
    model = support.build(support.TINY.replace(num_nextn_predict_layers=0))
    assert beside_mtp(model, [support.batch()]) == {}
