"""Notebook 7: the checks of its exercises, the wrong answers that it shows, and small measurements."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from minids import check
from minids.check import Report
from minids.lab.analysis import traffic
from minids.ops import balance_loss, bias_update, router
from minids.terminal import say
from minids.training.metrics import max_violation
from minids.words import table

Array = np.ndarray


def _some_scores() -> tuple[Array, Array]:
    """45 tokens that choose 3 of 14 experts unevenly: every number is another."""
    scores = np.random.default_rng(0).uniform(0.05, 0.95, (45, 14))
    return scores, router.choose(scores + np.linspace(0.3, 0, 14), 3)


# Exercise 1: the thermostat.


def check_turn(turn: Callable) -> Report:
    """turn(bias, chosen, speed) beside the package's update; with an idle expert, and with some that have just the mean."""
    few = np.array([[0, 4], [0, 3], [1, 0], [2, 0], [4, 3], [0, 1]])  # 5 is idle; 1, 3 and 4 have the mean
    skewed = np.array([[0, 1], [0, 2], [0, 3], [0, 4], [0, 5], [0, 1], [0, 2], [0, 3], [0, 4]])
    zero, start = np.zeros(6, np.float32), np.linspace(-0.05, 0.05, 6, dtype=np.float32)
    questions = [(zero, few, 0.01), (start, few, 0.01), (start, skewed, 0.01)]
    usual = {"this compares each count with the median; c̄ is the mean.": _turn_by_the_median}
    return check.against(right_turn, turn, questions, tolerance=1e-5, usual=usual)


def right_turn(bias: Array, chosen: Array, speed: float) -> Array:
    """One update by the package."""
    return bias_update.updated(bias, np.bincount(chosen.reshape(-1), minlength=len(bias)), speed)


def _turn_by_the_median(bias: Array, chosen: Array, speed: float) -> Array:
    counts = np.bincount(chosen.reshape(-1), minlength=len(bias))
    return bias + speed * np.sign(np.median(counts) - counts)


def by_lot(tokens: int, experts: int, top_k: int) -> float:
    """MaxVio of a batch in which every token draws its experts by lot: mean of fifty."""
    rng = np.random.default_rng(1)
    drawn = (np.argsort(rng.random((tokens, experts)))[:, :top_k] for _ in range(50))
    return float(np.mean([max_violation(np.bincount(chosen.reshape(-1))) for chosen in drawn]))


# Exercises 2 and 3: the loss within a sequence.


def check_sequence_loss(sequence_loss: Callable) -> Report:
    """sequence_loss(scores, chosen) beside the package's, for two sequences of different sizes."""

    def right_loss(scores, chosen):
        return balance_loss.forward(scores, chosen, len(scores))[0]

    other = np.random.default_rng(1).uniform(0.05, 0.95, (33, 10))
    return check.against(right_loss, sequence_loss, [_some_scores(), (other, router.choose(other, 7))])


def check_loss_backward(loss_backward: Callable) -> Report:
    """loss_backward(d_loss, saved) beside central differences, for two sequences of five tokens."""
    scores, chosen = _some_scores()
    two = {"scores": scores[:10], "chosen": chosen[:10], "tokens_per_group": 5}
    return check.gradient(balance_loss.forward, loss_backward, two)


def constant_normaliser(d_loss: float, saved: balance_loss.Saved) -> Array:
    """Wrong: the sum S of a token's scores is taken for a constant."""
    share, total, load = saved
    return (np.broadcast_to(load / total, share.shape) * d_loss / share[..., 0].size).reshape(-1, share.shape[-1])


def detached(d_loss: float, saved: balance_loss.Saved) -> Array:
    """Wrong: P is detached, so that nothing of the loss reaches the scores."""
    return np.zeros((saved.share[..., 0].size, saved.share.shape[-1]))


# The kept study.


def loads(arm: Mapping) -> Array:
    """Relative load by domain, layer and expert, (D, layers, E), of an arm's first seed."""
    return np.array(list(arm["details"]["relative_load"].values()))


def told_arms(arms: Mapping[str, Mapping]) -> None:
    """Print loss, MaxVio and specialisation of every arm, mean and spread over its seeds."""
    rows = []
    for name, arm in arms.items():
        loss, vio, bits = (arm["summary"][key] for key in ("loss", "max_vio", "specialisation"))
        told = ((loss, 3), (vio, 2), (bits, 3))
        rows.append((name, *(f"{value['mean']:.{digits}f} ± {value['spread']:.{digits}f}" for value, digits in told)))
    say(table(rows, ("", "loss", "MaxVio", "bits")))


# Exercises 4 and 5: the limit on nodes.


def scores() -> Array:
    """200 tokens, 16 experts: scores before any bias."""
    return np.random.default_rng(3).uniform(0.05, 0.95, (200, 16))


def check_limited(limited: Callable, shifts: Sequence[float] = (0, -1)) -> Report:
    """limited(biased, top_k, n_group, topk_group) beside the package's choice; shifted biases change no order."""
    return check.against(router.choose, limited, [(scores() + shift, 4, 4, 2) for shift in shifts])


def score_kept(of_all: Array, top_k: int, nodes: int) -> Array:
    """For every limit M of nodes: the chosen experts' scores, as a share of those of a free choice."""
    limits = range(1, nodes + 1)
    sums = [np.take_along_axis(of_all, router.choose(of_all, top_k, nodes, m), axis=1).sum() for m in limits]
    return np.array(sums) / sums[-1]


def check_crossing(crossing: Callable) -> Report:
    """crossing(chosen, experts, nodes, d), mean bytes a token, beside the package's meter, at V3's sizes."""

    def right_crossing(chosen, experts, nodes, d):
        return traffic.meter(chosen, experts, nodes, d).bytes

    picks = router.choose(np.random.default_rng(0).uniform(size=(500, 256)), 8, 8, 4)
    return check.against(right_crossing, crossing, picks, 256, 8, 7168)
