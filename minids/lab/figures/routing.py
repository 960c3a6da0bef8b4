"""Figures 10, 11, 13 and 26: what routers do with a text and with domains, how evenly, and what a balance loss costs."""

from collections.abc import Sequence
from itertools import combinations, product
from pathlib import Path

import numpy as np

from minids.backend import op
from minids.errors import refuse
from minids.lab.figures.film import Film, in_turn
from minids.lab.figures.picture import LEFT, RIGHT, Box, Rows, Slide, column, distinct, only, picture, size_of
from minids.lab.figures.style import MONO, colour, diverging, sequential
from minids.lab.figures.trained import Trained
from minids.lab.figures.training import domain_colours
from minids.lab.studies import load, results
from minids.lab.studies.base import MODEL

STRATEGIES = {load.NO: "no balancing", load.BATCH: "loss per batch", load.SEQUENCE: "loss per sequence", load.BIAS: "V3's bias"}
"""Arms of the load study and what the picture calls them. The speed of the bias is three times V3's, for a run that is many
thousand times shorter."""
PAIR = {"sequence loss 0.1": "loss in each sequence", "bias 0.003": "V3's bias"}
"""Arms of the balance study, each the even load of its kind, and what the picture calls them."""


def _rows_map(run: str | Path = "runs/tiny", domain: str = "", length: int = 46, block: int | None = None) -> Rows:
    """``run``: a run's folder; ``domain``: whose held-out text, code if there is any; ``block``: whose router, by default the
    first; ``length``: tokens shown."""
    trained = Trained.open(run)
    blocks = trained.moe_blocks()
    block = blocks[0] if block is None else block
    if block not in blocks:
        raise refuse("block", block, f"blocks with experts are {', '.join(map(str, blocks))}")
    domains = trained.held_out.domains
    code = "code" if "code" in domains else domains[0]  # whose tokens are easiest to tell apart
    tokens = trained.window(domain or code, length + 32)
    routing = trained.routings(tokens)[block]
    letters = trained.letters(tokens[0])
    rows, sizes = [], {"experts": trained.model.config.n_routed_experts, "groups": trained.model.config.n_group}
    for n in range(32, length + 32):
        found, gates = {"block": block, "place": n - 32, "token": letters[n]}, routing.gates[n].tolist()
        rows += [found | {"expert": e, "gate": g} | sizes for e, g in zip(routing.chosen[n].tolist(), gates, strict=True)]
    return trained.signed(rows)


