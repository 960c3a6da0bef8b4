"""Pictures of notebook 7: loads with and without balancing, the thermostat, and what a limit on nodes saves."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from minids.lab import notebook
from minids.lab.analysis.routing import nodes_touched
from minids.lab.analysis.traffic import LimitedTraffic
from minids.lab.lessons import balance as lesson
from minids.lab.plots.experts import Router
from minids.model import DeepSeekV3
from minids.ops import bias_update, router
from minids.training.metrics import max_violation

Array = np.ndarray

_KINDS = {"batch loss": "C1", "sequence loss": "C3", "bias": "C0", "none": "C6"}
_CURVES = {"none": "C6", "bias 0.001": "C5", "bias 0.003": "C0", "bias 0.03": "C2", "batch loss 0.01": "C1"}


def left_alone(arm: Mapping) -> None:
    """Load relative to the mean in every MoE layer of an arm, the busiest expert first; MaxVio of all its seeds."""
    share = lesson.loads(arm).mean(axis=0)  # (layers, E), the domains counted alike
    layers, experts = share.shape
    figure, axes = notebook.picture(1, layers, height=3.2, sharey=True)
    for layer, (ax, load) in enumerate(zip(axes, share, strict=True)):
        ax.bar(range(experts), np.sort(load)[::-1], color="C1")
        ax.axhline(1, color="black", linewidth=0.9)
        ax.set(xlabel="experts, busiest first", ylim=(0, 4.2))
        idle = np.sum(load < 0.1)
        ax.set_title(f"MoE layer {layer}: busiest {load.max():.1f}; {idle} of {experts} below 0.1", fontsize=11)
    vio = arm["summary"]["max_vio"]
    axes[0].text(experts - 0.5, 3.9, f"MaxVio {vio['mean']:.2f} ± {vio['spread']:.2f}", ha="right", weight="bold")
    axes[0].set(ylabel="load / mean load")
    axes[-1].text(experts - 0.5, 1.08, "even", ha="right", fontsize=9.5)
    notebook.show(figure, "Loads of 16 experts in two layers without balancing: a few have four times the mean, others none.")


def speeds(runs: Mapping[float, tuple[Sequence[float], Array]], floor: float) -> None:
    """MaxVio step by step, and the bias reached, for several speeds; ``floor`` is what chance alone does to a batch."""
    figure, (left, right) = notebook.picture(1, 2, width=9.4, height=3.6, width_ratios=[1.5, 1])
    for (speed, (seen, bias)), colour in zip(runs.items(), ("C4", "C0", "C1"), strict=True):
        left.plot(seen, color=colour, label=f"γ = {speed:g}, at the end {np.mean(seen[-50:]):.2f}", linewidth=1.3)
        right.plot(bias, color=colour, marker="o", linewidth=1.2)
    left.axhline(floor, color="black", linewidth=0.9, linestyle=":", label=f"choices by lot {floor:.2f}")
    left.set(xlabel="step", ylabel="MaxVio of the batch", ylim=(0, 2.3))
    left.set_title("MaxVio; at the end: mean of the last 50 steps")
    left.legend(loc="upper right", ncols=2, fontsize=8.5)
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


def on_and_off(model: DeepSeekV3, texts: Sequence[Array]) -> None:
    """Who serves some texts, each (T,), in a trained model with its biases, and without them: every block's experts."""
    figure, axes = notebook.picture(1, 2, width=9.4, height=2.8, sharey=True)
    routers = [Router(model, text[None], [""] * len(text)) for text in texts]
    for ax, (name, bias) in zip(axes, (("With its biases", True), ("Without them", False)), strict=True):
        loads = []
        for number, block in enumerate(routers[0].scores):
            chosen = np.concatenate([router.routed(block, bias).chosen.ravel() for router in routers])
            load = np.bincount(chosen, minlength=routers[0].experts)
            loads.append(load / load.mean())
            left = number * (len(load) + 2)
            ax.bar(np.arange(len(load)) + left, np.sort(loads[-1])[::-1], color=f"C{number}", label=f"block {block}")
        ax.axhline(1, color="black", linewidth=0.9)
        ax.set(xticks=[], xlabel="experts of each block, busiest first")
        busiest, idlest = max(map(np.max, loads)), min(map(np.min, loads))
        ax.set_title(f"{name}: busiest {busiest:.1f}, idlest {idlest:.2f} of the mean", fontsize=11)
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
    for name, side, x, y in (("bias 0.003", "left", 0.13, 1.965), ("none", "right", 3.1, 2.008)):
        told = f"{name}: {arms[name]['summary']['max_vio']['mean']:.2f}"
        left.text(x, y, told, color=_KINDS[name.split()[0]], weight="bold", ha=side, fontsize=9.5)
    for name, colour in _CURVES.items():
        curves = [run["curves"] for run in arms[name]["runs"]]
        mean = np.mean([c["max_vio"] for c in curves], axis=0)
        right.plot(curves[0]["step"], mean, color=colour, label=name, linewidth=1.4)
    right.set(xlabel="step", ylabel="MaxVio of the batch", ylim=(0, 4.3))
    right.set_title("On the way, mean of three seeds")
    right.legend(loc="upper right", fontsize=8.5, ncols=2)
    notebook.show(figure, "Left: loss against MaxVio of eleven arms with spreads. Right: MaxVio over training of five of them.")


