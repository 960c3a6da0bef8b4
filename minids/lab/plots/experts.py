"""Pictures of notebook 6: which experts a text meets, how they are chosen, and how tokens get there and back."""

import copy
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files

import numpy as np

from minids.lab import notebook
from minids.lab.figures.routed_text import palette
from minids.lab.figures.style import ink_on
from minids.lab.figures.trained import through
from minids.lab.lessons import experts as lesson
from minids.lab.lessons.experts import Learned
from minids.lab.page import Cell
from minids.model import DeepSeekV3
from minids.ops import dispatch, router
from minids.ops.dispatch import Plan
from minids.ops.router import Routing

Array = np.ndarray


class Router:
    """What the router of every block says of a text: for pictures, which choose anew from the scores."""

    def __init__(self, model: DeepSeekV3, tokens: Array, pieces: Sequence[str]):
        c = model.config
        self.pieces, self.experts, self.groups, self.kept = list(pieces), c.n_routed_experts, c.n_group, c.topk_group
        self.top_k, self.scale, self.colours = (
            c.num_experts_per_tok,
            c.routed_scaling_factor,
            palette(c.n_routed_experts, c.n_group),
        )
        walked = [at for at in through(model, tokens) if at.routing is not None]
        self.scores = {at.index: at.routing.scores for at in walked}  # block → (T, E)
        self.bias = {at.index: at.block.moe.bias for at in walked}  # block → (E,)
        self.when = ""  # what a title says of the step of training

    def routed(self, block: int, bias: bool = True, kept: int | None = None) -> Routing:
        """The choice of all tokens, with or without bias, from so many groups."""
        added = self.bias[block] * bias
        scores = self.scores[block]
        chosen = router.choose(scores + added, self.top_k, self.groups, kept or self.kept)
        picked = np.take_along_axis(scores, chosen, axis=-1)
        return Routing(self.scale * picked / picked.sum(axis=-1, keepdims=True), chosen, scores)

    def strongest(self, block: int, bias: bool = True) -> Array:
        """The expert with the largest gate of every token, (T,)."""
        found = self.routed(block, bias)
        return np.take_along_axis(found.chosen, found.gates.argmax(axis=-1)[:, None], axis=-1)[:, 0]

    def sentence(self, block: int = 2, bias: bool = True) -> None:
        """Every token in the colour of the expert with its largest gate; below it all its experts, darker for larger gates."""
        found, count = self.routed(block, bias), len(self.pieces)
        figure, axes = notebook.picture(width=9.4, height=4.1)
        lead = self.strongest(block, bias)
        each = self.experts // self.groups
        row = {e: 2 + e + 0.5 * (e // each) for e in range(self.experts)}
        for t, piece in enumerate(self.pieces):
            fill = self.colours[lead[t]]
            axes.barh(0.5, 0.96, left=t, height=1, color=fill)
            axes.text(t + 0.48, 0.5, piece, ha="center", va="center", fontsize=_letters(piece), color=ink_on(fill))
            for e, gate in zip(found.chosen[t], found.gates[t], strict=True):
                axes.barh(row[e] + 0.5, 0.96, left=t, height=0.94, color=self.colours[e], alpha=min(1, 0.12 + 0.6 * gate))
        for e, y in row.items():
            axes.axhline(y + 1, color="#EEEEEE", linewidth=0.7, zorder=0)
            axes.text(-0.25, y + 0.5, str(e), ha="right", va="center", fontsize=7.5)
        for g in range(self.groups):
            axes.text(-1.1, row[g * each] + each / 2, f"group {g}", ha="center", va="center", rotation=90, fontsize=8.5)
        axes.set(xlim=(-1.6, count), ylim=(max(row.values()) + 1.2, -0.1))
        axes.axis("off")
        where = f"Block {block}{self.when}{'' if bias else ', bias off'}"
        axes.set_title(f"{where}: each token in the colour of its strongest expert; below, all its experts")
        notebook.show(figure, f"The sentence, coloured by the experts of block {block}; below, four experts for each token.")

    def choice(self, token: int = 12, block: int = 2, bias: bool = True, kept_groups: int = 2) -> None:
        """Scores of all experts for one token, what the bias adds, the groups that stay, and the gates of those chosen."""
        found, scores = self.routed(block, bias, kept_groups), self.scores[block][token]
        added = self.bias[block] * bias
        biased, chosen, each = scores + added, found.chosen[token].tolist(), self.experts // self.groups
        strength = np.sort(biased.reshape(self.groups, each), axis=1)[:, -2:].sum(axis=1)
        stay = set(np.argsort(-strength, kind="stable")[:kept_groups].tolist())
        figure, axes = notebook.picture(width=9.4, height=3.3)
        top = 1.32 * max(biased.max(), scores.max())
        for g in range(self.groups):
            if g in stay:
                axes.axvspan(each * g - 0.5, each * g + each - 0.5, color="C2", alpha=0.12, linewidth=0)
            axes.text(each * (g + 0.5) - 0.5, 0.93 * top, f"two best: {strength[g]:.2f}", ha="center", fontsize=9)
        for e in range(self.experts):
            axes.bar(e - 0.08, scores[e], width=0.7, color=self.colours[e] if e in chosen else "#CCCCCC")
            if added[e]:
                sign = "black" if added[e] > 0 else "C1"
                axes.bar(e + 0.36, abs(added[e]), bottom=min(scores[e], biased[e]), width=0.14, color=sign)
        for e, gate in zip(chosen, found.gates[token], strict=True):
            axes.text(e, max(scores[e], biased[e]) + 0.02 * top, f"{gate:.2f}", ha="center", fontsize=9.5, weight="bold")
        axes.set(xlim=(-0.6, self.experts - 0.4), ylim=(0, top), xticks=range(self.experts), xlabel="expert", ylabel="score")
        axes.grid(axis="x", visible=False)
        axes.set_title(f"“{self.pieces[token]}” in block {block}. Shaded: groups that stay. Coloured: chosen, with their gates")
        notebook.show(
            figure,
            f"Scores of {self.experts} experts for one token, their biases, and the {self.top_k} chosen from two groups.",
        )

    def page(self, training: "Training") -> Cell:
        """The same to point at, with some steps of the training: a page that needs nothing else, in a cell's output."""
        at = [training.at(step) for step in training.shown] + [self]
        data = {
            "pieces": self.pieces, "layers": list(self.scores), "groups": self.groups, "kept": self.kept, "k": self.top_k,
            "scale": self.scale, "start": 12, "colours": [[fill, ink_on(fill)] for fill in self.colours],
            "steps": [*training.shown, training.last],
            "scores": [[_thousandths(s) for s in then.scores.values()] for then in at],
            "bias": [[_thousandths(b) for b in then.bias.values()] for then in at],
        }  # fmt: skip
        source = files(__package__).joinpath("router.html").read_text(encoding="utf-8")
        page = source.replace("{{data}}", json.dumps(data, ensure_ascii=False, separators=(",", ":")))
        return Cell(page, 440)


class Training:
    """What the routers said of the same text in the first steps of such a training, from notebooks/routing_record.py."""

    def __init__(self, routers: Router):
        self.now = routers
        with np.load(notebook.model_file("routing.npz")) as kept:
            self.steps: list[int] = kept["steps"].tolist()
            self.scores, self.bias = kept["scores"].astype(np.float32), kept["bias"]  # (S, blocks, T, E), (S, blocks, E)
        self.last = self.steps[-1]
        wanted = (0, 25, 50, 100, 150, 200)
        self.shown = [step for step in wanted if step in self.steps]

    def at(self, step: int) -> Router:
        """The routers after so many steps."""
        index, then = self.steps.index(step), copy.copy(self.now)
        then.scores = dict(zip(self.now.scores, self.scores[index], strict=True))
        then.bias = dict(zip(self.now.bias, self.bias[index], strict=True))
        then.when = f" after {step:,} steps"
        return then

    def sentence(self, step: int = 0, block: int = 2, bias: bool = True) -> None:
        """The text after so many steps, coloured as ``Router.sentence`` does."""
        self.at(step).sentence(block, bias)

    def together(self, step: int, block: int = 2, kind: str = "0123456789") -> tuple[int, int]:
        """Of the tokens in ``kind``: how many share their strongest expert, and how many there are."""
        strongest = zip(self.now.pieces, self.at(step).strongest(block), strict=True)
        experts = [int(e) for piece, e in strongest if piece in kind]
        return max(map(experts.count, experts)), len(experts)

    def strips(self, block: int = 2) -> None:
        """The text in the colours of its strongest experts, a row for each of some steps."""
        steps, count = [*self.shown, self.last], len(self.now.pieces)
        figure, axes = notebook.picture(width=9.4, height=0.6 + 0.36 * len(steps))
        for row, step in enumerate(steps):
            for t, (piece, e) in enumerate(zip(self.now.pieces, self.at(step).strongest(block), strict=True)):
                fill = self.now.colours[e]
                axes.barh(row, 0.96, left=t, height=0.9, color=fill)
                axes.text(t + 0.48, row, piece, ha="center", va="center", fontsize=_letters(piece), color=ink_on(fill))
            axes.text(-0.2, row, f"step {step:,}", ha="right", va="center", fontsize=9)
            axes.text(count + 0.2, row, "{} of {}".format(*self.together(step, block)), ha="left", va="center", fontsize=9)
        axes.text(count + 1.6, -0.8, "digits that share one", ha="right", va="center", fontsize=9)
        axes.set(xlim=(-2.2, count + 1.6), ylim=(len(steps) - 0.4, -1.2))
        axes.axis("off")
        axes.set_title(f"Block {block} while the model is trained: each token in the colour of its strongest expert")
        notebook.show(
            figure, f"The sentence at {len(steps)} steps of training: digits soon share a colour, which changes later."
        )


def _letters(piece: str) -> float:
    """The size in which a piece fits into its field."""
    return 7.5 if len(piece) < 7 else 6


def _thousandths(values: Array) -> list:
    """Whole numbers: short in a page."""
    return np.rint(1000 * values.astype(float)).astype(int).tolist()


def there_and_back(pieces: Sequence[str], routing: Routing, plan: Plan, colours: Sequence[str]) -> None:
    """Tokens, a line for each copy to its row, and the rows sorted by expert; thicker lines are larger gates."""
    count, top_k = routing.chosen.shape
    rows = plan.place.reshape(count, top_k)
    middle = (np.arange(count) + 0.5) * top_k
    strongest = routing.gates.max()
    figure, axes = notebook.picture(width=9.4, height=3.6)
    for n in range(count):
        for place, e in zip(rows[n], routing.chosen[n], strict=True):
            gate = routing.gates[n, routing.chosen[n].tolist().index(e)]
            axes.plot(
                [middle[n], place + 0.5], [2.02, 1.15], color=colours[e], lw=0.4 + 6 * (gate / strongest) ** 2, alpha=0.85
            )
            axes.scatter(place + 0.5, 0.98, marker="s", s=260, color=colours[e], zorder=3)
            axes.text(place + 0.5, 0.98, str(n), ha="center", va="center", color=ink_on(colours[e]), zorder=4, fontsize=9)
        axes.text(
            middle[n], 2.12, f"{n}: {pieces[n]}", ha="center", va="center", color="white", zorder=4,
            bbox={"boxstyle": "round,pad=0.35", "facecolor": "#555555", "edgecolor": "none"},
        )  # fmt: skip
    for e, (first, last) in enumerate(zip(plan.starts[:-1], plan.starts[1:], strict=True)):
        if last > first:
            axes.barh(0.35, last - first - 0.1, left=first + 0.05, height=0.42, color=colours[e])
            axes.text((first + last) / 2, 0.35, str(e), ha="center", va="center", color=ink_on(colours[e]), fontsize=9)
    axes.set(xlim=(0, count * top_k), ylim=(0, 2.4), xticks=[], yticks=[0.35, 0.98, 2.12])
    axes.set_yticklabels(["experts", "rows, sorted", "tokens"])
    axes.tick_params(length=0)
    axes.grid(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    idle = len(colours) - len(np.unique(routing.chosen))
    axes.set_title(f"{count * top_k} copies of {count} tokens; thicker lines are larger gates; {idle} experts are idle")
    notebook.show(figure, f"{count} tokens, each with {top_k} lines to rows that are sorted by expert.")


def pushed(pieces: Sequence[str], routing: Routing, bias: Array, expert: int, tokens: Sequence[int]) -> None:
    """The gates of some tokens, in the order of choice; one expert, whose bias brought it in front, in orange."""
    figure, axes = notebook.picture(1, len(tokens), width=9.4, height=2.5, sharey=True)
    for ax, n in zip(axes, tokens, strict=True):
        chosen, gates = routing.chosen[n].tolist(), routing.gates[n]
        bars = ax.bar(range(len(chosen)), gates, color=["C1" if e == expert else "#999999" for e in chosen])
        ax.bar_label(bars, fmt="{:.2f}", padding=2, fontsize=9)
        score = routing.scores[n, expert]
        ax.set_title(f"“{pieces[n]}”\n{expert}: s = {score:.2f}, s + b = {score + bias[expert]:.2f}", fontsize=10)
        ax.set(xticks=range(len(chosen)), xticklabels=chosen, xlabel="experts, best s + b first")
        ax.grid(axis="x", visible=False)
    axes[0].set(ylabel="gate", ylim=(0, 1.15 * routing.gates[list(tokens)].max()))
    notebook.show(figure, f"Gates of {len(tokens)} tokens: expert {expert}, first by its bias, has one of the smallest gates.")


def overflow(spreads: Sequence[float] = (0.0, 0.5, 1.0, 2.0), tokens: int = 4096, experts: int = 64, top_k: int = 8) -> None:
    """Copies that every expert gets, busiest first, as popularity differs more; what is above the capacity is dropped."""
    rng, capacity = np.random.default_rng(0), tokens * top_k // experts
    liked = rng.standard_normal(experts)
    figure, axes = notebook.picture(1, len(spreads), width=9.4, height=2.9, sharey=True)
    for ax, spread in zip(axes, spreads, strict=True):
        logits = rng.standard_normal((tokens, experts)) + spread * liked
        load = np.sort(dispatch.plan(router.choose(logits, top_k), experts).counts)[::-1]
        kept = np.minimum(load, capacity)
        ax.bar(range(experts), kept, width=1, color="C0", label="kept")
        ax.bar(range(experts), load - kept, bottom=kept, width=1, color="C1", label="dropped")
        ax.axhline(capacity, color="black", linewidth=0.9)
        lost = (load - kept).sum() / load.sum()
        ax.set_title(f"spread {spread:g}: {lost:.1%} dropped\nbusiest {load.max() / capacity:.1f} × capacity", fontsize=10)
        ax.set(xticks=[], xlabel=f"{experts} experts, busiest first")
    axes[0].set(ylabel="copies")
    axes[0].legend(loc="upper right", fontsize=8.5)
    notebook.show(figure, "Loads of 64 experts at four spreads of popularity; what stands above the capacity would be dropped.")


def around(count: int) -> Array:
    """Centroids on a circle, not quite even: (count, 2)."""
    turn = 2 * np.pi * (np.arange(count) + 0.5 * np.sin(3 * np.arange(count))) / count
    return 1.5 * np.stack([np.cos(turn), np.sin(turn)], axis=-1)


def planes(bias: float = 0.25) -> None:
    """The plane, coloured by the set of experts that each point chooses: 1 of 4, 4 of 16, and 1 of 4 with a bias for one."""
    helped = np.array([0, 0, bias, 0])
    panels = {
        "1 of 4": (around(4), 1, None),
        "4 of 16": (around(16), 4, None),
        f"1 of 4, bias {bias:.2f} for 2": (around(4), 1, helped),
    }
    points = _square()
    figure, axes = notebook.picture(1, len(panels), width=9.4, height=3.5, sharey=True)
    for ax, (name, (centroids, top_k, added)) in zip(axes, panels.items(), strict=True):
        chosen = np.sort(router.forward(points @ centroids.T, added, top_k)[0].chosen, axis=-1)
        _, which = np.unique(chosen, axis=0, return_inverse=True)
        count = int(which.max()) + 1
        # Neighbours around the circle get different colours: number the sets by their angle.
        of_set = [points[which.ravel() == s].T[::-1] for s in range(count)]
        angle = [np.angle(np.exp(1j * np.arctan2(*place)).mean()) for place in of_set]
        _plane(ax, which, np.argsort(np.argsort(angle)) % min(6, count), centroids)
        ax.set_title(f"{name}: {count} sets", fontsize=11)
    notebook.show(
        figure, "Three planes cut into sectors by the experts chosen; with a bias one region swells around the origin."
    )


def _square(side: int = 240) -> Array:
    """Points of the plane, (side², 2)."""
    axis = np.linspace(-3, 3, side)
    return np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)


def _plane(ax, which: Array, colour: Array, centroids: Array) -> None:
    """Every point in the colour of its number in ``which`` (side²), with the centroids as arrows."""
    colours = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in notebook.COLOURS[:6]])
    side = round(which.size**0.5)
    shade = colours[colour] * 0.55 + 0.45
    ax.imshow(shade[which.reshape(side, side)], origin="lower", extent=(-3, 3, -3, 3), interpolation="nearest")
    for e, (x, y) in enumerate(centroids):
        ax.annotate("", (x, y), (0, 0), arrowprops={"arrowstyle": "-|>", "color": "black", "lw": 1})
        if len(centroids) == 4:
            long = 1 + 0.4 / max(np.hypot(x, y), 0.2)
            ax.text(long * x, long * y, str(e), ha="center", va="center", weight="bold")
    ax.set(xticks=[-2, 0, 2], yticks=[-2, 0, 2])
    ax.grid(False)


