"""Pictures of notebook 4: what attention reads, and what it costs to keep that."""

import math
from collections.abc import Sequence

import numpy as np

from minids.config import ModelConfig
from minids.lab import notebook
from minids.lab.analysis import kv_cache
from minids.lab.studies.store import results

Array = np.ndarray

_COLOURS = {"MHA": "C1", "GQA": "C4", "MQA": "C2", "MLA": "C0"}
_CARD = 80  # GB of an H800
_LAYERS, _HEAD, _ROPE = 61, 128, 64  # DeepSeek-V3

CONVERSATION = {
    "tokens": (0, 160_000, 4_000),
    "heads": [16, 32, 64, 128],
    "groups": [1, 2, 4, 8, 16],
    "latent": (64, 1024, 64),
    "bits": [16, 8, 6],
}
"""What the sliders of ``conversation`` run over."""


def looked_at(pieces: Sequence[str], probs: Array, query: int = -1) -> None:
    """The tokens of a text, shaded by the weight that one of them gives to each: a row per head. ``probs`` (H, T, T)."""
    heads, count = len(probs), len(pieces)
    query %= count
    figure, axes = notebook.picture(width=9.4, height=0.55 + 0.3 * heads)
    axes.imshow(probs[:, query, : query + 1], cmap="Oranges", vmin=0, vmax=0.6, aspect="auto", extent=(0, query + 1, heads, 0))
    axes.set(xlim=(0, count), yticks=np.arange(heads) + 0.5, yticklabels=[f"head {h}" for h in range(heads)])
    axes.set_xticks(np.arange(count) + 0.5, pieces, fontsize=8)
    axes.get_xticklabels()[query].set(weight="bold", color=notebook.COLOURS[1])
    axes.tick_params(length=0)
    axes.grid(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    notebook.show(figure, f"What the token {pieces[query]!r} looks at: a weight for each earlier token, a row per head.")


def conversation(tokens: int = 100_000, heads: int = 128, groups: int = 8, latent: int = 512, bits: int = 16) -> None:
    """Cards of 80 GB that the cache of one conversation fills, at DeepSeek-V3's sizes; below, what saving costs in loss."""
    figure, (cards, below) = notebook.picture(2, 1, width=9.4, height=5.6, height_ratios=[1.25, 1])
    of_kind = {"MHA": 2 * heads * _HEAD, "GQA": 2 * groups * _HEAD, "MQA": 2 * _HEAD, "MLA": latent + _ROPE}
    about = {"MHA": f"{heads} heads", "GQA": f"{groups} groups", "MQA": "one head", "MLA": f"latent {latent}"}
    cards.set(xlim=(-2.6, 11.2), ylim=(4.1, 0.05), xticks=[], yticks=[])
    cards.grid(False)
    for side in ("left", "bottom"):
        cards.spines[side].set_visible(False)
    for row, (kind, numbers) in enumerate(of_kind.items()):
        gigabytes = numbers * _LAYERS * bits / 8 * tokens / 1e9
        cards.text(-2.6, row + 0.42, kind, weight="bold", fontsize=11)
        cards.text(-2.6, row + 0.78, f"{about[kind]}: {numbers:,}", fontsize=8.5)
        for at in range(max(1, math.ceil(gigabytes / _CARD))):
            filled = min(1, gigabytes / _CARD - at)
            cards.barh(row + 0.55, 0.92 * filled, left=at, height=0.62, color=_COLOURS[kind])
            cards.barh(row + 0.55, 0.92, left=at, height=0.62, fill=False, edgecolor="#333333", linewidth=0.9)
        cards.text(max(1, math.ceil(gigabytes / _CARD)) + 0.1, row + 0.55, f"{gigabytes:,.1f} GB", va="center", weight="bold")
    cards.set_title(f"One conversation of {tokens:,} tokens: each frame is a card of {_CARD} GB")
    _loss(below)
    notebook.show(figure, "Cards of 80 GB filled by four kinds of attention; below, the loss of four small models.")


def loss() -> None:
    """Loss against cached numbers, by itself."""
    figure, axes = notebook.picture(height=3.2)
    _loss(axes)
    notebook.show(figure, "MHA: most numbers, lowest loss; GQA and MQA: fewer and higher; MLA: fewest, nearly as low as MHA.")


def _loss(axes) -> None:
    """The kept attention study: four models of nearly one size that differ in their attention."""
    found = results("attention")
    place = {"MHA": (-10, -4), "GQA": (8, 8), "MQA": (8, 6), "MLA": (-8, -16)}
    for arm, held in found["arms"].items():
        kind, losses = arm.upper(), held["summary"]["loss"]
        numbers = kv_cache.elements(ModelConfig(**found["common"]["model"] | held["settings"]["model"]))
        axes.plot([numbers] * len(losses["values"]), losses["values"], "o", color=_COLOURS[kind], markersize=4, alpha=0.55)
        axes.plot(numbers, losses["mean"], "o", color=_COLOURS[kind], markersize=11, markeredgecolor="black")
        label = f"{kind} {losses['mean']:.3f}"
        ha = "right" if kind in ("MLA", "MHA") else "left"
        axes.annotate(label, (numbers, losses["mean"]), place[kind], textcoords="offset points", weight="bold", ha=ha)
    axes.set(xlim=(0, 172), ylim=(1.93, 2.33), xlabel="numbers cached per token and layer", ylabel="held-out loss, nats")
    axes.set_title(f"Measured: four models of 0.34 M parameters, {len(found['seeds'])} seeds (small dots)")


def intensity(of_kind: dict[str, float], machine: float) -> None:
    """FLOPs that attention does with each cached byte, beside what the machine could do meanwhile."""
    figure, axes = notebook.picture(height=2.2)
    names = [*of_kind, "H800 could do"]
    bars = axes.barh(names, [*of_kind.values(), machine], color=[*(_COLOURS[name[:3]] for name in of_kind), "#999999"])
    axes.bar_label(bars, fmt="{:,.1f}", padding=4)
    axes.set(xlabel="FLOPs per byte of cache", xlim=(0, 1.12 * machine))
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    notebook.show(figure, "FLOPs per byte: MHA one, GQA sixteen, MQA and MLA hundreds, near what the machine offers.")
