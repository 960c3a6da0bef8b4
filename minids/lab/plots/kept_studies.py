"""Notebook 18: what the kept runs of a study gave."""

from collections.abc import Mapping, Sequence

import numpy as np

from minids.lab import notebook

BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, BLACK = notebook.COLOURS


def arms(label: str, values: Mapping[str, Sequence[float]], *, guide: float | None = None) -> None:
    """A line for each arm: a dot for every seed, a bar at the mean. ``guide``: a line to compare with."""
    figure, axis = notebook.picture(width=8, height=0.75 + 0.36 * len(values))
    for y, seeds in enumerate(list(values.values())[::-1]):
        axis.plot(seeds, [y] * len(seeds), "o", color=SKY, ms=6)
        axis.plot([np.mean(seeds)], [y], "|", color=BLUE, ms=18, mew=3)
    if guide is not None:
        axis.axvline(guide, color="0.6", ls=":")
    axis.set_yticks(range(len(values)), list(values)[::-1])
    axis.set(xlabel=label, ylim=(-0.6, len(values) - 0.4))
    means = ", ".join(f"{name} {np.mean(seeds):.3g}" for name, seeds in values.items())
    notebook.show(figure, f"{label}, a dot for every seed; means: {means}.")


def ramp(most: int = 16, from_share: float = 0.2, until_share: float = 0.3) -> None:
    """Sequences of a step, by the share of the tokens that have been seen."""
    from minids.config import TrainConfig
    from minids.training import batch_ramp

    train = TrainConfig(batch_size=most, steps=300, batch_ramp_from=from_share, batch_ramp_until=until_share)
    at = range(train.steps)
    figure, axis = notebook.picture(width=8, height=2.2)
    axis.step([100 * batch_ramp.share_done(s, train) for s in at], [batch_ramp.sequences(s, train) for s in at], color=BLUE)
    axis.set(xlabel="tokens seen, %", ylabel="sequences a step", ylim=(0, most * 1.1))
    notebook.show(figure, "A staircase that rises from a part of the batch to all of it, then stays.")
