"""Figures 9, 10 and 13: what the router of a trained model does with one token, with a text, and with whole domains."""

from pathlib import Path

import numpy as np

from minids.backend import op
from minids.errors import refuse
from minids.lab.figures.picture import Picture, Rows, column, distinct, only
from minids.lab.figures.run_curves import domain_colours
from minids.lab.figures.slide import LEFT, Slide, fitted
from minids.lab.figures.style import colour, diverging, ink_on, sequential, tint
from minids.lab.figures.trained import Trained
from minids.ops import router


def _rows_token(run: str | Path = "runs/tiny", domain: str = "", length: int = 128) -> Rows:
    """``run``: a run's folder; ``domain``: whose held-out text is read, the first if not given. Of its ``length`` tokens one is
    shown whose choice the bias changes, if there is one."""
    trained = Trained.open(run)
    c = trained.model.config
    block = trained.moe_blocks()[-1]
    moe = trained.model.blocks[block].moe
    tokens = trained.window(domain or trained.held_out.domains[0], length)
    routing = trained.routings(tokens)[block]
    bias = np.zeros(c.n_routed_experts) if moe.bias is None else moe.bias
    settings = (c.num_experts_per_tok, c.n_group, c.topk_group, c.topk_method)
    without = router.choose(routing.scores, *settings)
    changed = [n for n in range(8, length) if set(without[n]) != set(routing.chosen[n])]
    n = changed[0] if changed else length // 2
    size = c.n_routed_experts // c.n_group
    biased = (routing.scores[n] + bias).reshape(c.n_group, size)
    best = np.sort(biased, axis=1)[:, -2:].sum(axis=1) if c.topk_method == "noaux_tc" else biased.max(axis=1)
    allowed = c.n_group if c.topk_method == "greedy" else c.topk_group
    kept = set(np.argsort(-best, kind="stable")[:allowed].tolist())
    gates = dict(zip(routing.chosen[n].tolist(), routing.gates[n].tolist(), strict=True))
    *before, token = trained.letters(tokens[0, max(0, n - 8) : n + 1])
    shared = {"block": block, "text": "".join(before), "token": token, "changed_by_bias": len(changed) / (length - 8)}
    rows: Rows = []
    for e in range(c.n_routed_experts):
        row = shared | {"expert": e, "group": e // size, "score": float(routing.scores[n, e]), "bias": float(bias[e])}
        row |= {"group_score": float(best[e // size]), "group_kept": e // size in kept, "chosen": e in gates}
        rows.append(row | {"chosen_without_bias": bool(e in without[n]), "gate": gates.get(e, 0.0)})
    return trained.signed(rows)


def _draw_token(slide: Slide, rows: Rows) -> None:
    chosen, groups = only(rows, chosen=True), distinct(rows, "group")
    kept = [g for g in groups if only(rows, group=g)[0]["group_kept"]]
    top = slide.title(
        f"{len(rows)} scores, {len(kept)} of {len(groups)} groups, {len(chosen)} experts, "
        f"gates that add up to {sum(row['gate'] for row in rows):.3g}",
        rows[0]["model"],
        f"Block {rows[0]['block']}, “{rows[0]['text']}{rows[0]['token']}”; for "
        f"{100 * rows[0]['changed_by_bias']:.0f} % of the tokens the bias changes the choice",
    )
    places = np.arange(len(rows)) + 0.5 * np.array(column(rows, "group"))
    limits, height = (-0.7, places[-1] + 0.7), (top - 1.55) / 3
    lines = {"score + bias": "sigmoid,\nthen the bias", "group score": "its two best,\nadded", "gate": "without\nthe bias"}
    axes = []
    for i, (name, meaning) in enumerate(lines.items()):
        low = 0.95 + (height + 0.22) * (2 - i)
        axes.append(slide.plot(2.95, low, 12.5, height - 0.12, frame=False, xlim=limits))
        axes[-1].spines["bottom"].set_visible(True)
        slide.text(LEFT, low + height / 2 + 0.2, name, 18, weight="bold")
        slide.text(LEFT, low + height / 2 - 0.02, meaning, 16, "muted", va="top", linespacing=1.2)
    scores, sums, gates = axes
    kinds = {"chosen": "routed", "group stays": tint(colour("routed"), 0.5), "group dropped": "other"}

    def fill(row: dict) -> str:
        kind = kinds["chosen" if row["chosen"] else "group stays" if row["group_kept"] else "group dropped"]
        return kind if kind.startswith("#") else colour(kind)

    for row, x in zip(rows, places, strict=True):
        scores.bar(x, row["score"], 0.8, color=fill(row))
        low, high = sorted((row["score"], row["score"] + row["bias"]))
        scores.bar(x, high - low, 0.8, bottom=low, color=colour("ink"))
        if row["chosen"]:
            gates.bar(x, row["gate"], 0.8, color=colour("routed"))
            gates.text(x, row["gate"], f"{row['gate']:.2f}", ha="center", va="bottom", fontsize=16 * slide.scale)
    for g in groups:
        mine = only(rows, group=g)
        at, high = places[column(mine, "expert")], mine[0]["group_score"]
        shade = fill(mine[0] | {"chosen": False})
        sums.bar(at.mean(), high, at[-1] - at[0] + 0.8, color=shade)
        words = dict(ha="center", va="center", fontsize=17 * slide.scale, color=ink_on(shade))
        sums.text(at.mean(), high / 2, f"{high:.2f}" + (" kept" if g in kept else ""), **words)
    scores.set_ylim(0, 1.05 * max(row["score"] + max(row["bias"], 0) for row in rows))
    sums.set_ylim(0, 1.05 * max(column(rows, "group_score")))
    gates.set_ylim(0, 1.35 * max(column(rows, "gate")))
    gates.set_xticks(places, [str(row["expert"]) for row in rows])
    slide.text(LEFT, 0.75, "expert", 16, "muted")
    slide.legend(2.95, 0.36, [("bias", "ink"), *kinds.items()])


one_token_routed = Picture(
    9,
    "one_token_routed",
    "One token in the router of the trained model: scores and bias, group scores, the experts chosen, and their gates.",
    "Three rows of bars over the same experts, which stand in groups. First the scores with the bias as a coloured end; then"
    " one wide bar per group, the kept groups marked; then bars only at the chosen experts, their gates.",
    _rows_token,
    _draw_token,
    source="run",
)


def _rows_map(run: str | Path = "runs/tiny", domain: str = "", length: int = 46, block: int | None = None) -> Rows:
    """``run``: a run's folder; ``domain``: whose held-out text, code if there is any; ``block``: whose router, by default the
    first; ``length``: tokens shown."""
    trained = Trained.open(run)
    blocks = trained.moe_blocks()
    block = blocks[0] if block is None else block
    if block not in blocks:
        raise refuse("block", block, f"blocks with experts are {', '.join(map(str, blocks))}")
    tokens = trained.window(domain or trained.code(), length + 32)
    routing = trained.routings(tokens)[block]
    letters = trained.letters(tokens[0])
    c = trained.model.config
    return trained.signed(
        [
            {"block": block, "place": n - 32, "token": letters[n], "expert": int(e), "gate": float(g)}
            | {"experts": c.n_routed_experts, "groups": c.n_group}
            for n in range(32, length + 32)
            for e, g in zip(routing.chosen[n], routing.gates[n], strict=True)
        ]
    )


def _draw_map(slide: Slide, rows: Rows) -> None:
    experts, groups, places = rows[0]["experts"], rows[0]["groups"], distinct(rows, "place")
    chosen = {p: frozenset(column(only(rows, place=p), "expert")) for p in places}
    letters = {p: only(rows, place=p)[0]["token"] for p in places}
    k = len(chosen[places[0]])
    pairs = [(len(chosen[a] & chosen[b]) / k, letters[a] == letters[b]) for i, a in enumerate(places) for b in places[:i]]
    top = slide.title(
        f"Two equal tokens share {100 * np.mean([share for share, equal in pairs if equal]):.0f} % of their experts, "
        f"any two {100 * np.mean([share for share, _ in pairs]):.0f} %",
        rows[0]["model"],
        f"Block {rows[0]['block']}: {k} of {experts} experts for each token, colour: gate",
    )
    grid = np.full((experts, len(places)), np.nan)
    for row in rows:
        grid[row["expert"], row["place"]] = row["gate"]
    high = np.nanmax(grid)
    ax = slide.heat(1.75, 0.95, 13.75, top - 1.3, grid, sequential("routed", 0.35), 0, high, [letters[p] for p in places])
    ax.set_facecolor(colour("panel"))
    for label in ax.get_xticklabels():
        label.set_family("DejaVu Sans Mono")
    size = experts // groups
    ax.set_yticks(range(0, experts, max(1, size // 2)))
    for g in range(1, groups):
        ax.axhline(g * size - 0.5, color=colour("background"), linewidth=5 * slide.scale)
    ax.set_ylabel("expert")


tokens_and_experts = Picture(
    10,
    "tokens_and_experts",
    "Which experts each token of a held-out text is sent to in the trained model, and with what gate.",
    "A map with the letters of a text across and experts downwards, in groups; each column has as many coloured cells as a "
    "token has experts, stronger where the gate is larger. The title tells how many experts equal letters share, and any "
    "two.",
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
        for block, routing in trained.routings(trained.window(domain, length, windows)).items():
            load = op.dispatch.plan(routing.chosen, experts).counts / routing.chosen.size
            rows += [
                {"domain": domain, "block": block, "expert": e, "load": float(load[e]), "times_even": float(load[e] * experts)}
                for e in range(experts)
            ]
    return trained.signed(rows)


def _draw_domains(slide: Slide, rows: Rows) -> None:
    domains, blocks = distinct(rows, "domain"), distinct(rows, "block")
    best = max(rows, key=lambda row: row["times_even"])
    least = min(only(rows, block=best["block"], expert=best["expert"]), key=lambda row: row["times_even"])
    beside = f" and {least['times_even']:.1f} times of {fitted(least['domain'], 25, 4, bold=True)}" if len(domains) > 1 else ""
    top = slide.title(
        f"One expert takes {best['times_even']:.1f} times its even share of {fitted(best['domain'], 25, 4, bold=True)}{beside}",
        rows[0]["model"],
        f"Expert {best['expert']} of block {best['block']}. Full red: three even shares or more, full blue: a third or less",
    )
    shades, limit, step = domain_colours(domains), np.log2(3), (top - 0.75) / len(blocks)
    for i, b in enumerate(blocks):
        y = top - 0.2 - step * (i + 1)
        grid = np.array([column(only(rows, domain=d, block=b), "times_even") for d in domains])
        down = [fitted(d, 17, 1.9) for d in domains]
        across = range(grid.shape[1]) if i + 1 == len(blocks) else ()
        shown = np.log2(np.maximum(grid, 1 / 8))
        ax = slide.heat(2.6, y + 0.12, 11.4, step - 0.3, shown, diverging(), -limit, limit, across, down)
        for label, d in zip(ax.get_yticklabels(), domains, strict=True):
            label.set_color(shades[d])
        slide.text(14.2, y + step / 2, f"block {b}")
    slide.text(LEFT, 0.42, "expert", 16, "muted")


experts_by_domain = Picture(
    13,
    "experts_by_domain",
    "Load of every expert in every block of the trained model, domain by domain, against an even share.",
    "One strip per block, experts across, domains downwards; red cells take more than an even share of a domain, blue cells "
    "less. Most experts are red in one domain and blue in another.",
    _rows_domains,
    _draw_domains,
    source="run",
)
