"""Figures 10, 13 and 26: what routers do with a text and with whole domains, and how much a balance loss takes from that."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from minids.backend import op
from minids.errors import refuse
from minids.lab.figures.picture import Rows, column, distinct, only, picture
from minids.lab.figures.slide import LEFT, RIGHT, Box, Slide
from minids.lab.figures.style import colour, diverging, sequential
from minids.lab.figures.trained import Trained
from minids.lab.figures.training import domain_colours
from minids.lab.figures.words import size_of
from minids.lab.studies import results


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


@picture(10, _rows_map, source="run")
def tokens_and_experts(slide: Slide, rows: Rows) -> None:
    """Which experts each token of a held-out text is sent to in the trained model, and with what gate.

    A map with the letters of a text across and experts downwards, in groups; each column has as many coloured cells as a
    token has experts, stronger where the gate is larger. The title tells how many experts equal letters share, and any two.
    """
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
    shown = [word if len(word) <= 6 else f"{word[:5]}…" for word in letters.values()]
    longest = max(map(len, shown))  # subwords stand upright
    left, low = LEFT + slide.width_of("00", 16) + 0.15, 0.2 + (0.4 + 0.17 * (longest - 1)) * slide.letters
    ax = slide.heat(left, low, RIGHT - left, top - 1.1 * slide.line - low, grid, sequential("routed", 0.35), 0, high, shown)
    ax.set_facecolor(colour("panel"))
    for label in ax.get_xticklabels():
        label.set(family="DejaVu Sans Mono", rotation=90 * (longest > 1))
    size = experts // groups
    ax.set_yticks(range(0, experts, max(1, size // 2)))
    for g in range(1, groups):
        ax.axhline(g * size - 0.5, color=colour("background"), linewidth=5 * slide.scale)
    slide.text(LEFT, top - 0.5 * slide.line, "expert", 16, "muted")


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


@picture(13, _rows_domains, source="run")
def experts_by_domain(slide: Slide, rows: Rows) -> None:
    """Load of every expert in every block of the trained model, domain by domain, against an even share.

    One strip per block, experts across, domains downwards; red cells take more than an even share of a domain, blue cells
    less. Most experts are red in one domain and blue in another.
    """
    domains, blocks = distinct(rows, "domain"), distinct(rows, "block")
    best = max(rows, key=lambda row: row["times_even"])
    least = min(only(rows, block=best["block"], expert=best["expert"]), key=lambda row: row["times_even"])
    most, few = (slide.short(row["domain"]) for row in (best, least))
    beside = f", {least['times_even']:.1f} times that of {few}" if len(domains) > 1 else ""
    top = slide.title(
        f"One expert takes {best['times_even']:.1f} times its even share of {most}{beside}",
        rows[0]["model"],
        f"Expert {best['expert']} of block {best['block']}. Full red: three even shares or more, full blue: a third or less",
    )
    low, left = 0.2 + 1.2 * slide.line, LEFT + _margin(slide, domains)
    frame = Box(left, low, RIGHT - slide.width_of("block 10", 17) - 0.2 - left, top - 0.1 - low)
    loads = [[column(only(rows, domain=d, block=b), "times_even") for d in domains] for b in blocks]
    domain_maps(slide, frame, loads, domains, 3, [f"block {b}" for b in blocks])
    slide.text(LEFT, low - 0.45 * slide.line, "expert", 16, "muted")


def _margin(slide: Slide, domains: Sequence[str]) -> float:
    """Room for their names before maps."""
    return slide.width_of([slide.cut(d, 17, 4) for d in domains], 17) + 0.2


def domain_maps(
    slide: Slide, frame: Box, loads: Sequence, domains: Sequence[str], limit: float, blocks: Sequence[str] = (),
    named: bool = True,
):  # fmt: skip
    """Maps one below the other of ``loads`` (domains, experts) each, in even shares; full colours at ``limit`` times as much or
    as little. Names of the domains before them, if they are to be ``named``, of ``blocks`` behind, experts' numbers below."""
    shades = domain_colours(domains)
    for i, grid in enumerate(loads):
        x, y, w, h = frame.piece(i, len(loads), across=False)
        shown, names = np.log2(np.maximum(grid, 1 / 8)), [slide.cut(d, 17, 4) for d in domains] if named else ()
        ax = slide.heat(x, y + 0.1, w, h - 0.2, shown, diverging(), -np.log2(limit), np.log2(limit), (), names)
        if i + 1 == len(loads):
            experts, wide = len(grid[0]), slide.width_of(str(len(grid[0]) - 1), 17) + 0.2
            ax.set_xticks(
                range(0, experts, next(n for n in (1, 2, 5, 10, 20, 50, experts) if n * w >= wide * experts or n == experts))
            )
        if blocks:
            slide.text(x + w + 0.2, y + h / 2, blocks[i])
        for label, d in zip(ax.get_yticklabels(), domains if named else (), strict=True):
            label.set_color(shades[d])


