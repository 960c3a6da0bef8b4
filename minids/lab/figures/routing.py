"""Figures 9, 10 and 13: what the router of a trained model does with one token, with a text, and with whole domains."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from minids.backend import op
from minids.errors import refuse
from minids.lab.figures.picture import Picture, Rows, distinct, only
from minids.lab.figures.run_curves import domain_colours
from minids.lab.figures.slide import Slide, fitted
from minids.lab.figures.style import colour, diverging, ink_on, sequential, tint
from minids.lab.figures.trained import Trained
from minids.ops import router


def _moe_blocks(trained: Trained) -> list[int]:
    blocks = [b.moe is not None for b in trained.model.blocks]
    if not any(blocks):
        raise refuse("run", "", "its model has no block with experts, which this picture is about")
    return [i for i, moe in enumerate(blocks) if moe]


def _routings(trained: Trained, tokens: np.ndarray) -> dict[int, router.Routing]:
    """Block → what its router did with tokens (B, T)."""
    return {at.index: at.routing for at in trained.through(tokens) if at.routing is not None}


def _rows_token(run: str | Path = "runs/tiny", domain: str = "", length: int = 128) -> Rows:
    """``run``: a run's folder; ``domain``: whose held-out text is read, the first if not given. Of its ``length`` tokens one is
    shown whose choice the bias changes, if there is one."""
    trained = Trained.open(run)
    c = trained.model.config
    block = _moe_blocks(trained)[-1]
    moe = trained.model.blocks[block].moe
    tokens = trained.window(domain or trained.held_out.domains[0], length)
    routing = _routings(trained, tokens)[block]
    bias = np.zeros(c.n_routed_experts) if moe.bias is None else moe.bias
    settings = (c.num_experts_per_tok, c.n_group, c.topk_group, c.topk_method)
    without = router.choose(routing.scores, *settings)
    changed = [n for n in range(8, length) if set(without[n]) != set(routing.chosen[n])]
    n = changed[0] if changed else length // 2
    size = c.n_routed_experts // c.n_group
    biased = routing.scores[n] + bias
    best = np.sort(biased.reshape(c.n_group, size), axis=1)[:, -2:].sum(axis=1)
    if c.topk_method != "noaux_tc":
        best = biased.reshape(c.n_group, size).max(axis=1)
    kept = (
        set(np.argsort(-best, kind="stable")[: c.topk_group].tolist()) if c.topk_method != "greedy" else set(range(c.n_group))
    )
    gates = dict(zip(routing.chosen[n].tolist(), routing.gates[n].tolist(), strict=True))
    before = "".join(trained.letters(tokens[0, max(0, n - 8) : n]))
    return [
        {
            "block": block,
            "text": before,
            "token": trained.letters(tokens[0, n : n + 1])[0],
            "expert": e,
            "group": e // size,
            "score": float(routing.scores[n, e]),
            "bias": float(bias[e]),
            "group_score": float(best[e // size]),
            "group_kept": e // size in kept,
            "chosen": e in gates,
            "chosen_without_bias": bool(e in without[n]),
            "gate": gates.get(e, 0.0),
            "changed_by_bias": len(changed) / (length - 8),
        }
        for e in range(c.n_routed_experts)
    ]


def _draw_token(slide: Slide, rows: Rows) -> None:
    chosen = [row for row in rows if row["chosen"]]
    groups = distinct(rows, "group")
    kept = [g for g in groups if only(rows, group=g)[0]["group_kept"]]
    top = slide.title(
        f"{len(rows)} scores, {len(kept)} of {len(groups)} groups, {len(chosen)} experts, "
        f"gates that add up to {sum(row['gate'] for row in rows):.3g}",
        f"Block {rows[0]['block']} of the trained model, “{rows[0]['text']}{rows[0]['token']}”; for "
        f"{100 * rows[0]['changed_by_bias']:.0f} % of the tokens the bias changes the choice",
    )
    left, wide = 2.95, 12.5
    places = np.arange(len(rows)) + 0.5 * np.array([row["group"] for row in rows])
    limits = (-0.7, places[-1] + 0.7)
    height = (top - 1.55) / 3
    lows = [0.95 + (height + 0.22) * i for i in (2, 1, 0)]
    words = (("score + bias", "sigmoid, then the bias"), ("group score", "its two best, added"), ("gate", "without the bias"))
    axes = []
    for low, (name, meaning) in zip(lows, words, strict=True):
        ax = slide.plot(left, low, wide, height - 0.12, xlim=limits, xticks=[])
        ax.spines["left"].set_visible(False)
        ax.set_yticks([])
        slide.text(0.55, low + height / 2 + 0.2, name, 18, weight="bold")
        for i, line in enumerate(meaning.split(", ")):
            slide.text(0.55, low + height / 2 - 0.2 - 0.33 * i, line, 16, "muted")
        axes.append(ax)
    for row, x in zip(rows, places, strict=True):
        shade = colour("routed") if row["chosen"] else tint(colour("routed"), 0.6) if row["group_kept"] else colour("other3")
        axes[0].bar(x, row["score"], 0.8, color=shade)
        low, high = sorted((row["score"], row["score"] + row["bias"]))
        axes[0].bar(x, high - low, 0.8, bottom=low, color=colour("bias"))
        if row["chosen"]:
            axes[2].bar(x, row["gate"], 0.8, color=colour("routed"))
            axes[2].text(x, row["gate"], f"{row['gate']:.2f}", ha="center", va="bottom", fontsize=16 * slide.scale)
    for g in groups:
        mine = only(rows, group=g)
        at = places[[row["expert"] for row in mine]]
        shade = tint(colour("routed"), 0.6) if mine[0]["group_kept"] else colour("other3")
        axes[1].bar(at.mean(), mine[0]["group_score"], at[-1] - at[0] + 0.8, color=shade)
        axes[1].text(
            at.mean(),
            0.5 * mine[0]["group_score"],
            f"{mine[0]['group_score']:.2f}" + (" kept" if g in kept else ""),
            ha="center",
            va="center",
            fontsize=17 * slide.scale,
            color=ink_on(shade),
        )
    axes[0].set_ylim(0, 1.05 * max(row["score"] + max(row["bias"], 0) for row in rows))
    axes[1].set_ylim(0, 1.05 * max(row["group_score"] for row in rows))
    axes[2].set_ylim(0, 1.35 * max(row["gate"] for row in rows))
    axes[2].set_xticks(places, [str(row["expert"]) for row in rows])
    axes[2].tick_params(axis="x", length=0)
    slide.text(0.55, 0.75, "expert", 16, "muted")
    slide.legend(2.95, 0.36, [("bias", "bias"), ("chosen", "routed")])


one_token_routed = Picture(
    9,
    "one_token_routed",
    "One token in the router of the trained model: scores and bias, group scores, the experts chosen, and their gates.",
    "Three rows of bars over the same experts, which stand in groups. First the scores with the bias as a coloured end; then "
    "one wide "
    "bar per group, the kept groups marked; then bars only at the chosen experts, their gates.",
    _rows_token,
    _draw_token,
    source="run",
)


def _rows_map(run: str | Path = "runs/tiny", domain: str = "", length: int = 46, block: int | None = None) -> Rows:
    """``run``: a run's folder; ``domain``: whose held-out text, ``block``: whose router, by default the last; ``length``:
    tokens shown."""
    trained = Trained.open(run)
    block = _moe_blocks(trained)[-1] if block is None else block
    tokens = trained.window(domain or trained.held_out.domains[-1], length + 32)
    if block not in _moe_blocks(trained):
        raise refuse("block", block, f"blocks with experts are {', '.join(map(str, _moe_blocks(trained)))}")
    routing = _routings(trained, tokens)[block]
    letters = trained.letters(tokens[0])
    return [
        {
            "block": block,
            "place": n - 32,
            "token": letters[n],
            "expert": int(e),
            "gate": float(g),
            "experts": trained.model.config.n_routed_experts,
            "groups": trained.model.config.n_group,
        }
        for n in range(32, length + 32)
        for e, g in zip(routing.chosen[n], routing.gates[n], strict=True)
    ]


def _draw_map(slide: Slide, rows: Rows) -> None:
    experts, places = rows[0]["experts"], distinct(rows, "place")
    sets: dict[str, list[frozenset]] = {}
    for p in places:
        mine = only(rows, place=p)
        sets.setdefault(mine[0]["token"], []).append(frozenset(row["expert"] for row in mine))
    k = len(only(rows, place=places[0]))
    pairs = [len(a & b) / k for group in sets.values() for i, a in enumerate(group) for b in group[:i]]
    all_sets = [s for group in sets.values() for s in group]
    everyone = [len(a & b) / k for i, a in enumerate(all_sets) for b in all_sets[:i]]
    top = slide.title(
        f"Two equal tokens share {100 * np.mean(pairs):.0f} % of their experts, any two {100 * np.mean(everyone):.0f} %",
        f"Block {rows[0]['block']} of the trained model: {k} of {experts} experts for each token, colour: gate",
    )
    grid = np.full((experts, len(places)), np.nan)
    for row in rows:
        grid[row["expert"], row["place"]] = row["gate"]
    ax = slide.plot(1.75, 0.95, 13.75, top - 1.3)
    ax.set_facecolor(colour("panel"))
    ax.imshow(grid, cmap=sequential("routed", 0.35), vmin=0, vmax=np.nanmax(grid), aspect="auto", interpolation="nearest")
    ax.set_xticks(range(len(places)), [only(rows, place=p)[0]["token"] for p in places], family="DejaVu Sans Mono")
    size = experts // rows[0]["groups"]
    ax.set_yticks(range(0, experts, max(1, size // 2)))
    for g in range(1, rows[0]["groups"]):
        ax.axhline(g * size - 0.5, color=colour("background"), linewidth=5 * slide.scale)
    ax.tick_params(length=0)
    ax.set_ylabel("expert")
    for edge in ("left", "bottom"):
        ax.spines[edge].set_visible(False)


tokens_and_experts = Picture(
    10,
    "tokens_and_experts",
    "Which experts each token of a held-out text is sent to in the trained model, and with what gate.",
    "A map with the letters of a text across and experts downwards, in groups; each column has as many coloured cells as a "
    "token has "
    "experts, stronger where the gate is larger. The title tells how many experts equal letters share, and any two.",
    _rows_map,
    _draw_map,
    source="run",
)


def _rows_domains(run: str | Path = "runs/tiny", length: int = 256, windows: int = 8) -> Rows:
    """``run``: a run's folder; ``windows`` windows of ``length`` tokens of every domain's held-out text are read."""
    trained = Trained.open(run)
    experts = trained.model.config.n_routed_experts
    rows: Rows = []
    for domain in trained.held_out.domains:
        for block, routing in _routings(trained, trained.window(domain, length, windows)).items():
            load = op.dispatch.plan(routing.chosen, experts).counts / routing.chosen.size
            rows += [
                {"domain": domain, "block": block, "expert": e, "load": float(load[e]), "times_even": float(load[e] * experts)}
                for e in range(experts)
            ]
    return rows


def _draw_domains(slide: Slide, rows: Rows) -> None:
    domains, blocks = distinct(rows, "domain"), distinct(rows, "block")
    best = max(rows, key=lambda row: row["times_even"])
    same = [row for row in rows if (row["block"], row["expert"]) == (best["block"], best["expert"])]
    least = min(same, key=lambda row: row["times_even"])
    beside = f" and {least['times_even']:.1f} times of {fitted(least['domain'], 25, 4, bold=True)}" if len(domains) > 1 else ""
    top = slide.title(
        f"One expert takes {best['times_even']:.1f} times its even share of {fitted(best['domain'], 25, 4, bold=True)}{beside}",
        f"Expert {best['expert']} of block {best['block']}, trained model; full red: three times an even share or more, full "
        f"blue: a third or less",
    )
    shades, limit = domain_colours(domains), np.log2(3)
    step = (top - 0.75) / len(blocks)
    for i, b in enumerate(blocks):
        y = top - 0.2 - step * (i + 1)
        ax = slide.plot(2.6, y + 0.12, 11.4, step - 0.3)
        grid = np.array([[row["times_even"] for row in only(rows, domain=d, block=b)] for d in domains])
        ax.imshow(
            np.log2(np.maximum(grid, 1 / 8)), cmap=diverging(), vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest"
        )
        ax.set_yticks(range(len(domains)), [fitted(d, 17, 2.3) for d in domains])
        for label, d in zip(ax.get_yticklabels(), domains, strict=True):
            label.set_color(shades[d])
        ax.set_xticks(range(grid.shape[1]) if i + 1 == len(blocks) else [])
        ax.tick_params(length=0)
        for edge in ("left", "bottom"):
            ax.spines[edge].set_visible(False)
        slide.text(14.2, y + step / 2, f"block {b}", 17)
    slide.text(0.55, 0.42, "expert", 16, "muted")


experts_by_domain = Picture(
    13,
    "experts_by_domain",
    "Load of every expert in every block of the trained model, domain by domain, against an even share.",
    "One strip per block, experts across, domains downwards; red cells take more than an even share of a domain, blue cells "
    "less. Most "
    "experts are red in one domain and blue in another.",
    _rows_domains,
    _draw_domains,
    source="run",
)
