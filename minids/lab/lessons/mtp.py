"""Notebook 8: the checks of its exercises, and what it measures of the chain."""

from collections.abc import Callable, Sequence

import numpy as np

from minids import check
from minids.check import Report
from minids.model import DeepSeekV3
from minids.ops import cross_entropy, mtp_combine
from minids.terminal import say

Array = np.ndarray


# Exercise 1: what is shown, what is asked.


def check_shown_and_target(shown_and_target: Callable, depths: Sequence[int] = (0, 1, 2)) -> Report:
    """Both arrays that shown_and_target(whole, k) gives, beside the table of section 1, place by place."""
    whole = np.arange(3 * 11).reshape(3, 11) % 17  # (B, T + 1): any text

    def by_the_table(whole, k):
        places = range(whole.shape[1] - 1 - k)
        return np.array([[whole[:, i + k] for i in places], [whole[:, i + k + 1] for i in places]]).swapaxes(1, 2)

    def both(whole, k):  # in one array, so that both are compared
        pair = shown_and_target(whole, k)
        return None if pair is None else np.stack(pair)

    def its_answer(whole, k):
        return np.stack([whole[:, k + 1 :]] * 2)

    both.__name__ = shown_and_target.__name__
    usual = {"what is shown is the target: the module is shown its answer.": its_answer}
    return check.against(by_the_table, both, [(whole, k) for k in depths], usual=usual)


# Exercise 2: join, and the way back.


def _to_join() -> dict[str, Array]:
    rng = np.random.default_rng(5)
    return {
        "embedding": rng.normal(size=(2, 3, 4)), "state": rng.normal(size=(2, 3, 4)), "enorm": rng.uniform(0.5, 1.5, 4),
        "hnorm": rng.uniform(0.5, 1.5, 4), "eh_proj": rng.normal(size=(4, 8)),
    }  # fmt: skip


def check_combine(combine: Callable) -> Report:
    """combine(embedding, state, enorm, hnorm, eh_proj) beside the package's."""
    return check.against(mtp_combine.forward, combine, *_to_join().values())


def check_combine_backward(combine: Callable, combine_backward: Callable) -> Report:
    """Gradients of all five arguments beside central differences of ``combine``."""
    return check.gradient(combine, combine_backward, _to_join())


# Exercise 3: the whole loss.


def check_mtp_loss(mtp_loss: Callable, model: DeepSeekV3, tokens: Array, targets: Array) -> Report:
    """mtp_loss(all_logits, targets, weight) beside the model's own losses of the same tokens, for two weights."""
    losses = model.losses(tokens, targets)
    all_logits = [model.logits(tokens), *model.mtp_logits(tokens)]

    def by_the_model(all_logits, targets, weight):
        return losses.main + weight * np.mean(losses.mtp)

    return check.against(by_the_model, mtp_loss, [(all_logits, targets, 0.3), (all_logits, targets, 0.1)])


def its_own_mean(all_logits: Sequence[Array], targets: Array, weight: float) -> float:
    """Wrong: the loss of depth k is divided by its own B · (T − k) terms."""
    means = []
    for k, logits in enumerate(all_logits):
        means.append(cross_entropy.forward(logits.reshape(-1, logits.shape[-1]), targets[:, k:].reshape(-1))[0])
    return means[0] + weight * np.mean(means[1:])


# Measured.


def told_losses(model: DeepSeekV3, tokens: Array, targets: Array) -> None:
    """Print the loss of every depth: divided by B · T as in eq. 24, the model's own, and divided by its own number of terms."""
    losses = model.losses(tokens, targets)
    all_logits = [model.logits(tokens), *model.mtp_logits(tokens)]
    for depth, (logits, own) in enumerate(zip(all_logits, (losses.main, *losses.mtp), strict=True)):
        flat, right = logits.reshape(-1, logits.shape[-1]), targets[:, depth:].reshape(-1)  # (N, V), (N,)
        divided, mean = cross_entropy.forward(flat, right, targets.size)[0], cross_entropy.forward(flat, right)[0]
        say(f"depth {depth}: eq. 24 {divided:.4f}, the model {own:.4f}, own mean {mean:.4f}")


def second_gradients(model: DeepSeekV3, tokens: Array, targets: Array, names: Sequence[str], weight: float) -> dict[str, float]:
    """Of each parameter: the size of the gradient that comes through the MTP module, as a share of the main loss's."""
    grads = []
    for part in (0.0, weight):
        model.parameters.zero_grads()
        model.forward_backward(tokens, targets, mtp_loss_weight=part)
        grads.append({name: model.parameters[name].grad.copy() for name in names})
    main, both = grads
    return {name: float(np.linalg.norm(both[name] - main[name]) / np.linalg.norm(main[name])) for name in names}
