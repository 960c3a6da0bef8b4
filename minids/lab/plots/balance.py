"""Pictures of notebook 7: loads with and without balancing, the thermostat, and what a limit on nodes saves."""

from collections.abc import Mapping, Sequence

import numpy as np

from minids.lab import notebook
from minids.ops import bias_update, router
from minids.training.metrics import max_violation

Array = np.ndarray

_KINDS = {"batch loss": "C1", "sequence loss": "C3", "bias": "C0", "none": "C6"}
_CURVES = {"none": "C6", "bias 0.001": "C5", "bias 0.003": "C0", "bias 0.03": "C2", "batch loss 0.01": "C1"}


def left_alone(share: Array) -> None:
    """Load relative to the mean, (layers, E), the busiest first."""
    layers, experts = share.shape
    figure, axes = notebook.picture(1, layers, height=3.0, sharey=True)
    for layer, ax in enumerate(axes):
        ax.bar(range(experts), np.sort(share[layer])[::-1], color="C1")
        ax.axhline(1, color="black", linewidth=0.9)
        ax.set(xlabel="experts, busiest first", ylim=(0, 4.2))
        ax.set_title(f"MoE layer {layer}, nobody balances")
    axes[0].set(ylabel="load / mean load")
    axes[-1].text(experts - 0.5, 1.08, "even", ha="right", fontsize=9.5)
    notebook.show(figure, "Loads of 16 experts in two layers without balancing: a few have four times the mean, others none.")


def speeds(history: Mapping[float, Array], biases: Mapping[float, Array], floor: float) -> None:
    """MaxVio step by step, and the biases reached, for several speeds; ``floor`` is what chance alone does to a batch."""
    figure, (left, right) = notebook.picture(1, 2, width=9.4, height=3.6, width_ratios=[1.5, 1])
    for (speed, seen), colour in zip(history.items(), ("C4", "C0", "C1"), strict=True):
        left.plot(seen, color=colour, label=f"γ = {speed:g}", linewidth=1.3)
        right.plot(biases[speed], color=colour, marker="o", linewidth=1.2)
    left.axhline(floor, color="black", linewidth=0.9, linestyle=":", label="by lot")
    left.set(xlabel="step", ylabel="MaxVio of the batch", ylim=(0, 2.05))
    left.set_title("Too slow, right, and too fast to settle")
    left.legend(loc="upper right", ncols=2)
    right.set(xlabel="expert, popular ones first", ylabel="bias after 300 steps", xticks=range(0, 16, 3))
    right.set_title("What the thermostat found")
    notebook.show(figure, "MaxVio over 300 steps for three speeds of the bias, and the biases that are reached.")


def thermostat(gamma: float = 0.003, steps: int = 300, popularity_spread: float = 1.2, tokens: int = 1024) -> None:
    """MaxVio of ``steps`` batches whose experts differ in popularity, and the bias that is found: 4 of 16 experts."""
    rng, experts = np.random.default_rng(2), 16
    liked = np.linspace(popularity_spread, -popularity_spread, experts)
    bias, seen = np.zeros(experts, dtype=np.float32), []
    for _ in range(steps):
        routing, _ = router.forward(liked + rng.standard_normal((tokens, experts)), bias, 4)
        counts = np.bincount(routing.chosen.reshape(-1), minlength=experts)
        seen.append(max_violation(counts))
        bias = bias_update.updated(bias, counts, gamma)
    figure, (left, right) = notebook.picture(1, 2, width=9.4, height=2.9, width_ratios=[1.5, 1])
    left.plot(seen, color="C0", linewidth=1.3)
    needed = np.abs(bias).max() / gamma
    left.axvline(needed, color="black", linewidth=0.9, linestyle=":")
    left.set(xlabel="step", ylabel="MaxVio of the batch", ylim=(0, None), xlim=(0, steps))
    left.set_title(f"γ = {gamma:g}; dotted: largest |b| / γ = {needed:.0f}")
    right.bar(range(experts), bias, color="C0")
    right.set(xlabel="expert, popular first", ylabel="bias at the end", xticks=range(0, experts, 3))
    right.set_title(f"largest |b| = {np.abs(bias).max():.2f}")
    notebook.show(figure, "MaxVio falls until the bias has reached what the extreme experts need.")


def on_and_off(loads: Mapping[str, Array]) -> None:
    """Load of every expert, blocks after each other, (blocks, E), for each of several ways to choose."""
    figure, axes = notebook.picture(1, len(loads), width=9.4, height=2.7, sharey=True)
    for ax, (name, load) in zip(axes, loads.items(), strict=True):
        blocks, experts = load.shape
        for b in range(blocks):
            ax.bar(np.arange(experts) + b * (experts + 2), np.sort(load[b])[::-1], color=f"C{b}", label=f"block {b + 1}")
        ax.axhline(1, color="black", linewidth=0.9)
        ax.set(xticks=[], xlabel="experts of each block, busiest first")
        ax.set_title(f"{name}: MaxVio {np.mean(load.max(axis=1) - 1):.2f}")
    axes[0].set(ylabel="load / mean load")
    axes[-1].legend(loc="upper right", fontsize=8.5)
    notebook.show(figure, "Loads of the trained model's experts, with its biases and without them.")


