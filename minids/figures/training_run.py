"""The picture of a training run: loss by step, and bits per byte of each domain."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from minids.figures.style import style, write
from minids.training.metrics import read_metrics


def draw(run: Path) -> Path:
    """Draw ``run/metrics.jsonl`` into ``run/loss.png``; returns the picture's path."""
    with style():
        figure = training_run(read_metrics(run / "metrics.jsonl"))
        return write(figure, run / "loss.png")


def training_run(lines: list[dict]):
    """The figure, from the lines of a metrics file."""
    from matplotlib.figure import Figure  # not pyplot: no window, no global state

    steps = [line for line in lines if "main_loss" in line]
    checks = [line for line in lines if "validation" in line]
    figure = Figure(layout="constrained")
    left, right = figure.subplots(1, 2)

    at = np.array([line["step"] for line in steps])
    main = np.array([line["main_loss"] for line in steps])
    left.plot(at, main, alpha=0.3, color="C0")
    left.plot(at, _smoothed(main), color="C0", label="next token")
    for depth, loss in enumerate(zip(*(line["mtp_loss"] for line in steps), strict=True), start=1):
        left.plot(at, _smoothed(np.array(loss)), color=f"C{depth}", label=f"MTP depth {depth}")
    left.set(xlabel="step", ylabel="training loss, nats per token", ylim=(0, None))
    left.set_title("Training loss", loc="left")
    left.legend()

    domains = sorted(checks[0]["validation"], key=lambda d: -checks[-1]["validation"][d]["bits_per_byte"])
    for domain in domains:
        values = [line["validation"][domain]["bits_per_byte"] for line in checks]
        right.plot([line["step"] for line in checks], values, marker="o", label=f"{domain}: {values[-1]:.2f}")
    right.set(xlabel="step", ylabel="validation, bits per byte", ylim=(0, None))
    right.set_title("Held-out text", loc="left")
    right.legend()
    return figure


def _smoothed(values: np.ndarray, reach: int = 4) -> np.ndarray:
    """Mean over the neighbours on both sides, fewer at the ends: unlike a running average it does not lag behind."""
    last = len(values) - 1
    sides = [min(i, reach, last - i) for i in range(len(values))]
    return np.array([values[i - side : i + side + 1].mean() for i, side in enumerate(sides)])
