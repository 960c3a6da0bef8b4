"""Notebook 11: the checks of its exercises, what the small model writes, and its loads and attention on held-out text."""

from collections.abc import Callable, Sequence

import numpy as np

from minids import check
from minids.check import Report
from minids.checkpoint.tokenizer import Tokenizer
from minids.config import TrainConfig
from minids.inference.generate import generate
from minids.model import DeepSeekV3
from minids.ops import adamw
from minids.terminal import say
from minids.training.batches import TokenStream, validation_windows
from minids.training.corpus import Corpus
from minids.training.metrics import max_violation
from minids.training.schedule import learning_rate

Array = np.ndarray
Windows = Sequence[tuple[Array, Array]]  # tokens and targets (B, T), targets below 0 for padding


def domains(corpus: Corpus) -> None:
    """How many documents each domain has, and how one of them begins."""
    for domain in corpus.domains:
        documents = corpus.of(domain)
        start = documents[1].text[:300].decode(errors="replace").split("\n", 1)[-1]
        say(f"{domain:<11} {len(documents):>4} documents, such as: {' '.join(start.split())[:60]} …")


def written(model: DeepSeekV3, prompt: str, length: int = 70) -> str:
    """What the model writes after a prompt, on one line: a dot for what cannot be printed."""
    text = model.tokenizer.decode(generate(model, prompt, length, temperature=0.5, seed=4)).replace("\n", "⏎")
    shown = "".join(c if c.isprintable() and c != "\ufffd" else "·" for c in text)
    return f"{prompt.strip()!r} → {shown}"


def windows(held_out: Corpus, tokenizer: Tokenizer, batches: int = 4) -> dict[str, Windows]:
    """Of each domain of a corpus a few batches of tokens and targets, 8 sequences of 96 each."""
    found = {}
    for domain in held_out.domains:
        tokens = TokenStream.encode(held_out.of(domain), tokenizer).tokens
        found[domain] = list(validation_windows(tokens, 8, 96, 8 * 96 * batches))
    return found


def loads(model: DeepSeekV3, pieces: Windows) -> Array:
    """Load of every expert of every layer on some text, as multiples of the mean: (layers, E), the MTP module's last."""
    counts = sum(model.losses(x, np.where(y < 0, 0, y)).counts for x, y in pieces)
    return counts / counts.mean(axis=1, keepdims=True)


def characters_back(probs: Array, later: int = 8) -> Array:
    """probs (H, T, T), query by key → how far back each head looks, the mean over queries from ``later`` on, (H,)."""
    places = np.arange(probs.shape[-1])
    return (probs * (places[:, None] - places)).sum(axis=-1)[:, later:].mean(axis=-1)


# Exercise 1.


def check_rate(rate: Callable) -> Report:
    """V3's shape, in steps of all its parts and in runs of two lengths."""
    some = [(s, 1000, 2.2e-4) for s in (0, 19, 20, 500, 700, 900, 970, 995)]
    return check.against(of_the_schedule, rate, [*some, *((s, 400, 6e-3) for s in (10, 300, 350, 390, 398))])


def of_the_schedule(step: int, steps: int, peak: float) -> float:
    """The same from training/schedule.py."""
    return learning_rate(step, TrainConfig(steps=steps, learning_rate=peak, warmup_steps=20))


# Exercise 2.


def check_adamw_step(adamw_step: Callable) -> Report:
    """Early and late steps, with gradients of usual size and with some so weak that ε counts."""
    rng = np.random.default_rng(7)
    theta, g, m = rng.normal(size=(3, 50))
    v = rng.uniform(0, 1, 50)
    arrays, weak = (theta, g, m, v), (theta, 1e-8 * g, 1e-8 * m, 1e-16 * v)

    def stacked(*arguments):
        three = adamw_step(*arguments)
        return None if three is None else np.stack(three)

    stacked.__name__ = adamw_step.__name__
    cases = [(*arrays, 1, 1e-2), (*arrays, 30, 1e-3), (*weak, 1, 1e-2), (*weak, 30, 1e-2)]
    usual = {"the decay passes through m and v: that is Adam with L2 regularisation, not AdamW.": decay_in_the_gradient}
    return check.against(updated_copy, stacked, cases, tolerance=1e-8, usual=usual)


def updated_copy(theta: Array, g: Array, m: Array, v: Array, t: int, lr: float) -> Array:
    """ops/adamw.py works in place; here on copies. (3, P): θ, m and v."""
    theta, m, v = theta.copy(), m.copy(), v.copy()
    adamw.update(theta, g, m, v, lr, 0.9, 0.95, 1e-8, 0.1, t)
    return np.stack([theta, m, v])


def decay_in_the_gradient(theta: Array, g: Array, m: Array, v: Array, t: int, lr: float) -> Array:
    """Wrong: the decay is added to the gradient."""
    g = g + 0.1 * theta
    m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
    return np.stack([theta - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.95**t)) + 1e-8), m, v])


# Exercise 3.


def check_max_vio(max_vio: Callable) -> Report:
    """Loads with experts that nobody chose, and one that everybody did."""
    rng = np.random.default_rng(7)
    cases = [(rng.integers(0, 12, (40, 4)), 16), (np.zeros((5, 1), int), 8), (rng.integers(0, 15, (400, 4)), 16)]
    usual = {"experts that nobody chose are missing from the mean.": without_the_idle}
    return check.against(from_counts, max_vio, cases, usual=usual)


def from_counts(chosen: Array, experts: int) -> float:
    """The package's, from the loads."""
    return max_violation(np.bincount(chosen.reshape(-1), minlength=experts))


def without_the_idle(chosen: Array, experts: int) -> float:
    """Wrong: bincount without minlength ends at the last expert that was chosen."""
    found = np.bincount(chosen.reshape(-1))
    return found.max() / found.mean() - 1
