"""Figures 12, 14 and 18: the experts that one token meets, the nodes that tokens are sent to, and the way there."""

from collections import Counter
from pathlib import Path

import numpy as np

from minids.config import ModelConfig
from minids.errors import refuse
from minids.lab.analysis.network import INFINIBAND, NVLINK
from minids.lab.analysis.routing import nodes_touched
from minids.lab.analysis.routing_trace import trace
from minids.lab.analysis.traffic import limited_to, meter
from minids.lab.figures.picture import LEFT, RIGHT, Box, Rows, Slide, colour, column, distinct, picture, tint
from minids.lab.figures.trained import Trained
from minids.ops import router

PER_NODE = 8  # graphics cards of a node


def _rows(run: str | Path = "runs/tiny", length: int = 256, windows: int = 2, seed: int = 0) -> Rows:
    """``run``: a run's folder; ``windows`` windows of ``length`` tokens of every domain's held-out text are read by the same
    weights once for each limit M, one group of experts a node. Beside it the nodes that even, independent scores give."""
    trained = Trained.open(run)
    model, c = trained.model, trained.model.config
    if not model.moe_layers or c.n_group < 2:
        raise refuse("run", str(run), "its experts are not in groups, which are the nodes of this picture")
    ids = trained.windows(length + 1, windows)
    tokens, targets = ids[:, :-1], ids[:, 1:]
    experts, nodes, k = c.n_routed_experts, c.n_group, c.num_experts_per_tok
    v3 = ModelConfig.preset("deepseek-v3")
    free, held = (_by_chance(v3, limit, seed) for limit in (v3.n_group, v3.topk_group))
    v3_found = {"v3_limit": v3.topk_group, "v3_nodes_by_chance": held, "v3_nodes_without_limit": free}
    rows: Rows = []
    for limit in range(-(-k * nodes // experts), nodes + 1):
        limited = limited_to(model, limit)
        chosen = np.concatenate([layer.chosen.reshape(-1, k) for layer in trace(limited, tokens).layers])  # (layers · N, K)
        touched, traffic = nodes_touched(chosen, experts, nodes), meter(chosen, experts, nodes, c.hidden_size)
        loss = float(limited.losses(tokens, targets, mtp=False).main)
        found = {"mean_nodes": traffic.nodes, "mean_nodes_by_chance": _by_chance(c, limit, seed)} | v3_found
        found |= {"bytes_per_token_and_layer": traffic.bytes, "loss": loss, "own_limit": c.topk_group}
        found |= {"experts": experts, "chosen": k, "groups": nodes, "tokens": int(tokens.size)}
        shares = {n: float(np.mean(touched == n)) for n in range(1, min(k, nodes) + 1)}
        rows += [{"M": limit, "nodes": n, "share_of_tokens": share} | found for n, share in shares.items()]
    return trained.signed(rows)


def _by_chance(c: ModelConfig, limit: int, seed: int) -> float:
    """Mean nodes of a token whose scores are even and independent."""
    scores = np.random.default_rng(seed).random((8192, c.n_routed_experts))
    chosen = router.choose(scores, c.num_experts_per_tok, c.n_group, limit, c.topk_method)
    return float(nodes_touched(chosen, c.n_routed_experts, c.n_group).mean())


@picture(14, _rows, source="run")
def nodes_and_traffic(slide: Slide, rows: Rows) -> None:
    """Nodes that the experts of a trained model's tokens sit on, and the bytes sent there and back, for every node limit M.

    Dots show how many nodes tokens use for each limit M, larger where more tokens do; a line through their means rises
    along the limit at first and then flattens, near a dotted line of what even random scores would give. A table beside it
    has the bytes per token as bars, which follow the mean, and the loss of the same weights under each limit, lowest near
    the one the model was trained with.
    """
    each = {row["M"]: row for row in rows}
    limits, first = [*each], rows[0]
    own, free = first["own_limit"], limits[-1]
    counts, nodes = ({m: row[name] for m, row in each.items()} for name in ("bytes_per_token_and_layer", "mean_nodes"))
    saved, used = 100 * (1 - counts[own] / counts[free]), f"{nodes[own]:.1f} of {first['groups']} nodes"
    about = f"{first['chosen']} of {first['experts']} experts, {first['tokens']:,} held-out tokens, same weights"
    finding = f"A limit of {own} nodes saves {saved:.0f} % of the traffic: a token uses {used} instead of {nodes[free]:.1f}"
    top = slide.headed(finding, f"{about}; dot: share of tokens")
    held, without = first["v3_nodes_by_chance"], first["v3_nodes_without_limit"]
    foot = slide.note(f"DeepSeek-V3's limit of {first['v3_limit']}, by chance: {held:.1f} nodes; without it {without:.1f}")
    left, right = slide.parts(foot + 0.1, top - 0.2, 1, 1)
    ax = slide.within(left, "4", ["by chance"], "nodes it uses", grid="y", xlabel="node limit M")
    highest, place = max(column(rows, "nodes")), ax.get_position()
    steps = place.width / (len(limits) + 0.2), place.height * slide.h / 16 / (highest + 0.2)
    step = 72 * slide.figure.get_figwidth() * min(steps)  # points
    for row in rows:
        if row["share_of_tokens"] > 0.002:
            side = min(74, 0.95 * step / slide.scale) * np.sqrt(row["share_of_tokens"]) * slide.scale
            shade = colour("routed" if row["M"] == own else "other")
            ax.plot([row["M"]], [row["nodes"]], "o", color=shade, markersize=side, markeredgewidth=0, clip_on=False)
    for name, words, line in (("mean_nodes", "mean", "-"), ("mean_nodes_by_chance", "by chance", (0, (2, 1.5)))):
        slide.curve(ax, limits, [each[m][name] for m in limits], words, width=2.5, linestyle=line)
    ax.set(xlim=(limits[0] - 0.6, free + 0.6), ylim=(0.4, highest + 0.6), xticks=limits, yticks=range(1, highest + 1))
    # Of each limit: bytes as a bar and a number, and the loss of the same weights under it.
    loss, head, edge = slide.width_of("held-out\nloss", 16), right.above[1] - 3.2 * slide.line, right.behind[0]
    for x, words in ((edge - loss - 0.3, "bytes, there\nand back"), (edge, "held-out\nloss")):
        slide.text(x, head + 1.6 * slide.line, words, 16, "muted", ha="right", linespacing=1.3)
    high = min(1.1 * slide.letters * len(each), head - right.y)
    kinds, bold = ["routed" if m == own else "other" for m in each], [m == own for m in each]
    names, words = [f"M = {m}" for m in each], [f"{count:,.0f}" for count in counts.values()]
    beside = Box(right.x, head - high, right.w - loss - 0.3, high)
    slide.bars(beside, [*counts.values()], names, kinds, words, bold, thick=0.45)
    for i, (m, row) in enumerate(each.items()):
        weight = "bold" if m == own else "normal"
        slide.text(edge, head - high * (i + 0.6) / (len(each) + 0.2), f"{row['loss']:.3f}", ha="right", weight=weight)


def _rows_hops(config: ModelConfig | None = None, name: str = "DeepSeek-V3", seed: int = 3) -> Rows:
    """``config``: the model, V3 by default, one group of experts a node, and ``name``: what it is called; ``seed``: of the
    token's scores and place. A row per chosen expert; bytes as V3 sends them, FP8 there and BF16 back."""
    c = config or ModelConfig.preset("deepseek-v3")
    if c.n_group < 2 or c.n_routed_experts // c.n_group % PER_NODE:
        raise refuse("n_group", c.n_group, f"gives no nodes of {PER_NODE} cards with as many experts on each")
    rng = np.random.default_rng(seed)
    scores = rng.random((1, c.n_routed_experts))
    chosen = router.choose(scores, c.num_experts_per_tok, c.n_group, c.topk_group, c.topk_method)[0]
    home, card = int(rng.integers(c.n_group)), int(rng.integers(PER_NODE))
    traffic = meter(chosen[None], c.n_routed_experts, c.n_group, c.hidden_size, np.array([home]))
    each = c.n_routed_experts // c.n_group // PER_NODE
    about = {"home_node": home, "home_card": card, "nodes": c.n_group, "experts_per_card": each, "crossings": traffic.nodes}
    about |= {"bytes_there": traffic.dispatch_bytes, "bytes_back": traffic.combine_bytes}
    about |= {"limit": c.topk_group, "nvlink_over_infiniband": NVLINK / INFINIBAND}
    places = [(e, *divmod(e // each, PER_NODE)) for e in sorted(chosen.tolist())]
    return [{"model": name, "expert": e, "node": node, "card": card} | about for e, node, card in places]


@picture(18, _rows_hops)
def all_to_all(slide: Slide, rows: Rows) -> None:
    """The way of one token to its experts in two hops: over InfiniBand once to each node, then over NVLink to the cards.

    Eight nodes as tall frames of eight cards each. From the token's card thick horizontal arrows go once to the card of the
    same place in up to four nodes; from there thin vertical arrows go up and down to the cards that hold the chosen
    experts.
    """
    first, reached = rows[0], set(column(rows, "node"))
    nodes, home, own = first["nodes"], first["home_node"], first["home_card"]
    away = [row for row in rows if row["node"] != home]
    finding = f"{len(rows)} experts, but only {first['crossings']:g} trips over the slow network"
    nvlink = f"NVLink, {first['nvlink_over_infiniband']:g} times as fast, hands it on"
    about = f"{first['model']}, illustration: random scores"
    top = slide.title(finding, about, f"It goes once to each node, over InfiniBand; {nvlink}")
    line, foot = slide.line, 0.1
    if slide.tall or slide.letters <= 1.2:
        sent = f"{first['bytes_there']:,.0f} bytes there in FP8, {first['bytes_back']:,.0f} back in BF16"
        times = f"{len(away) / max(first['crossings'], 1):.1f} times as much"
        foot = slide.note(f"{sent}; straight to every expert it would be {times}")
    ways = [("InfiniBand, between nodes", "value"), ("NVLink, within a node", "rope"), ("so many of its experts", "routed")]
    low, high = slide.legend(LEFT, foot + 0.7 * line, ways) + 0.8 * line, top - 1.1 * line
    cell = (high - low - 0.3) / PER_NODE
    place: dict[tuple[int, int], Box] = {}
    for n, (x, _, wide, _) in enumerate(slide.parts(low, high, *nodes * [1], tall=False, gap=0.25)):
        edge, fill = ("ink", colour("faint")) if n in {*reached, home} else ("faint", tint(colour("faint"), 0.5))
        slide.box(x, low, wide, high - low, fill="panel", edge=edge)
        slide.text(x + wide / 2, high + 0.55 * line, f"node {n + 1}", 16, ha="center", weight="bold" if n == home else "normal")
        for card in range(PER_NODE):
            place[n, card] = Box(x + 0.1, high - 0.15 - cell * (card + 1) + 0.08, wide - 0.2, cell - 0.16)
            slide.box(*place[n, card], fill=fill, round=0.06)
    source = place[home, own]
    slide.box(*source, "token", "hidden", min(16, 44 * source.h / slide.letters), round=0.06)
    slide.step("InfiniBand")
    trips = sorted(reached - {home}, key=lambda n: (abs(n - home), n))
    for lane, n in enumerate(trips):  # each by itself: none goes on from another node
        y = source.y + source.h * (lane + 0.7) / (len(trips) + 0.4)
        target, side = place[n, own], 1 if n < home else -1  # the side it comes from
        _way(slide, (source.middle[0] - side * source.w / 2, y), (target.middle[0] + side * target.w / 2, y), "value")
    slide.step("NVLink")
    for (n, card), count in Counter((row["node"], row["card"]) for row in rows).items():
        target, begin = place[n, card], place[n, own]
        if card != own:
            x, side = target.middle[0] + 0.36 * target.w, 1 if card > own else -1  # below or above
            _way(slide, (x, begin.middle[1] - side * begin.h / 2), (x, target.middle[1] + side * target.h / 2), "rope")
        if (n, card) != (home, own):
            slide.box(*target, str(count), "routed", min(20, 50 * target.h) / slide.letters**0.5, round=0.06, zorder=2.5)


def _way(slide: Slide, begin: tuple[float, float], end: tuple[float, float], kind: str) -> None:
    """An arrow whose shaft passes behind the experts on its way."""
    slide.arrow(begin, end, kind=kind, width=3, head=False)
    way = np.subtract(begin, end)  # along one axis
    slide.arrow(tuple(end + np.sign(way) * min(0.3, 0.9 * np.abs(way).sum())), end, kind=kind, width=3)


def _rows_wall(run: str | Path = "", config: ModelConfig | None = None, name: str = "DeepSeek-V3", seed: int = 0) -> Rows:
    """``run``: a run's folder, whose last token of a held-out window is followed. Without one the limits are those of
    ``config``, V3 by default (``name``: what it is called), and the scores are drawn by ``seed``: an illustration."""
    if run:
        trained = Trained.open(run)
        c, name, about = trained.model.config, trained.about, "one token"
        found = trained.routings(trained.window(trained.held_out.domains[0], 64))
        met = {block: (routing.chosen[-1].tolist(), routing.gates[-1].tolist()) for block, routing in found.items()}
    else:
        c, about = config or ModelConfig.preset("deepseek-v3"), "illustration: random scores"
        rng, met = np.random.default_rng(seed), {}
        for block in filter(c.is_moe, range(c.num_hidden_layers)):
            scores = rng.random((1, c.n_routed_experts))
            chosen = router.choose(scores, c.num_experts_per_tok, c.n_group, c.topk_group, c.topk_method)[0]
            met[block] = chosen.tolist(), scores[0, chosen].tolist()
    sizes = {"experts": c.n_routed_experts, "groups": c.n_group, "kept_groups": c.topk_group, "shared": c.n_shared_experts}
    return [
        {"model": name, "scores": about, "block": block, "expert": e, "largest_gate": gate == max(gates), **sizes}
        for block, (chosen, gates) in met.items()
        for e, gate in sorted(zip(chosen, gates, strict=True))
    ]


@picture(12, _rows_wall)
def wall_of_experts(slide: Slide, rows: Rows) -> None:
    """All routed experts of all layers as a wall of cells, in groups, and those that one token meets on its way.

    A wall of nearly fifteen thousand pale cells, a row for each layer and a column for each expert, with gaps between eight
    groups; in every row eight cells are lit, in at most four groups. At the left a column in another colour, the shared
    expert, is lit in every row. A line runs upwards through the lit cell with the largest gate of each row.
    """
    first, blocks = rows[0], distinct(rows, "block")
    experts, groups = first["experts"], first["groups"]
    each_time = f"in each {len(rows) // len(blocks)} of them, from {first['kept_groups']} of {groups} groups, and a shared one"
    finding = f"A token meets {len(rows):,} of {len(blocks) * experts:,} experts"
    subtitle = f"{len(blocks)} layers of {experts} experts; {each_time}"
    top = slide.title(finding, f"{first['model']}, {first['scores']}", subtitle)
    line, each = slide.line, experts // groups
    x0, low, high = LEFT + slide.width_of(f"layer {blocks[-1]}", 16) + 0.1, 0.25 + 2.4 * line, top - 0.3
    gap, wide = 0.22, (RIGHT - x0 - 0.75 - 0.22 * groups) / groups
    cell, row_high = wide / each, (high - low) / len(blocks)
    at = {b: low + row_high * i for i, b in enumerate(blocks)}
    left = {e: x0 + 0.75 + gap + (e // each) * (wide + gap) + (e % each) * cell for e in range(experts)}
    for g in range(groups):
        group = Box(left[g * each], low, wide, high - low)
        slide.texture(group, np.ones((len(blocks), each)), tint(colour("routed"), 0.25))
        slide.text(group.middle[0], low - 0.75 * line, str(g + 1), 16, "muted", ha="center")
    if first["shared"]:
        inset = 0.1 * min(cell, row_high)
        slide.many([Box(x0 + 0.25, y + inset, 0.4, row_high - 2 * inset) for y in at.values()], "shared")
        slide.text(LEFT, low - 1.75 * line, "shared: always on", 16)
    slide.text(LEFT, low - 0.75 * line, "group", 16, "muted")
    for b in (blocks[0], blocks[-1]):
        slide.text(x0, at[b] + row_high / 2, f"layer {b}", 16, "muted", ha="right")
    slide.step("one token")
    # What is lit is as wide as can be seen from the last row, but never into its neighbour's place by more than half.
    size = max(cell, min(row_high, 2.2 * cell))
    lit = [Box(left[r["expert"]] + (cell - size) / 2, at[r["block"]], size, row_high) for r in rows]
    path = [(left[r["expert"]] + cell / 2, at[r["block"]] + row_high / 2) for r in rows if r["largest_gate"]]
    slide.many(lit, "query", zorder=2.2)
    slide.step("its path")
    looks = dict(color=colour("ink"), linewidth=1.6 * slide.scale, zorder=2.5, markersize=9 * slide.scale)
    slide.ax.plot(*zip(*path, strict=True), alpha=0.8, **looks)
    slide.ax.plot(*path[0], "o", **looks)
    slide.ax.plot(*path[-1], "^", **looks)
    slide.text(RIGHT, low - 1.75 * line, "line: the largest gate, layer by layer", 16, ha="right")
