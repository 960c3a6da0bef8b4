"""Pictures of notebook 11: a training run while it goes on, and what the trained model does with experts, heads and bytes."""

from collections.abc import Mapping, Sequence

import numpy as np

from minids.lab import notebook
from minids.training.schedule import Settings

Array = np.ndarray

BLUE, ORANGE, GREEN, BLACK = (notebook.COLOURS[i] for i in (0, 1, 2, 6))
KINDS = {
    "digits": ("0123456789", ORANGE),
    "small letters": ("abcdefghijklmnopqrstuvwxyz", BLUE),
    "capitals": ("ABCDEFGHIJKLMNOPQRSTUVWXYZ", GREEN),
    "signs": (".,:;()=+-*/_\"'", BLACK),
}


def schedules(along: Sequence[Settings]) -> None:
    """What the recipe sets at every step."""
    figure, axes = notebook.picture(1, 3, width=9, height=2.2)
    titles = {
        "learning_rate": "learning rate",
        "mtp_loss_weight": "λ, weight of the MTP loss",
        "bias_update_speed": "γ, speed of the bias",
    }
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        axis.plot([getattr(now, name) for now in along], color=BLUE)
        axis.set(title=title, xlabel="step", ylim=(0, None))
    notebook.show(figure, "Three schedules: the learning rate goes up, stays, goes down; lambda and gamma fall in steps.")


def losses(main: Array, mtp: Array, norm: Array, guessing: float) -> None:
    """Loss of the next token and of the one after next, and the gradient's norm, (steps,) each."""
    figure, (left, right) = notebook.picture(1, 2, width=9, height=2.9)
    left.plot(main, color=BLUE, alpha=0.2)
    left.plot(_smooth(main, 15), color=BLUE, label="next token")
    left.plot(_smooth(mtp, 15), color=ORANGE, label="token after next (MTP)")
    left.axhline(guessing, color="0.5", ls=":")
    left.text(0.62 * len(main), guessing + 0.07, "guessing", color="0.4", va="bottom")
    left.set(xlabel="step", ylabel="nats per token", ylim=(0, 6.5), title="Training loss")
    left.legend()
    right.semilogy(norm, color=GREEN, alpha=0.7)
    right.axhline(1, color="0.4", ls=":")
    right.set(xlabel="step", title="Norm of the gradient, clipped at 1")
    notebook.show(figure, "Left: both losses fall, fast and then slowly. Right: the gradient's norm, near the clipping line.")


def balance(max_vio: Array, bias: Array) -> None:
    """Imbalance of every layer, (steps, layers), the MTP module's last; and the bias of the first one, (steps, E)."""
    figure, (left, right) = notebook.picture(1, 2, width=9, height=3.0)
    names = [f"block {i}" for i in range(1, max_vio.shape[1])] + ["MTP block"]
    for values, name, colour in zip(max_vio.T, names, (BLUE, GREEN, ORANGE), strict=True):
        left.plot(_smooth(values, 4), color=colour, label=name)
    left.axhline(1, color="0.4", ls=":")
    left.set(xlabel="step", ylabel="MaxVio", ylim=(0, 3.1), title="Imbalance")
    left.legend()
    most = np.abs(bias).max()
    image = right.imshow(bias.T, aspect="auto", cmap="RdBu_r", vmin=-most, vmax=most)
    right.set(xlabel="step", ylabel="expert", title="The bias of block 1")
    right.grid(False)
    figure.colorbar(image, ax=right)
    notebook.show(
        figure, "Left: imbalance of three layers falls from above 2 to about a half. Right: sixteen biases go up or down."
    )


def loads(by_domain: Mapping[str, Array]) -> None:
    """Domain → load of every expert over the mean, (layers, E), the MTP module's last."""
    layers, experts = next(iter(by_domain.values())).shape
    figure, axes = notebook.picture(layers, 1, width=8.6, height=1.8 * layers, sharex=True)
    for layer, axis in enumerate(axes):
        rows = [values[layer] for values in by_domain.values()]
        image = axis.imshow(rows, cmap="cividis", vmin=0, vmax=2, aspect="auto")
        name = f"block {layer + 1}" if layer < layers - 1 else "MTP block"
        axis.set(yticks=range(len(rows)), yticklabels=list(by_domain), title=name)
        axis.grid(False)
    axes[-1].set(xticks=range(experts), xlabel="expert (four groups of four)")
    figure.colorbar(image, ax=axes, label="load / mean")
    notebook.show(figure, "Domains by experts: each domain has its own bright experts, the row of all together is even.")


class Heads:
    """What all heads of all blocks look at in one line of text: ``probs`` is a list of (H, T, T), a block each."""

    def __init__(self, probs: Sequence[Array], marks: Sequence[str]):
        self.probs, self.marks = probs, marks

    def of(self, block: int = 1) -> None:
        """The heads of one block, query by key."""
        places = range(len(self.marks))
        figure, axes = notebook.picture(2, 2, width=8.6, height=8.4)
        for head, axis in enumerate(axes.flat):
            axis.imshow(self.probs[block][head], cmap="Blues", vmin=0, vmax=0.6)
            axis.set(title=f"block {block}, head {head}", xlabel="key", ylabel="query")
            axis.set_xticks(places, self.marks, fontsize=9)
            axis.set_yticks(places, self.marks, fontsize=9)
            axis.tick_params(length=0)
            axis.grid(False)
        notebook.show(figure, f"Attention of the four heads of block {block}: lower triangles, some dark at the diagonal.")


def characters(embedding: Array) -> None:
    """Rows of the embedding (V, d) of some bytes, in the plane of the two directions in which they differ most."""
    text = "".join(members for members, _ in KINDS.values())
    vectors = embedding[[ord(c) for c in text]].astype(np.float64)  # (n, d)
    vectors = vectors - vectors.mean(axis=0)
    _, _, directions = np.linalg.svd(vectors, full_matrices=False)
    directions = directions * np.sign(directions[:, :1])  # an arbitrary sign, fixed
    plane = dict(zip(text, vectors @ directions[:2].T, strict=True))  # character → (2,)
    figure, axis = notebook.picture(width=8, height=4.2)
    for kind, (members, colour) in KINDS.items():
        axis.plot([], [], "s", color=colour, label=kind)
        for character in members:
            axis.text(*plane[character], character, color=colour, ha="center", va="center", fontsize=11)
    x, y = np.array(list(plane.values())).T
    axis.set(xlim=(1.1 * x.min(), 1.1 * x.max()), ylim=(1.1 * y.min(), 1.1 * y.max()))
    axis.legend()
    notebook.show(figure, "Characters in a plane: digits form a cluster of their own, small letters another.")


def _smooth(values: Array, width: int) -> Array:
    """Centred running mean, shorter at the ends."""
    return np.array([values[max(i - width, 0) : i + width + 1].mean() for i in range(len(values))])
