"""Pictures of notebook 2: how exact a measured slope is, what a norm's gradient leaves out, and where a loss comes from."""

from collections.abc import Mapping, Sequence

import numpy as np

from minids.lab import notebook
from minids.ops import rmsnorm

Array = np.ndarray


def steps(sizes: Array, error: Mapping[str, Array]) -> None:
    """Relative error of measured slopes by the step, for several ways to measure."""
    figure, axes = notebook.picture(height=3.9)
    for (name, errors), colour, line in zip(error.items(), ("C1", "C0", "C2"), ("-", "-", "--"), strict=True):
        axes.loglog(sizes, errors, label=name, color=colour, linestyle=line)
    axes.set(xlabel="step h", ylabel="largest relative error", ylim=(1e-14, 3))
    axes.set_title("Too small a step drowns in round-off, too large a one in curvature")
    axes.legend(loc="lower left")
    notebook.show(figure, "Error of central differences against the step: a V for float32, float64 and two steps.")


def perpendicular(direction: int = 42) -> None:
    """x in a plane, and what comes back for an upstream gradient in some direction (degrees); 2,000 random tokens beside it."""
    plane, rng = np.array([[1.6, 0.9]]), np.random.default_rng(0)
    wish = 1.2 * np.array([[np.cos(np.radians(direction)), np.sin(np.radians(direction))]])
    _, saved = rmsnorm.forward(plane, np.ones(2), eps=0.0)
    gradient, _ = rmsnorm.backward(wish, saved)
    many, wishes = rng.standard_normal((2, 2000, 8))
    lengths = np.linalg.norm(many, axis=-1) * np.linalg.norm(wishes, axis=-1)
    angles = np.degrees(np.arccos(np.sum(many * wishes, axis=-1) / lengths))  # the first term is along dy
    figure, (left, right) = notebook.picture(1, 2, height=3.6)
    circle = np.linspace(0, 2 * np.pi, 200)
    left.plot(np.sqrt(2) * np.cos(circle), np.sqrt(2) * np.sin(circle), color="#BBBBBB")
    arrows = ((plane[0], np.zeros(2), "black"), (wish[0] * saved.rstd[0], plane[0], "C1"), (gradient[0], plane[0], "C0"))
    for vector, start, colour in arrows:
        looks = {"arrowstyle": "-|>", "color": colour, "lw": 2, "shrinkA": 0, "shrinkB": 0}
        left.annotate("", start + vector, start, arrowprops=looks)
    left.text(0.75, 0.24, "x", fontsize=13)
    for colour, label in (("C1", "first term alone"), ("C0", "the gradient"), ("#BBBBBB", "all outputs lie here")):
        left.plot([], [], color=colour, label=label)
    left.legend(loc="upper left", fontsize=8.5)
    left.set(xlim=(0, 2.9), ylim=(0, 2.2), aspect="equal")
    left.set_title("Two dimensions")
    right.hist(angles, bins=np.arange(0, 181, 5), color="C1", alpha=0.7)
    right.axvline(90, color="C0")
    right.set(xlabel="angle between x and dx, degrees", ylabel="tokens", ylim=(0, 230), xticks=range(0, 181, 45))
    right.set_title("2000 random tokens of 8 numbers")
    notebook.show(figure, "The gradient of RMSNorm is perpendicular to its input.")


def predicted(words: Sequence[str], probabilities: Array, gradient: Array, came: str) -> None:
    """What a model expected, and the gradient of its logits, for some words of the vocabulary."""
    figure, (left, right) = notebook.picture(1, 2, width=9.4, height=3.0, sharey=True)
    left.bar(words, probabilities, color="C0")
    left.set(ylim=(-0.9, 0.9), ylabel="per token of the vocabulary")
    left.set_title(f"Predicted; “{came}” came")
    right.bar(words, gradient, color=["C1" if value < 0 else "C0" for value in gradient])
    right.axhline(0, color="black", linewidth=0.8)
    right.set_title("Gradient of the logits: all of them sum to zero")
    for ax in (left, right):
        ax.tick_params(axis="x", labelsize=8.5)
    notebook.show(figure, "Left: the most likely next tokens. Right: the gradient, negative at the token that came.")


def reach(pieces: Sequence[str], sizes: Mapping[str, Array]) -> None:
    """Length of the gradient that arrives at each token's row, (T), for the loss at single positions."""
    figure, axes = notebook.picture(len(sizes), 1, width=9.4, height=1.5 * len(sizes), sharex=True)
    for ax, (name, size) in zip(axes, sizes.items(), strict=True):
        ax.bar(range(len(size)), size / size.sum(), color="C1")
        ax.set(ylabel="share", xlim=(-0.6, len(pieces) - 0.4))
        ax.grid(axis="x", visible=False)
        ax.set_title(name, fontsize=10.5)
    axes[-1].set_xticks(range(len(pieces)), pieces, fontsize=8)
    notebook.show(figure, "Gradient that arrives at every token of the sentence from the loss at one position.")