def by_domain(arms: Mapping[str, Mapping], names: Sequence[str]) -> None:
    """Load of each expert of the last layer by domain, for some arms; experts sorted by the domain that likes them."""
    figure, axes = notebook.picture(1, len(names), width=9.4, height=2.8, sharey=True)
    for ax, name in zip(axes, names, strict=True):
        every, bits = lesson.loads(arms[name]), arms[name]["summary"]["specialisation"]  # (D, layers, E)
        domain, together = every.max(axis=-1).mean(), every.mean(axis=0).max(axis=-1).mean()
        load = every[:, -1]
        image = ax.imshow(
            load[:, np.argsort(load.argmax(axis=0), kind="stable")], vmin=0, vmax=2, cmap="viridis", aspect="auto"
        )
        ax.set_yticks(range(len(load)), list(arms[name]["details"]["relative_load"]))
        ax.set(xlabel="experts, sorted by domain", xticks=[])
        ax.grid(visible=False)
        told = f"busiest of a domain {domain:.2f}, of all text {together:.2f}"
        ax.set_title(f"{name}: {bits['mean']:.3f} ± {bits['spread']:.3f} bits\n{told}", fontsize=10)
    figure.colorbar(image, ax=axes, label="load / mean")
    notebook.show(figure, "Load of 16 experts by domain: uneven with the bias, almost flat with the sequence-wise loss.")


def shifted(masks: Mapping[str, Callable]) -> None:
    """Tokens whose experts change, and tokens sent to more than two groups, when all biases are shifted alike.

    ``masks``: name → choose(biased, top_k, n_group, topk_group), for four of 16 experts in two of four groups.
    """
    scores, shifts = lesson.scores(), np.linspace(0, -1, 21)
    figure, (left, right) = notebook.picture(1, 2, width=9.4, height=2.9, sharey=True)
    for (name, choose), colour, marker in zip(masks.items(), ("C0", "C1"), "so", strict=True):
        chosen = [np.sort(choose(scores + shift, 4, 4, 2), axis=1) for shift in shifts]
        looks = {"color": colour, "marker": marker, "label": f"masked with {name}"}
        left.plot(shifts, [100 * np.mean(np.any(c != chosen[0], axis=1)) for c in chosen], **looks)
        right.plot(shifts, [100 * np.mean(nodes_touched(c, 16, 4) > 2) for c in chosen], **looks)
    for ax, title in ((left, "Tokens with other experts than before"), (right, "Tokens sent to more than two groups")):
        ax.set(xlabel="shift of all biases", ylim=(-4, 104))
        ax.invert_xaxis()
        ax.set_title(title, fontsize=11)
    left.set(ylabel="% of tokens")
    left.legend(loc="center left")
    notebook.show(figure, "Against a common shift of the biases: a mask of minus infinity never minds, a mask of zero does.")


def wires(table: Sequence[LimitedTraffic], kept: Array) -> None:
    """Microseconds on both wires and the share of the score that is kept, by the limit M on nodes."""
    figure, (left, right) = notebook.picture(1, 2, width=9.4, height=3.5)
    limits = [row.limit for row in table]
    bars = left.bar(limits, [1e6 * row.traffic.infiniband_seconds for row in table], color="C0", label="InfiniBand")
    for bar, row in zip(bars, table, strict=True):
        told = f"{row.traffic.nodes:.2f}\n{row.traffic.bytes / 1000:.0f} kB"
        left.text(bar.get_x() + bar.get_width() / 2, 0.2, told, ha="center", va="center", fontsize=7.5, color="white")
    left.axhline(1e6 * table[0].traffic.nvlink_seconds, color="C1", label="NVLink, for any M")
    left.set(xlabel="most nodes a token may use, M", ylabel="µs per token and layer", ylim=(0, 2.9), xticks=limits)
    left.set_title("Time on the wires; in the bars: nodes and bytes", fontsize=11)
    left.legend(loc="upper left", ncols=2, fontsize=8.5)
    right.plot(limits, 100 * kept, color="C2", marker="o")
    for m, share in zip(limits[:4], kept, strict=False):
        right.annotate(f"{share:.1%}", (m, 100 * share), (6, -12), textcoords="offset points", fontsize=9)
    right.axvline(4, color="black", linewidth=0.9, linestyle=":")
    right.text(4.1, 93, "V3", fontsize=10)
    right.set(xlabel="M", ylabel="% of the score without limit", xticks=limits, ylim=(90.8, 100.5))
    right.set_title("What the choice loses", fontsize=11)
    notebook.show(figure, "Left: InfiniBand time grows with M, NVLink's does not. Right: score of the chosen experts by M.")
