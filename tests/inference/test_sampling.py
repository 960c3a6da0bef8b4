"""The distribution drawn from is the one that was asked for."""

import numpy as np
import pytest

from minids.errors import MinidsError
from minids.inference.sampling import Sampling, Token

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
        (Sampling(1.0, min_p=0.29), [0.5, 0.3, 0.15, 0]),
        (Sampling(1.0, min_p=0.31), [0.5, 0.3, 0, 0]),
        (Sampling(1.0, min_p=0.05), [0.5, 0.3, 0.15, 0.05]),
        (Sampling(1.0, min_p=1.0), [0.5, 0, 0, 0]),
        (Sampling(1.0, top_k=2, min_p=0.05), [0.5, 0.3, 0, 0]),
        (Sampling(1.0, top_p=0.81, min_p=0.5), [0.5, 0.3, 0, 0]),
    ],
)
def test_top_k_top_p_and_min_p_keep_the_likeliest(sampling, kept):
    np.testing.assert_allclose(sampling.probabilities(LOGITS)[0], np.array(kept) / sum(kept))


@pytest.mark.parametrize("temperature", [0.05, 0.01])
def test_however_cold_the_temperature_it_is_the_one_asked_for(temperature):
    """Between the two likeliest the odds are (0.5 / 0.3)^(1 / temperature): 27,000 and 10^22."""
    p = Sampling(temperature).probabilities(LOGITS)[0]
    np.testing.assert_allclose(p[0] / p[1], (0.5 / 0.3) ** (1 / temperature), rtol=1e-9)
    p = Sampling(temperature**4).probabilities(temperature**4 * np.array([[0.0, -1.0]]))[0]  # down to 1e-8
    np.testing.assert_allclose(p[0] / p[1], np.e)
    assert Sampling(1e-300).probabilities(LOGITS)[0].tolist() == [1, 0, 0, 0]


def test_min_p_is_measured_after_the_temperature():
    """0.3 is 0.6 times the likeliest; at temperature 1/2 it is 0.36 times, at 2 it is 0.77 times as likely."""
    kept = [int((Sampling(t, min_p=0.5).probabilities(LOGITS) > 0).sum()) for t in (0.5, 1.0, 2.0)]
    assert kept == [1, 2, 3]


def test_rows_do_not_know_each_other():
    logits = np.random.default_rng(0).normal(size=(3, 2, 9))
    for sampling in (Sampling(0.0), Sampling(0.7, top_k=4, top_p=0.9, min_p=0.1)):
        whole = sampling.probabilities(logits)
        assert all(np.array_equal(whole[i, j], sampling.probabilities(logits[i, j])) for i in range(3) for j in range(2))


def test_draws_follow_the_distribution():
    rng = np.random.default_rng(0)
    shares = np.bincount([Sampling(1.0).draw(LOGITS[0], rng) for _ in range(40_000)], minlength=4) / 40_000
    assert np.abs(shares - [0.5, 0.3, 0.15, 0.05]).max() < 4 * np.sqrt(0.25 / 40_000)


def test_impossible_tokens_are_never_drawn():
    logits, rng = np.full(5, -np.inf), np.random.default_rng(0)
    logits[3] = 0.0
    assert {Sampling(1.0).draw(logits, rng) for _ in range(1000)} == {3}


def test_log_probabilities_are_of_the_models_own_distribution():
    logits = np.array([2.0, -1.0, 0.5])
    want = np.log(np.exp(logits) / np.exp(logits).sum())
    assert np.abs([Token(i, logits).log_probability - want[i] for i in range(3)]).max() < 1e-14
    assert Token(0, np.array([1e4, 0.0], np.float32)).log_probability == 0, "too large for exp"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -1),
        ("temperature", float("nan")),
        ("top_k", -2),
        ("top_p", 0),
        ("top_p", 2),
        ("min_p", -0.1),
        ("min_p", 2),
    ],
)
def test_settings_that_mean_nothing_are_refused(field, value):
    with pytest.raises(MinidsError, match=f"^{field} = "):
        Sampling(**{field: value})
