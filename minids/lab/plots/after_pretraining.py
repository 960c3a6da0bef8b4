"""Notebook 17: what is learned from, what advantages are, what the clip does, how a reward rises."""

from collections.abc import Mapping, Sequence

import numpy as np

from minids.lab import notebook
from minids.ops import policy_loss

Array = np.ndarray
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, BLACK = notebook.COLOURS


def learned_from(pieces: Sequence[str], counted: Sequence[bool]) -> None:
    """A question and its answer in tokens; those whose prediction counts in the loss are blue."""
    figure, axis = notebook.picture(width=9.4, height=0.6)
    letters = {"family": "DejaVu Sans Mono", "fontsize": 10, "va": "center"}
    x = 0.0
    for piece, counts in zip(pieces, counted, strict=True):
        box = {"boxstyle": "round,pad=0.15", "fc": "#CDE5F5" if counts else "#ECECEC", "ec": "none"}
        axis.text(x, 0, piece, color=BLACK, bbox=box, **letters)
        x += len(piece) + 1.1
    axis.set(xlim=(-1, max(x, 100)), ylim=(-1, 1))
    axis.axis("off")
    notebook.show(figure, "The tokens of a question, grey, and of its answer, blue: only the blue ones are graded.")


def groups(rewards: Array, advantages: Array) -> None:
    """rewards and advantages (groups, G): a panel for each group."""
    figure, axes = notebook.picture(1, len(rewards), width=9, height=2.2, sharey=True)
    for axis, got, worth in zip(axes, rewards, advantages, strict=True):
        place = np.arange(len(got))
        axis.bar(place, worth, color=np.where(worth >= 0, BLUE, ORANGE))
        axis.axhline(0, color="0.5", lw=0.8)
        axis.set_xticks(place, [f"{r:g}" for r in got])
        axis.set(xlabel="rewards of its answers")
        axis.set_title("no contrast" if not worth.any() else "", fontsize=10)
    axes[0].set(ylabel="advantage")
    notebook.show(figure, "Advantages of three groups: few right answers weigh much, and a group of equal rewards is flat.")


def clip(epsilon: float = 0.2) -> None:
    """What an answer contributes, by how much likelier it has become: a good one and a bad one."""
    figure, axes = notebook.picture(1, 2, width=9, height=2.5)
    rho = np.linspace(0.4, 1.8, 281)
    for axis, A, name in zip(axes, (1.0, -1.0), ("a good answer, A = 1", "a bad answer, A = −1"), strict=True):
        value, _, clipped = policy_loss.surrogate(rho, np.full_like(rho, A), epsilon)
        axis.plot(rho, rho * A, color="0.75", ls="--", label="ρ A")
        axis.plot(rho, np.where(clipped, np.nan, value), color=BLUE, label="still counts")
        axis.plot(rho, np.where(clipped, value, np.nan), color=ORANGE, label="slope 0: let go")
        axis.axvline(1, color="0.8", lw=1)
        axis.set(xlabel="ρ = π / π_old", ylabel="min(ρ A, clip(ρ) A)", title=name)
    axes[0].legend()
    alt = "A good answer is let go once it is likelier by ε, a bad one once it is rarer by ε; the other way both still count."
    notebook.show(figure, alt)


def divergence(p: Array, q: Array, draws: Array) -> None:
    """Both measures of how far π is from π_ref, of each drawn token: p, q (V,), draws (n,)."""
    log_q = np.log(q[draws] / p[draws])
    k1, k3 = -log_q, policy_loss.k3(log_q)[0]
    truth = float(np.sum(p * np.log(p / q)))
    figure, axis = notebook.picture(width=8, height=2.4)
    bins = np.linspace(-1.5, 2.0, 57)
    axis.hist(k1, bins, color=ORANGE, alpha=0.7, label=f"ln(π / π_ref): mean {k1.mean():.3f}, spread {k1.std():.2f}")
    axis.hist(k3, bins, color=BLUE, alpha=0.7, label=f"D: mean {k3.mean():.3f}, spread {k3.std():.2f}")
    axis.axvline(truth, color=BLACK, lw=1, label=f"KL = {truth:.3f}")
    axis.set(xlabel="of one drawn token, nats", ylabel="tokens")
    axis.legend()
    notebook.show(figure, "Both have KL as their mean; D is never negative and spreads less.")


def rising(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """Of each run: mean reward of a step's answers, and the share of groups with contrast."""
    figure, (left, right) = notebook.picture(1, 2, width=9, height=2.5)
    for (name, history), colour in zip(histories.items(), (BLUE, ORANGE, GREEN), strict=False):
        steps = [line["step"] for line in history]
        left.plot(steps, [line["reward"] for line in history], color=colour, label=name)
        right.plot(steps, [100 * line["contrast"] for line in history], color=colour, label=name)
    left.set(xlabel="step", ylabel="mean reward", ylim=(-0.03, 1.05))
    right.set(xlabel="step", ylabel="groups with contrast, %", ylim=(-3, 105))
    left.legend(loc="lower right")
    notebook.show(
        figure, "Left: mean reward by step, of each run. Right: where all answers of a group are alike, it has no contrast."
    )
