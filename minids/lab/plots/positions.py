"""Pictures of notebook 3: turning vectors, pairs of coordinates, and slowed turns."""

import re

import numpy as np
from matplotlib import colormaps

from minids.lab import notebook
from minids.lab.studies.store import results
from minids.ops import yarn

Array = np.ndarray

_ARMS = {"no extension": "C1", "interpolation": "C4", "YaRN": "C0"}

SLOWED = {"factor": (1, 64), "base": [10000, 50000, 500000], "trained": [2048, 4096, 8192]}
"""What the sliders of ``slowed`` run over."""


def turns_and_scores(keys: Array, scores: Array) -> None:
    """Three pairs of one key (T, d_r) at the first positions; scores (T, T) of query by key; and one score per distance."""
    figure, (left, middle, right) = notebook.picture(1, 3, width=9.4, height=3.3)
    for pair in range(3):
        turned = keys[:24, 2 * pair : 2 * pair + 2]
        turned = (1 - 0.22 * pair) * turned / np.linalg.norm(turned, axis=-1, keepdims=True)
        left.plot(*turned.T, ".", color=f"C{pair}", alpha=0.35)
        left.plot(*turned[:6].T, "o-", color=f"C{pair}", label=f"pair {pair}")
    left.set(aspect="equal", xlim=(-1.15, 1.15), ylim=(-1.15, 1.15), xticks=[], yticks=[])
    left.legend(loc="center", fontsize=8)
    left.set_title("A key at positions 0 to 5")
    limit = np.abs(scores).max()
    middle.imshow(scores, cmap="RdBu_r", vmin=-limit, vmax=limit)
    middle.grid(False)
    middle.set(xlabel="position of the key", ylabel="position of the query")
    middle.set_title("q · k: stripes")
    right.plot(scores[:, 0], color="C0")
    right.axhline(0, color="black", linewidth=0.8)
    right.set(xlabel="distance t − s", ylabel="q · k")
    right.set_title("One diagonal, one number")
    notebook.show(figure, "Three pairs turning at different speeds; scores constant along diagonals; by distance.")


def pairs(distance: int = 5, base: int = 10000) -> None:
    """Contribution of each of V3's 32 pairs to the score of a vector with itself, at some distance."""
    theta = yarn.plain_frequencies(64, float(base))
    figure, axes = notebook.picture(height=2.6)
    axes.bar(np.arange(32), np.cos(distance * theta), color="C0")
    axes.set(xlabel="pair i", ylabel="cos(distance · θ)", ylim=(-1.1, 1.1))
    axes.set_title(f"Distance {distance}, base {base}")
    notebook.show(figure, "What each of 32 pairs contributes to the score at a distance.")