def loss_and_evenness(arms: Mapping[str, dict]) -> None:
    """The kept balance study: loss against MaxVio at the end, and MaxVio on the way."""
    figure, (left, right) = notebook.picture(1, 2, width=9.6, height=3.9)
    drawn = set()
    for name, arm in arms.items():
        if "+" in name or "proportional" in name:
            continue
        kind = next(k for k in _KINDS if name.startswith(k))
        vio, loss = arm["summary"]["max_vio"], arm["summary"]["loss"]
        looks = {"fmt": "o", "color": _KINDS[kind], "elinewidth": 0.9, "label": None if kind in drawn else kind}
        left.errorbar(vio["mean"], loss["mean"], yerr=loss["spread"], **looks)
        drawn.add(kind)
    left.set(xscale="log", xlabel="global MaxVio", ylabel="validation loss, nats per byte")
    left.set_xticks([0.15, 0.3, 0.6, 1.2, 2.4], ["0.15", "0.3", "0.6", "1.2", "2.4"])
    left.minorticks_off()
    left.set_title("Loss against evenness")
    left.legend(loc="upper right", fontsize=8.5, ncols=2)
    left.set_ylim(1.95, 2.26)
    for name, colour in _CURVES.items():
        curves = [run["curves"] for run in arms[name]["runs"]]
        mean = np.mean([c["max_vio"] for c in curves], axis=0)
        right.plot(curves[0]["step"], mean, color=colour, label=name, linewidth=1.4)
    right.set(xlabel="step", ylabel="MaxVio of the batch", ylim=(0, 4.3))
    right.set_title("On the way, mean of three seeds")
    right.legend(loc="upper right", fontsize=8.5, ncols=2)
    notebook.show(figure, "Left: loss against MaxVio of eleven arms with spreads. Right: MaxVio over training of five of them.")


def by_domain(loads: Mapping[str, Array], bits: Mapping[str, dict], domains: Sequence[str]) -> None:
    """Load of each expert by domain, (D, E), for some arms; experts sorted by the domain that likes them."""
    figure, axes = notebook.picture(1, len(loads), width=9.6, height=2.5, sharey=True)
    for ax, (name, load) in zip(axes, loads.items(), strict=True):
        order = np.argsort(load.argmax(axis=0), kind="stable")
        image = ax.imshow(load[:, order], vmin=0, vmax=2, cmap="viridis", aspect="auto")
        ax.set_yticks(range(len(domains)), domains)
        ax.set(xlabel="experts, sorted by domain", xticks=[])
        ax.grid(visible=False)
        ax.set_title(f"{name}: {bits[name]['mean']:.3f} ± {bits[name]['spread']:.3f} bits", fontsize=11)
    figure.colorbar(image, ax=axes, label="load / mean")
    notebook.show(figure, "Load of 16 experts by domain: uneven with the bias, almost flat with the sequence-wise loss.")


def shifted(shifts: Array, changed: Mapping[str, Array]) -> None:
    """Share of tokens whose experts change when all biases are shifted alike, by what masks the forbidden ones."""
    figure, axes = notebook.picture(height=2.9)
    axes.plot(shifts, 100 * changed["0"], color="C1", marker="o", label="masked with 0")
    axes.plot(shifts, 100 * changed["−∞"], color="C0", marker="s", label="masked with −∞")
    axes.set(xlabel="shift of all biases", ylabel="% of tokens changed", ylim=(-4, 104))
    axes.invert_xaxis()
    axes.set_title("The same preferences, shifted: one mask does not notice, the other does")
    axes.legend(loc="center left")
    notebook.show(figure, "Share of tokens with other experts against a common shift of the biases, for both masks.")


def wires(limits: Sequence[int], infiniband: Array, nvlink: float, kept: Array) -> None:
    """Microseconds on both wires and the share of the score that is kept, by the limit M on nodes."""
    figure, (left, right) = notebook.picture(1, 2, height=3.3)
    left.bar(limits, infiniband, color="C0", label="InfiniBand")
    left.axhline(nvlink, color="C1", label="NVLink, for any M")
    left.set(xlabel="most nodes a token may use, M", ylabel="µs per token and layer")
    left.set_title("Time on the wires")
    left.legend(loc="upper left")
    right.plot(limits, 100 * np.array(kept), color="C2", marker="o")
    right.axvline(4, color="black", linewidth=0.9, linestyle=":")
    right.text(4.1, 94, "V3", fontsize=10)
    right.set(xlabel="M", ylabel="% of the score without limit")
    right.set_title("What the choice loses")
    notebook.show(figure, "Left: InfiniBand time grows with M, NVLink's does not. Right: score of the chosen experts by M.")