def gates_around(top_k: int = 2) -> None:
    """Gates of four experts while a token walks around a circle; dashed where an expert is exchanged."""
    turn = np.linspace(0, 2 * np.pi, 1441)
    walk, _ = router.forward(1.5 * np.stack([np.cos(turn), np.sin(turn)], axis=-1) @ around(4).T, None, top_k)
    gates = np.zeros((len(turn), 4))
    np.put_along_axis(gates, walk.chosen, walk.gates, axis=-1)
    exchanged = np.degrees(turn[np.flatnonzero((np.diff(gates > 0, axis=0)).any(axis=1))])
    figure, axes = notebook.picture(height=3.0)
    for e, gate in enumerate(gates.T):
        axes.plot(np.degrees(turn), gate, color=f"C{e}", label=f"expert {e}")
    for where in exchanged:
        axes.axvline(where, color="#999999", lw=0.8, ls="--")
        axes.text(where + 2, 0.02, f"{where:.0f}°", fontsize=9)
    axes.set(xlabel="direction of the token, degrees", ylabel="gate", xlim=(0, 360), ylim=(-0.03, 0.95))
    axes.set(xticks=range(0, 361, 45))
    axes.legend(ncol=4, loc="upper center")
    axes.set_title(f"{top_k} of four experts: smooth between the dashed lines, at each one leaves and another comes")
    notebook.show(figure, "Gates of four experts around a circle, smooth pieces with jumps between them.")


