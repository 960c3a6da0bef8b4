"""Figures 10 and 13: what the router of a trained model does with a text, and with whole domains."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from minids.backend import op
from minids.errors import refuse
from minids.lab.figures.picture import Rows, column, distinct, only, picture
from minids.lab.figures.run_curves import domain_colours
from minids.lab.figures.slide import LEFT, RIGHT, Box, Slide
from minids.lab.figures.style import colour, diverging, sequential
from minids.lab.figures.trained import Trained


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
    left, low = 0.85 + 0.9 * slide.letters, 0.45 + 0.5 * slide.letters
    ax = slide.heat(
        left, low, RIGHT - left, top - 0.35 - low, grid, sequential("routed", 0.35), 0, high, [letters[p] for p in places]
    )
    ax.set_facecolor(colour("panel"))
    for label in ax.get_xticklabels():
        label.set_family("DejaVu Sans Mono")
    size = experts // groups
    ax.set_yticks(range(0, experts, max(1, size // 2)))
    for g in range(1, groups):
        ax.axhline(g * size - 0.5, color=colour("background"), linewidth=5 * slide.scale)
    ax.set_ylabel("expert")


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


def domain_maps(
    slide: Slide, frame: Box, loads: Sequence, domains: Sequence[str], limit: float, named: bool = True, every: int = 1
):
    """Maps one below the other of ``loads`` (domains, experts) each, in even shares; full colours at ``limit`` times as much or
    as little. Names of the domains before them, if they are to be ``named``, numbers of experts below."""
    shades = domain_colours(domains)
    for i, grid in enumerate(loads):
        x, y, w, h = frame.piece(i, len(loads), across=False)
        shown, names = np.log2(np.maximum(grid, 1 / 8)), [slide.cut(d, 17, 4) for d in domains] if named else ()
        ax = slide.heat(x, y + 0.1, w, h - 0.2, shown, diverging(), -np.log2(limit), np.log2(limit), (), names)
        if i + 1 == len(loads):
            ax.set_xticks(range(0, len(grid[0]), every))
        for label, d in zip(ax.get_yticklabels(), domains if named else (), strict=True):
            label.set_color(shades[d])


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
    beside = f" and {least['times_even']:.1f} times of {few}" if len(domains) > 1 else ""
    top = slide.title(
        f"One expert takes {best['times_even']:.1f} times its even share of {most}{beside}",
        rows[0]["model"],
        f"Expert {best['expert']} of block {best['block']}. Full red: three even shares or more, full blue: a third or less",
    )
    low, say = 0.2 + 1.2 * slide.line, slide.language.say
    left = LEFT + max(slide.width_of(say(slide.cut(d, 17, 4)), 17) for d in domains) + 0.2
    frame = Box(left, low, RIGHT - slide.width_of(say("block 10"), 17) - 0.2 - left, top - 0.1 - low)
    domain_maps(
        slide, frame, [[column(only(rows, domain=d, block=b), "times_even") for d in domains] for b in blocks], domains, 3
    )
    for i, b in enumerate(blocks):
        slide.text(frame.x + frame.w + 0.2, frame.piece(i, len(blocks), across=False).middle[1], f"block {b}")
    slide.text(LEFT, low - 0.45 * slide.line, "expert", 16, "muted")