def layouts(size: int = 16) -> None:
    """Which pair each of ``size`` coordinates belongs to, in both layouts."""
    shades = colormaps["cividis_r"]
    figure, axes = notebook.picture(2, 1, height=2.2, sharex=True)
    for ax, name in zip(axes, ("interleaved", "half-split"), strict=True):
        for c in range(size):
            pair = c // 2 if name == "interleaved" else c % (size // 2)
            ax.bar(c + 0.47, 1, width=0.94, color=shades(pair / (size // 2 - 1)))
            dark = pair > size // 4
            ax.text(c + 0.47, 0.5, str(pair), ha="center", va="center", fontsize=11, color="white" if dark else "black")
        ax.set(xlim=(-0.1, size), ylim=(0, 1), yticks=[], xticks=np.arange(size) + 0.47, xticklabels=range(size))
        ax.grid(False)
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
        for side in ("left", "bottom"):
            ax.spines[side].set_visible(False)
    axes[0].set_title(f"Which pair a coordinate belongs to, d_r = {size}")
    notebook.show(figure, "Interleaved: 0 0 1 1 2 2 and so on. Half-split: 0 to 7, then 0 to 7 again.")


def slowed(factor: int = 40, base: int = 10000, trained: int = 4096) -> None:
    """Tokens per turn of all pairs, and the angles of two slow ones up to the stretched length."""
    theta = yarn.plain_frequencies(64, float(base))
    slow = yarn.yarn_frequencies(64, float(base), float(factor), trained)
    low, high = yarn.cut_offs(64, float(base), trained)
    last = min(int(np.ceil(high)), 31)  # the first pair that is divided by the whole factor
    longest = factor * trained
    figure, (left, right) = notebook.picture(1, 2, width=9.4, height=3.8)
    index = np.arange(32)
    left.semilogy(index, 2 * np.pi / theta, "o-", label="plain", color="C0")
    left.semilogy(index, 2 * np.pi / slow, "o-", label=f"YaRN, s = {factor}", color="C1")
    left.semilogy(index, factor * 2 * np.pi / theta, ":", label=f"all divided by {factor}", color="#777777")
    for length, text in ((trained, f"trained: {trained:,}"), (longest, f"{longest:,}")):
        left.axhline(length, color="black", linewidth=0.8)
        left.text(0, length * 1.25, text, fontsize=8.5)
    left.axvspan(low, high, color="#EEEEEE", zorder=0)
    left.set(xlabel="pair i", ylabel="tokens per full turn")
    left.set_title("How long a turn takes")
    left.legend(loc="lower right")
    positions = np.linspace(0, longest, 400)
    for pair, colour in ((last, "C0"), (31, "C2")):
        for kind, line, frequencies in (("plain", "-", theta), ("YaRN", "--", slow)):
            degrees = np.degrees(positions * frequencies[pair])
            right.plot(positions / 1000, degrees, line, color=colour, label=f"pair {pair}, {kind}")
        right.axhline(np.degrees(trained * theta[pair]), color=colour, linewidth=0.8, alpha=0.6)
    right.set(xlabel="position, thousands of tokens", ylabel="angle, degrees", ylim=(0, 800))
    right.set_title("Angles stay where training has been")
    right.legend(loc="upper right")
    notebook.show(figure, "Left: tokens per turn of 32 pairs. Right: the angles of slow pairs.")


def four_times_as_long() -> None:
    """The kept long-context study: perplexity by position of models trained on 128 tokens, and needles found in 512."""
    found = results("long-context")
    figure, (left, right) = notebook.picture(1, 2, width=9.4, height=3.6, width_ratios=[1.7, 1])
    for arm, colour in _ARMS.items():
        summary = found["arms"][arm]["summary"]
        ends = sorted(int(name.split()[-1]) for name in summary if re.fullmatch(r"zero-shot ppl \d+", name))
        held = [summary[f"zero-shot ppl {end}"] for end in ends]
        middle, mean = np.array(ends) - 32, np.array([h["mean"] for h in held])
        spread = np.array([h["spread"] for h in held])
        left.plot(middle, mean, "o-", color=colour)
        left.fill_between(middle, mean - spread, mean + spread, color=colour, alpha=0.18, linewidth=0)
        left.text(520, mean[-1], f"{arm} {mean[-1]:.1f}", color=colour, va="center", weight="bold", fontsize=9.5)
    left.axvspan(0, 128, color="#EEEEEE", zorder=0)
    left.text(6, 15.3, "trained", fontsize=9)
    left.set(xlabel="position", ylabel="perplexity", xlim=(0, 660), xticks=[0, 128, 256, 384, 512], ylim=(7, 16))
    left.set_title("Text: how well it is predicted")
    shares = [found["arms"][arm]["summary"]["zero-shot needle 512"]["mean"] for arm in _ARMS]
    bars = right.bar(["none", "interpolation", "YaRN"], np.array(shares) * 100, color=list(_ARMS.values()), width=0.6)
    right.bar_label(bars, fmt="%.0f %%", padding=2)
    right.set(ylim=(0, 112), ylabel="found, %")
    right.grid(axis="x", visible=False)
    right.set_title("Needles in 512 tokens")
    notebook.show(figure, "Perplexity by position: without extension it rises beyond 128, with YaRN it stays; needles found.")
