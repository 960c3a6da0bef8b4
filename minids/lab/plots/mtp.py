"""Notebook 8: who is shown what, who sees what, what the second question brings."""

from collections.abc import Mapping, Sequence

import numpy as np

from minids.lab import notebook

Array = np.ndarray
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, BLACK = notebook.COLOURS
WORDS = ("The", "sum", "of", "17", "and", "25", "is")
"""The sentence of the notebooks, in words: the drawing does not need its tokens."""


def chain(depths: int = 2, position: int = 2) -> None:
    """Depth by depth: what enters and what is the target; ``position`` (from 1) in colour."""
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    length = len(WORDS) - 1  # T: positions; the last of them predicts the word behind it
    figure, axis = notebook.picture(width=9, height=1.1 + 1.05 * (depths + 1))
    middle = {"ha": "center", "va": "center"}
    for depth in range(depths + 1):
        y = -1.5 * depth
        for i in range(1, length - depth + 1):
            enters, target, edge = (GREEN, ORANGE, BLUE) if i == position else ("0.5", "0.6", "0.75")
            axis.add_patch(FancyBboxPatch((i - 0.33, y - 0.28), 0.66, 0.56, "round,pad=0.04", fc="white", ec=edge))
            axis.text(i, y + 0.12, WORDS[i + depth - 1], color=enters, **middle)
            axis.text(i, y - 0.13, f"→ {WORDS[i + depth]}", color=target, **middle)
            if depth < depths and i <= length - depth - 1:
                arrow = {"arrowstyle": "-|>", "mutation_scale": 10, "color": edge}
                axis.add_patch(FancyArrowPatch((i, y - 0.34), (i, y - 1.16), **arrow))
                axis.text(i + 0.05, y - 0.78, f"$h^{depth}_{i}$", color=edge, fontsize=9)
        axis.text(0.1, y, "main" if depth == 0 else f"depth {depth}", weight="bold", **middle)
    for i in range(1, length + 1):
        axis.text(i, 0.62, f"i = {i}", color=BLUE if i == position else "0.5", **middle)
    axis.set(xlim=(-0.4, length + 0.5), ylim=(-1.5 * depths - 0.5, 0.9))
    axis.axis("off")
    notebook.show(figure, "One row of boxes per depth: the word that enters, the word to predict, states going down.")


def staircases(maps: Sequence[Array]) -> None:
    """Of each depth, (positions, T): how far logits move when a token changes; a dot where the token to predict is."""
    figure, axes = notebook.picture(1, len(maps), width=9, height=3.1)
    T = maps[0].shape[1]
    for depth, (axis, moved) in enumerate(zip(axes, maps, strict=True)):
        axis.imshow(moved > 1e-12, cmap="Blues", vmin=0, vmax=1.6)
        target = np.arange(len(moved)) + depth + 1
        keep = target < T
        axis.plot(target[keep], np.arange(len(moved))[keep], "o", color=ORANGE, ms=6)
        axis.set(xticks=range(T), xticklabels=range(1, T + 1), yticks=range(len(moved)), yticklabels=range(1, len(moved) + 1))
        axis.set(xlabel="token $t_j$ that is changed", ylabel="position i" if depth == 0 else "")
        sees = [int(np.flatnonzero(row > 1e-12).max()) for row in moved]
        right = all(last == i + depth for i, last in enumerate(sees))  # the token before the one to predict
        verdict = "never sees its target" if right else "sees its target"
        axis.set_title(f"{'main model' if depth == 0 else f'depth {depth}'}: {verdict}", fontsize=10.5)
        axis.grid(False)
    alt = "Three staircases: depth k sees tokens up to i plus k; the token to predict, a dot, lies just outside each."
    notebook.show(figure, alt)


def second_gradient(shares: Mapping[str, float]) -> None:
    """Of each parameter: the gradient through the MTP module over that of the main loss."""
    figure, axis = notebook.picture(width=8, height=2.2)
    names, values = list(shares)[::-1], list(shares.values())[::-1]
    axis.barh(names, values, color=BLUE)
    for y, share in enumerate(values):
        axis.text(share, y, f" {share:.0%}", va="center")
    label = "gradient through the MTP module, as a share of the main one (λ = 0.3)"
    axis.set(xlabel=label, xlim=(0, max(values) * 1.2))
    notebook.show(figure, f"Bars: {label}, for embedding, head, router and attention.")


def study(kept: Mapping) -> None:
    """The kept study. Left: main loss of every arm, a dot a seed. Right: how often first and second token are right."""
    arms = {"no module": "none", "λ = 0.1": "weight 0.1", "λ = 0.3": "weight 0.3", "two modules": "two modules"}

    def of_seeds(arm: str, number: str, scale: float = 1) -> Array:
        return scale * np.array(kept["arms"][arm]["summary"][number]["values"])

    losses = {name: of_seeds(arm, "loss") for name, arm in arms.items()}
    right = {
        "first token": of_seeds("weight 0.3", "first_token", 100),
        "second, shown the first": of_seeds("weight 0.3", "second_token", 100),
    }
    figure, axes = notebook.picture(1, 2, width=9.4, height=2.6)
    for axis, table, label, form in (
        (axes[0], losses, "main loss, nats per token", "{:.3f}"),
        (axes[1], right, "right guesses, %", "{:.1f}"),
    ):
        for y, values in enumerate(list(table.values())[::-1]):
            axis.plot(values, [y] * len(values), "o", color=SKY, ms=5)
            axis.plot([np.mean(values)], [y], "|", color=BLUE, ms=16, mew=3)
            axis.annotate(form.format(np.mean(values)), (np.mean(values), y + 0.27), ha="center", color=BLUE, fontsize=9)
        axis.set_yticks(range(len(table)), list(table)[::-1])
        axis.set(xlabel=label, ylim=(-0.6, len(table) - 0.3))
    notebook.show(figure, "Left: the main losses of all arms overlap. Right: the second token is right as often as the first.")
