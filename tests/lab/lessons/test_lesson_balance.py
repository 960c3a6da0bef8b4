"""Notebook 7: chance, limits of nodes, the mistake in the loss, and what a study's arms are told by."""

import numpy as np
import pytest

from minids.lab.lessons import balance
from minids.lab.studies.store import results


@pytest.mark.parametrize("tokens", [512, 2048])
def test_chance_is_less_uneven_in_a_larger_batch(tokens):
    assert balance.by_lot(4 * tokens, 16, 4) < 0.7 * balance.by_lot(tokens, 16, 4)


def test_every_limit_keeps_more_of_the_score_than_a_stricter_one():
    kept = balance.score_kept(np.random.default_rng(0).uniform(size=(200, 256)), top_k=8, nodes=8)
    assert np.all(np.diff(kept) >= 0) and kept[-1] == 1 and kept[0] > 0.8


def test_a_constant_normaliser_is_the_loss_without_the_quotient_rule():
    scores, chosen = np.random.default_rng(0).uniform(0.1, 0.9, (6, 5)), np.tile([0, 1], (6, 1))
    _, saved = balance.balance_loss.forward(scores, chosen, 6)
    fixed = saved.total
    eps, found = 1e-6, balance.constant_normaliser(1.0, saved)
    for t, j in ((0, 0), (3, 4)):
        moved = scores.copy()
        moved[t, j] += eps
        value = np.sum(saved.load[0, 0] * (moved / fixed[0]).mean(axis=0)) - np.sum(
            saved.load[0, 0] * (scores / fixed[0]).mean(axis=0)
        )
        assert found[t, j] == pytest.approx(value / eps, rel=1e-6, abs=1e-9)


def test_all_arms_are_told(capsys):
    study = results("balance")
    balance.told_arms(study["arms"])
    told = " ".join(capsys.readouterr().out.split())
    assert all(name in told for name in study["arms"])