def learned(runs: Mapping[str, Learned]) -> None:
    """The plane after the training of some routers of more than one expert, and the losses of all.

    A point has the colour of the expert with the largest gate; the number in a quarter is the expert that is right there. The
    titles say for how many tokens these are the same, before the training and after.
    """
    planes = {name: found for name, found in runs.items() if found.losses[-1] < found.losses[0]}
    figure, axes = notebook.picture(1, len(planes) + 1, width=9.4, height=3.0, width_ratios=[*[1] * len(planes), 1.3])
    points = _square(120)
    for ax, (name, found) in zip(axes, planes.items(), strict=False):
        scores = lesson.in_the_plane(points) @ found.centroids.T  # the sigmoid keeps the order, and so do the gates
        _plane(ax, scores.argmax(axis=1), np.arange(4), np.empty((0, 2)))
        ax.axhline(0, color="black", linewidth=1, linestyle="--")
        ax.axvline(0, color="black", linewidth=1, linestyle="--")
        for e, (x, y) in enumerate(((1.5, 1.5), (-1.5, 1.5), (-1.5, -1.5), (1.5, -1.5))):
            round_ = {"boxstyle": "circle", "facecolor": f"C{e}", "edgecolor": "white"}
            ax.text(x, y, str(e), ha="center", va="center", color="white", weight="bold", bbox=round_)
        ax.set(xticks=[], yticks=[])
        ax.set_title(f"{name}: {found.right[0]:.0%} → {found.right[-1]:.0%}", fontsize=10)
    line, ends = axes[-1], []
    for (name, found), colour in zip(runs.items(), ("C1", "C3", "C0", "C2"), strict=True):
        line.plot(found.losses, color=colour, label=f"{name}: {found.losses[-1]:.2f}")
        ends.append(found.losses[0])
    line.set(xlabel="step", ylabel="loss", ylim=(0, 1.6 * max(ends)))
    line.legend(fontsize=8.5, loc="upper right")
    notebook.show(
        figure, "Routers in the plane find the quarters of their experts, or most of them; that of one expert stays as it was."
    )
