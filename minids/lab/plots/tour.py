"""Pictures of notebook 1: what surprises the model, who serves whom, and when its parts were invented."""

from collections.abc import Sequence

import numpy as np

from minids.lab import notebook

Array = np.ndarray

# part, year and month it was published, paper, whose it is
_PARTS = (
    ("sparse experts with gates", 2017.05, "Shazeer et al.", "others"),
    ("attention with many heads", 2017.45, "Vaswani et al.", "others"),
    ("RMSNorm", 2019.8, "Zhang, Sennrich", "others"),
    ("SwiGLU", 2020.1, "Shazeer", "others"),
    ("rotary positions (RoPE)", 2021.3, "Su et al.", "others"),
    ("YaRN", 2023.65, "Peng et al.", "others"),
    ("several tokens ahead (MTP)", 2024.3, "Gloeckle et al.", "others"),
    ("fine-grained and shared experts", 2024.03, "DeepSeekMoE", "before"),
    ("latent attention (MLA)", 2024.35, "DeepSeek-V2", "before"),
    ("experts on few devices", 2024.35, "DeepSeek-V2", "before"),
    ("balancing by a bias", 2024.65, "Wang et al., DeepSeek", "before"),
    ("MTP as a causal chain", 2024.98, "DeepSeek-V3", "new"),
    ("FP8 in tiles, at this size", 2024.98, "DeepSeek-V3", "new"),
    ("DualPipe", 2024.98, "DeepSeek-V3", "new"),
)
_WHOSE = {"others": ("#777777", "by others"), "before": ("C4", "DeepSeek's, before V3"), "new": ("C0", "first in V3")}


def surprise(pieces: Sequence[str], nats: Array, guesses: Sequence[str]) -> None:
    """What each token cost, nats (T), for the tokens ``pieces`` (T); below, what the model had thought most likely."""
    count = len(pieces)
    figure, axes = notebook.picture(width=9.4, height=2.9)
    right = [piece == guess for piece, guess in zip(pieces, guesses, strict=True)]
    axes.bar(np.arange(count), nats, color=["C0" if hit else "C1" for hit in right])
    labels = [f"{piece}\n{guess}" for piece, guess in zip(pieces, guesses, strict=True)]
    axes.set_xticks(np.arange(count), labels, fontsize=8)
    axes.axhline(np.mean(nats), color="black", linewidth=0.9, linestyle=":")
    axes.text(count - 0.3, np.mean(nats), f"mean\n{np.mean(nats):.2f}", va="center", fontsize=9)
    axes.set(ylabel="surprise, nats", xlim=(-0.6, count - 0.4))
    axes.grid(axis="x", visible=False)
    axes.set_title("Upper line: the token that came. Lower line: the model's first guess. Blue: it was right")
    notebook.show(figure, "Bars of surprise for each token of the sentence, and what the model expected in its place.")


def gates(panels: dict[str, Array], pieces: Sequence[str], groups: int) -> None:
    """Gates (T, E) of some routers: tokens from left to right, experts from top to bottom, a line between groups."""
    figure, axes = notebook.picture(len(panels), 1, width=9.4, height=2.5 * len(panels), squeeze=False, sharex=True)
    for ax, (title, grid) in zip(axes[:, 0], panels.items(), strict=True):
        image = ax.imshow(grid.T, cmap="Blues", vmin=0, vmax=1.5, aspect="auto")
        experts = grid.shape[1]
        for group in range(1, groups):
            ax.axhline(group * experts / groups - 0.5, color="#999999", lw=1)
        ax.set(ylabel="expert", yticks=range(0, experts, experts // groups))
        ax.grid(False)
        ax.set_title(title)
    axes[-1, 0].set_xticks(range(len(pieces)), pieces, fontsize=8)
    figure.colorbar(image, ax=axes, label="gate")
    notebook.show(figure, "Tokens across, experts down: four cells in every column, in two of the four groups.")


def parts_by_year() -> None:
    """When each part of DeepSeek-V3 was published, and by whom."""
    figure, axes = notebook.picture(width=9.4, height=4.3)
    for row, (_, year, paper, whose) in enumerate(_PARTS):
        shade, _ = _WHOSE[whose]
        axes.plot([year, 2025.0], [row, row], color=shade, linewidth=1, alpha=0.45)
        axes.plot(year, row, "o", color=shade, markersize=8)
        axes.text(year - 0.12, row, paper, ha="right", va="center", fontsize=9, color="#444444")
    axes.set_yticks(range(len(_PARTS)), [name for name, *_ in _PARTS])
    for label, (*_, whose) in zip(axes.get_yticklabels(), _PARTS, strict=True):
        label.set(color=_WHOSE[whose][0] if whose != "others" else "#333333", weight="bold" if whose == "new" else "normal")
    for shade, words in _WHOSE.values():
        axes.plot([], [], "o", color=shade, markersize=8, label=words)
    axes.axvline(2024.98, color="black", linewidth=0.9)
    axes.set(xlim=(2015.6, 2025.2), ylim=(len(_PARTS) - 0.4, -0.6), xticks=range(2017, 2026))
    axes.grid(axis="y", visible=False)
    axes.legend(loc="lower left", fontsize=9.5)
    axes.set_title("The parts of DeepSeek-V3 by the date of their paper")
    notebook.show(figure, "Parts by year: attention 2017 to MTP 2024 by others; four of DeepSeek's of 2024; three first in V3.")