PAIR = {"sequence loss 0.1": "loss in each sequence", "bias 0.003": "V3's bias"}
"""Arms of the balance study, each the even load of its kind, and what the picture calls them."""


def _rows_pair(found: dict | None = None, pair: dict[str, str] = PAIR) -> Rows:
    """``found``: results of the balance study, by default those kept with the package; ``pair``: arm → its name here. Loads are
    those of the first seed, in even shares; what an expert tells of the domain, in bits, is the mean over all."""
    found = found or results("balance")
    about = size_of(found["common"]["model"])
    rows: Rows = []
    for arm, name in pair.items():
        held = found["arms"][arm]
        summary = {key: held["summary"][key]["mean"] for key in ("specialisation", "max_vio", "loss")}
        for domain, layers in held["details"]["relative_load"].items():
            rows += [
                {"model": about, "arm": arm, "strategy": name, "domain": domain, "layer": layer, "expert": e}
                | {"times_even": load, **summary, "seeds": len(found["seeds"])}
                for layer, loads in enumerate(layers)
                for e, load in enumerate(loads)
            ]
    return rows


@picture(26, _rows_pair, source="study balance")
def specialisation(slide: Slide, rows: Rows) -> None:
    """Load of every expert by domain in two small models: balanced by a loss in each sequence, and by V3's bias.

    Two maps side by side, experts across and domains downwards, for two layers. Under that loss all cells are pale: each
    domain loads the experts alike. Under the bias many are strongly red in one domain and blue in another.
    """
    names, domains, layers = (distinct(rows, key) for key in ("strategy", "domain", "layer"))
    bits = {name: only(rows, strategy=name)[0]["specialisation"] for name in names}
    plain, ours = names[0], names[-1]
    top = slide.title(
        f"With {ours} an expert tells {bits[ours] / bits[plain]:.0f} times as much about the domain as with a {plain}",
        f"two models of {rows[0]['model']}",
        f"{bits[ours]:.3f} and {bits[plain]:.3f} bits of {np.log2(len(domains)):.2f}, mean of {rows[0]['seeds']} seeds; "
        "maps: the first",
    )
    line = slide.line
    margin = _margin(slide, domains)
    blocks = [f"layer {k + 1}" for k in layers]
    wide = (RIGHT - LEFT - margin - slide.width_of(blocks, 17) - 0.7) / 2
    even = ", ".join(f"{only(rows, strategy=name)[0]['max_vio']:.2f}" for name in names)
    foot = slide.note(
        f"Full red: four even shares, full blue: a quarter. Both keep the load even over all text (MaxVio {even})"
    )
    low = foot + 1.2 * line
    for i, name in enumerate(names):
        x = LEFT + margin + i * (wide + 0.5)
        size = slide.fit(names, 20, wide + 0.4, bold=True)
        slide.text(x + wide / 2, top - 0.7 * line, name, size, ha="center", weight="bold")
        of = [[column(only(rows, strategy=name, domain=d, layer=k), "times_even") for d in domains] for k in layers]
        domain_maps(slide, Box(x, low, wide, top - 1.4 * line - low), of, domains, 4, blocks if i else (), i == 0)
    slide.text(LEFT, low - 0.45 * line, "expert", 16, "muted")
