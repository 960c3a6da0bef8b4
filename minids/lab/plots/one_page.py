"""The picture of notebook 0: how a small model learns, and how its experts are loaded meanwhile."""

import numpy as np

from minids.lab import notebook

Array = np.ndarray


def learning(losses: Array, busiest: Array, guessing: float) -> None:
    """Losses (steps, 2) of the next byte and the one after it; MaxVio (steps, layers), the MTP module's last."""
    figure, (left, right) = notebook.picture(1, 2, width=9.4, height=3.3)
    left.plot(losses[:, 0], label="next byte")
    left.plot(losses[:, 1], label="the byte after it (MTP)")
    left.axhline(guessing, color="black", linewidth=0.9, linestyle=":")
    left.text(len(losses) - 1, guessing - 0.08, "guessing", ha="right", va="top")
    left.set(xlabel="step", ylabel="nats per byte", ylim=(0, 5.9))
    left.set_title("The losses")
    left.legend(loc="lower left")
    for layer, values in enumerate(busiest.T[:-1], start=1):
        right.plot(values, label=f"block {layer}")
    right.plot(busiest[:, -1], label="MTP module")
    right.set(xlabel="step", ylabel="MaxVio", ylim=(0, 3.1))
    right.set_title("Busiest expert, above the mean")
    right.legend(loc="upper right")
    alt = "Left: both losses fall from guessing. Right: the excess load of the busiest expert rises, then falls."
    notebook.show(figure, alt)
