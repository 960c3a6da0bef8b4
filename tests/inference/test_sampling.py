"""The distribution drawn from is the one that was asked for."""

import numpy as np
import pytest

from minids.errors import MinidsError
from minids.inference.sampling import Sampling

LOGITS = np.log(np.array([[0.5, 0.3, 0.15, 0.05]]))


def test_temperature_one_is_the_models_own_distribution():
    np.testing.assert_allclose(Sampling(1.0).probabilities(LOGITS), [[0.5, 0.3, 0.15, 0.05]])


def test_temperature_sharpens():
    p = np.array([0.5, 0.3, 0.15, 0.05]) ** 2
    np.testing.assert_allclose(Sampling(0.5).probabilities(LOGITS)[0], p / p.sum())


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(1.0, top_k=2), [0.5, 0.3, 0, 0]),
        (Sampling(1.0, top_p=0.79), [0.5, 0.3, 0, 0]),
        (Sampling(1.0, top_p=0.81), [0.5, 0.3, 0.15, 0]),
        (Sampling(1.0, top_p=0.1), [0.5, 0, 0, 0]),
        (Sampling(1.0, top_k=9), [0.5, 0.3, 0.15, 0.05]),
        (Sampling(0.0), [1, 0, 0, 0]),
    ],
)
def test_top_k_and_top_p_keep_the_likeliest(sampling, kept):
    np.testing.assert_allclose(sampling.probabilities(LOGITS)[0], np.array(kept) / sum(kept))


def test_draws_follow_the_distribution():
    draws = Sampling(1.0).draw(np.repeat(LOGITS, 40_000, axis=0), np.random.default_rng(0))
    shares = np.bincount(draws, minlength=4) / 40_000
    assert np.abs(shares - [0.5, 0.3, 0.15, 0.05]).max() < 4 * np.sqrt(0.25 / 40_000)


def test_impossible_tokens_are_never_drawn():
    logits = np.full((1000, 5), -np.inf)
    logits[:, 3] = 0.0
    assert (Sampling(1.0).draw(logits, np.random.default_rng(0)) == 3).all()


@pytest.mark.parametrize(
    ("field", "value"), [("temperature", -1), ("temperature", float("nan")), ("top_k", -2), ("top_p", 0), ("top_p", 2)]
)
def test_settings_that_mean_nothing_are_refused(field, value):
    with pytest.raises(MinidsError, match=f"^{field} = "):
        Sampling(**{field: value})