@picture(10, _rows_map, source="run")
def tokens_and_experts(slide: Slide, rows: Rows) -> None:
    """Which experts each token of a held-out text is sent to in the trained model, and with what gate.

    A map with the letters of a text across and experts downwards, in groups; each column has as many coloured cells as a
    token has experts, stronger where the gate is larger. The title tells how many experts equal letters share, and any two.
    """
    experts, groups, letters = rows[0]["experts"], rows[0]["groups"], {row["place"]: row["token"] for row in rows}
    chosen = {p: {*column(only(rows, place=p), "expert")} for p in letters}
    k = len(chosen[0])
    pairs = [(len(chosen[a] & chosen[b]) / k, letters[a] == letters[b]) for a, b in combinations(letters, 2)]
    equal, any_two = (100 * np.mean([share for share, alike in pairs if alike or both]) for both in (False, True))
    finding = f"Two equal tokens share {equal:.0f} % of their experts, any two {any_two:.0f} %"
    top = slide.headed(finding, f"Block {rows[0]['block']}: {k} of {experts} experts for each token, colour: gate")
    grid = np.full((experts, len(letters)), np.nan)
    for row in rows:
        grid[row["expert"], row["place"]] = row["gate"]
    shown = [word if len(word) <= 6 else f"{word[:5]}…" for word in letters.values()]
    longest = max(map(len, shown))  # subwords stand upright
    left, low = LEFT + slide.width_of("00", 16) + 0.15, 0.2 + (0.4 + 0.17 * (longest - 1)) * slide.letters
    frame = (left, low, RIGHT - left, top - 1.1 * slide.line - low)
    ax = slide.heat(*frame, grid, sequential("routed", 0.35), 0, np.nanmax(grid), shown)
    ax.set_facecolor(colour("panel"))
    for label in ax.get_xticklabels():
        label.set(family=MONO, rotation=90 * (longest > 1))
    size = experts // groups
    ax.set_yticks(range(0, experts, max(1, size // 2)))
    for g in range(1, groups):
        ax.axhline(g * size - 0.5, color=colour("background"), linewidth=5 * slide.scale)
    slide.text(LEFT, top - 0.5 * slide.line, "expert", 16, "muted")


def _rows_load(found: dict | None = None, layer: int = 0) -> Rows:
    """``found``: results of the load study, by default those kept with the package; the load of every expert of the MoE layer
    ``layer``, in even shares."""
    arms = {STRATEGIES.get(arm, arm): held["details"] for arm, held in (found or results("load"))["arms"].items()}
    rows, model = [], f"{size_of(MODEL)}, {MODEL['n_routed_experts']} experts"
    for name, details in arms.items():
        for step, shares in zip(details["step"], details["relative_load"][layer], strict=True):
            of, more = {"strategy": name, "step": step}, {"max_vio": float(max(shares) - 1), "model": model}
            rows += [of | {"expert": e, "times_even": float(share)} | more for e, share in enumerate(shares)]
    return rows


def _last_quarter(grid: np.ndarray) -> tuple[float, float]:
    """Loads of the idlest and of the busiest expert of each moment, averaged over the last quarter, in even shares. Not of each
    expert's average: a load that jumps from expert to expert would look even."""
    loads = grid[:, -max(1, grid.shape[1] // 4) :]  # (experts, moments)
    return float(loads.min(axis=0).mean()), float(loads.max(axis=0).mean())


def _titled(slide: Slide, rows: Rows, about: str) -> tuple[float, dict[str, np.ndarray]]:
    """Writes the title. Returns where it ends, and by strategy the loads (experts, times) in even shares."""
    of, steps = {name: only(rows, strategy=name) for name in distinct(rows, "strategy")}, len(distinct(rows, "step"))
    grids = {name: np.array(column(mine, "times_even")).reshape(steps, -1).T for name, mine in of.items()}
    names = [*grids]
    worst, best = (_last_quarter(grids[name])[1] for name in (names[0], names[-1]))
    gets = f"{worst:.1f} times its share with {names[0]}, {best:.1f} times with {names[-1]}"
    return slide.title(f"In the end the busiest expert gets {gets}", rows[0]["model"], about), grids


def _draw_frame(slide: Slide, rows: Rows, at: int) -> None:
    """Loads of one moment as bars."""
    step, line, number = distinct(rows, "step")[at], slide.line, slide.width_of("4", 16)
    top, grids = _titled(slide, rows, f"Load of every expert, in even shares, after {step} steps")
    across, frame = -(-len(grids) // (2 if slide.tall else 1)), Box(LEFT, 0.3, RIGHT - LEFT, top - 0.3)
    for i, (name, grid) in enumerate(grids.items()):
        x, y, wide, high = frame.piece(i // across, len(grids) // across, across=False).piece(i % across, across)
        x, wide = x + number, wide - number - 0.2
        ax = slide.plot(x, y + 1.9 * line, wide, high - 3.4 * line, ylim=(0, 4), xlim=(-0.7, len(grid) - 0.3))
        ax.bar(range(len(grid)), np.minimum(grid[:, at], 4), 0.8, color=colour("routed"))
        slide.level(ax, 1)
        ax.set_yticks([0, 1, 2, 3, 4] if i % across == 0 else [])
        ax.set_xticks([0, len(grid) - 1])
        slide.text(x + wide / 2, y + high - 0.75 * line, name, 18, ha="center", weight="bold")
    slide.text(8.0, 0.3 + 0.3 * line, "expert", ha="center")


@picture(11, _rows_load, "study load", Film(lambda rows: in_turn(range(len(distinct(rows, "step"))), 100, 3000), _draw_frame))
def expert_load_in_training(slide: Slide, rows: Rows) -> None:
    """Load of the experts of one layer while a small model trains: without balancing, with an auxiliary loss, with V3's
    bias.

    Four strips over training steps, experts downwards. Without balancing strong red and blue bands appear and stay; with an
    auxiliary loss, over the batch or within sequences, the bands fade; so they do with the bias. The animation shows the
    same as bars.
    """
    top, grids = _titled(slide, rows, "One layer; full red: four times an even share or more, full blue: a quarter or less")
    line, left, low, last = slide.line, LEFT + 0.8 * slide.letters, 0.2 + 1.9 * slide.line, rows[-1]["step"]
    frame = Box(left, low, RIGHT - left, top + 0.1 - low)
    for i, (name, grid) in enumerate(grids.items()):
        x, y, wide, high = frame.piece(i, len(grids), across=False)
        shown, extent = np.log2(np.maximum(grid, 1 / 8)), (0, last, len(grid), 0)
        ax = slide.heat(x, y, wide, high - 1.45 * line, shown, diverging(), -2, 2, extent=extent)
        ax.set_yticks([0.5, len(grid) - 0.5], ["0", str(len(grid) - 1)])
        idlest, busiest = _last_quarter(grid)
        slide.text(left, y + high - 0.7 * line, name, 18, weight="bold")
        slide.text(RIGHT, y + high - 0.7 * line, f"busiest {busiest:.2f}×, idlest {idlest:.2f}×", 16, ha="right")
    ax.set_xticks([last // 3, 2 * last // 3, last])
    slide.text((left + RIGHT) / 2, 0.15 + 0.5 * line, "step", ha="center")
    slide.text(LEFT, 0.15 + 0.5 * line, "expert", 16, "muted")


def _rows_domains(run: str | Path = "runs/tiny", length: int = 256, windows: int = 8) -> Rows:
    """``run``: a run's folder; ``windows`` windows of ``length`` tokens of every domain's held-out text are read."""
    trained = Trained.open(run)
    experts = trained.model.config.n_routed_experts
    rows: Rows = []
    for domain in trained.held_out.domains:
        for block, routing in trained.routings(trained.window(domain, length, windows)).items():
            loads = (op.dispatch.plan(routing.chosen, experts).counts / routing.chosen.size).tolist()
            found = {"domain": domain, "block": block}
            rows += [found | {"expert": e, "load": load, "times_even": load * experts} for e, load in enumerate(loads)]
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
    finding = f"One expert takes {best['times_even']:.1f} times its even share of {most}{beside}"
    shades = "Full red: three even shares or more, full blue: a third or less"
    top = slide.headed(finding, f"Expert {best['expert']} of block {best['block']}. {shades}")
    loads = {f"block {b}": [column(only(rows, domain=d, block=b), "times_even") for d in domains] for b in blocks}
    _maps(slide, 0.2 + 1.2 * slide.line, top - 0.1, {"": loads}, domains, 3)


def _maps(slide: Slide, low: float, high: float, loads: dict[str, dict], domains: Sequence[str], limit: float) -> None:
    """Columns of maps, by name and block, of ``loads`` (domains, experts) in even shares, full colours at ``limit`` times as
    much or as little: domains before them, blocks behind, experts below."""
    names, last = [slide.cut(d, 17, 4) for d in domains], [*loads][-1]
    left, right = LEFT + slide.width_of(names, 17) + 0.2, RIGHT - slide.width_of(loads[last], 17) - 0.2
    wide = (right - left - 0.5 * (len(loads) - 1)) / len(loads)
    for j, (name, blocks) in enumerate(loads.items()):
        frame = Box(left + j * (wide + 0.5), low, wide, high - low)
        if name:
            size = slide.fit(loads, 20, wide + 0.4, bold=True)
            slide.text(frame.middle[0], high + 0.7 * slide.line, name, size, ha="center", weight="bold")
        for i, (block, grid) in enumerate(blocks.items()):
            x, y, w, h = frame.piece(i, len(blocks), across=False)
            shown, most = np.log2(np.maximum(grid, 1 / 8)), np.log2(limit)
            ax = slide.heat(x, y + 0.1, w, h - 0.2, shown, diverging(), -most, most, (), () if j else names)
            for label, shade in zip(ax.get_yticklabels(), domain_colours(domains).values(), strict=False):
                label.set_color(shade)
            if name == last:
                slide.text(x + w + 0.2, y + h / 2, block)
        experts, room = len(grid[0]), slide.width_of(str(len(grid[0]) - 1), 17) + 0.2
        ax.set_xticks(range(0, experts, next((n for n in (1, 2, 5, 10, 20, 50) if n * w >= room * experts), experts)))
    slide.text(LEFT, low - 0.45 * slide.line, "expert", 16, "muted")


def _rows_pair(found: dict | None = None, pair: dict[str, str] = PAIR) -> Rows:
    """``found``: results of the balance study, by default those kept with the package; ``pair``: arm → its name here. Loads are
    those of the first seed, in even shares; what an expert tells of the domain, in bits, is the mean over all."""
    found, rows = found or results("balance"), []
    for arm, name in pair.items():
        held = found["arms"][arm]
        of = {"model": size_of(found["common"]["model"]), "arm": arm, "strategy": name}
        summary = {key: held["summary"][key]["mean"] for key in ("specialisation", "max_vio", "loss")}
        summary |= {"seeds": len(found["seeds"])}
        for domain, layers in held["details"]["relative_load"].items():
            for layer, loads in enumerate(layers):
                of |= {"domain": domain, "layer": layer}
                rows += [of | {"expert": e, "times_even": load} | summary for e, load in enumerate(loads)]
    return rows


@picture(26, _rows_pair, source="study balance")
def specialisation(slide: Slide, rows: Rows) -> None:
    """Load of every expert by domain in two small models: balanced by a loss in each sequence, and by V3's bias.

    Two maps side by side, experts across and domains downwards, for two layers. Under that loss all cells are pale: each
    domain loads the experts alike. Under the bias many are strongly red in one domain and blue in another.
    """
    names, domains, layers = (distinct(rows, key) for key in ("strategy", "domain", "layer"))
    bits, even = ({name: only(rows, strategy=name)[0][key] for name in names} for key in ("specialisation", "max_vio"))
    plain, ours = names[0], names[-1]
    mean = f"{np.log2(len(domains)):.2f}, mean of {rows[0]['seeds']} seeds; maps: the first"
    finding = f"With {ours} an expert tells {bits[ours] / bits[plain]:.0f} times as much about the domain as with a {plain}"
    top = slide.title(finding, f"two models of {rows[0]['model']}", f"{bits[ours]:.3f} and {bits[plain]:.3f} bits of {mean}")
    told = ", ".join(f"{value:.2f}" for value in even.values())
    shades = "Full red: four even shares, full blue: a quarter"
    foot = slide.note(f"{shades}. Both keep the load even over all text (MaxVio {told})")
    loads = {name: {} for name in names}
    for name, k in product(names, layers):
        mine = only(rows, strategy=name, layer=k)
        loads[name][f"layer {k + 1}"] = [column(only(mine, domain=d), "times_even") for d in domains]
    _maps(slide, foot + 1.2 * slide.line, top - 1.4 * slide.line, loads, domains, 4)
