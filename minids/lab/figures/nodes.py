"""Figures 14 and 18: the nodes that tokens are sent to, and the way of one token to its experts."""

from collections import Counter
from pathlib import Path

import numpy as np

from minids.config import ModelConfig
from minids.errors import refuse
from minids.lab.analysis.network import INFINIBAND, NVLINK
from minids.lab.analysis.routing import nodes_touched
from minids.lab.analysis.routing_trace import trace
from minids.lab.analysis.traffic import limited_to, meter
from minids.lab.figures.picture import Rows, column, distinct, only, picture
from minids.lab.figures.slide import LEFT, RIGHT, Box, Slide
from minids.lab.figures.style import colour, tint
from minids.lab.figures.trained import Trained
from minids.ops import router


def _rows(run: str | Path = "runs/tiny", length: int = 256, windows: int = 2, seed: int = 0) -> Rows:
    """``run``: a run's folder; ``windows`` windows of ``length`` tokens of every domain's held-out text are read by the same
    weights once for each limit M, one group of experts a node. Beside it the nodes that even, independent scores give."""
    trained = Trained.open(run)
    model, c = trained.model, trained.model.config
    if not model.moe_layers or c.n_group < 2:
        raise refuse("run", str(run), "its experts are not in groups, which are the nodes of this picture")
    ids = np.concatenate([trained.window(domain, length + 1, windows) for domain in trained.held_out.domains])
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
        for n in range(1, min(k, nodes) + 1):
            rows.append({"M": limit, "nodes": n, "share_of_tokens": float(np.mean(touched == n))} | found)
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
    limits, first = distinct(rows, "M"), rows[0]
    each = {m: only(rows, M=m)[0] for m in limits}
    own, free = first["own_limit"], limits[-1]
    saved = 1 - each[own]["bytes_per_token_and_layer"] / each[free]["bytes_per_token_and_layer"]
    top = slide.title(
        f"A limit of {own} nodes saves {100 * saved:.0f} % of the traffic: a token uses {each[own]['mean_nodes']:.1f} of "
        f"{first['groups']} nodes instead of {each[free]['mean_nodes']:.1f}",
        first["model"],
        f"{first['chosen']} of {first['experts']} experts, {first['tokens']:,} held-out tokens, same weights; "
        "dot: share of tokens",
    )
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
    _columns(slide, each, own, right)


def _columns(slide: Slide, each: dict[int, dict], own: int, frame: Box) -> None:
    """Of each limit: bytes as a bar and a number, and the loss of the same weights under it."""
    head, top, right = 3.2 * slide.line, frame.y + frame.h, frame.x + frame.w
    counts, loss = [row["bytes_per_token_and_layer"] for row in each.values()], slide.width_of("held-out\nloss", 16)
    for x, words in ((right - loss - 0.3, "bytes, there\nand back"), (right, "held-out\nloss")):
        slide.text(x, top - head / 2, words, 16, "muted", ha="right", linespacing=1.3)
    high = min(1.1 * slide.letters * len(each), frame.h - head)
    kinds, words = ["routed" if m == own else "other" for m in each], [f"{count:,.0f}" for count in counts]
    names, bold = [f"M = {m}" for m in each], [m == own for m in each]
    beside = Box(frame.x, top - head - high, frame.w - loss - 0.3, high)
    slide.bars(beside, counts, names, kinds, words, bold, thick=0.45)
    for i, row in enumerate(each.values()):
        weight = "bold" if bold[i] else "normal"
        slide.text(right, top - head - high * (i + 0.6) / (len(each) + 0.2), f"{row['loss']:.3f}", ha="right", weight=weight)


PER_NODE = 8  # graphics cards of a node


def _rows_hops(config: ModelConfig | None = None, name: str = "DeepSeek-V3", seed: int = 3) -> Rows:
    """``config``: the model, V3 by default, one group of experts a node, and ``name``: what it is called; ``seed``: of the
    token's scores and place. A row per chosen expert; bytes as V3 sends them, FP8 there and BF16 back."""
    c = config or ModelConfig.preset("deepseek-v3")
    if c.n_group < 2 or c.n_routed_experts // c.n_group % PER_NODE:
        raise refuse("n_group", c.n_group, f"gives no nodes of {PER_NODE} cards with as many experts on each")
    rng = np.random.default_rng(seed)
    chosen = router.choose(rng.random((1, c.n_routed_experts)), c.num_experts_per_tok, c.n_group, c.topk_group, c.topk_method)[
        0
    ]
    home, card = int(rng.integers(c.n_group)), int(rng.integers(PER_NODE))
    traffic = meter(chosen[None], c.n_routed_experts, c.n_group, c.hidden_size, np.array([home]))
    each = c.n_routed_experts // c.n_group
    return [
        {"model": name, "expert": int(e), "node": int(e) // each, "card": int(e) % each // (each // PER_NODE)}
        | {"home_node": home, "home_card": card, "nodes": c.n_group, "experts_per_card": each // PER_NODE}
        | {"crossings": traffic.nodes, "bytes_there": traffic.dispatch_bytes, "bytes_back": traffic.combine_bytes}
        | {"limit": c.topk_group, "nvlink_over_infiniband": NVLINK / INFINIBAND}
        for e in sorted(chosen)
    ]


@picture(18, _rows_hops)
def all_to_all(slide: Slide, rows: Rows) -> None:
    """The way of one token to its experts in two hops: over InfiniBand once to each node, then over NVLink to the cards.

    Eight nodes as tall frames of eight cards each. From the token's card thick horizontal arrows go once to the card of the
    same place in up to four nodes; from there thin vertical arrows go up and down to the cards that hold the chosen
    experts.
    """
    first = rows[0]
    nodes, home = first["nodes"], first["home_node"]
    reached = sorted(set(column(rows, "node")))
    away = [row for row in rows if row["node"] != home]
    top = slide.title(
        f"{len(rows)} experts, but only {first['crossings']:g} trips over the slow network",
        f"{first['model']}, illustration: random scores",
        f"It goes once to each node, over InfiniBand; NVLink, {first['nvlink_over_infiniband']:g} times as fast, hands it on",
    )
    line, (there, back) = slide.line, (first["bytes_there"], first["bytes_back"])
    foot = 0.1
    if slide.tall or slide.letters <= 1.2:
        foot = slide.note(
            f"{there:,.0f} bytes there in FP8, {back:,.0f} back in BF16; straight to every expert it would be "
            f"{len(away) / max(first['crossings'], 1):.1f} times as much"
        )
    ways = [("InfiniBand, between nodes", "value"), ("NVLink, within a node", "rope"), ("so many of its experts", "routed")]
    low, high = slide.legend(LEFT, foot + 0.7 * line, ways) + 0.8 * line, top - 1.1 * line
    gap = 0.25
    wide = (RIGHT - LEFT - gap * (nodes - 1)) / nodes
    cell = (high - low - 0.3) / PER_NODE
    place: dict[tuple[int, int], Box] = {}
    for n in range(nodes):
        x = LEFT + n * (wide + gap)
        slide.box(x, low, wide, high - low, fill="panel", edge="ink" if n in reached or n == home else "faint")
        slide.text(x + wide / 2, high + 0.55 * line, f"node {n + 1}", 16, ha="center", weight="bold" if n == home else "normal")
        for card in range(PER_NODE):
            place[n, card] = Box(x + 0.1, high - 0.15 - cell * (card + 1) + 0.08, wide - 0.2, cell - 0.16)
            slide.box(
                *place[n, card], fill=colour("faint") if n in reached or n == home else tint(colour("faint"), 0.5), round=0.06
            )
    source = place[home, first["home_card"]]
    slide.box(*source, "token", "hidden", min(16, 44 * source.h / slide.letters), round=0.06)
    slide.step("InfiniBand")
    trips = sorted((n for n in reached if n != home), key=lambda n: abs(n - home))
    for lane, n in enumerate(trips):  # each by itself: none goes on from another node
        y = source.y + source.h * (lane + 0.7) / (len(trips) + 0.4)
        target, side = place[n, first["home_card"]], 1 if n < home else -1  # the side it comes from
        _way(slide, (source.middle[0] - side * source.w / 2, y), (target.middle[0] + side * target.w / 2, y), "value", 3)
    slide.step("NVLink")
    sizes = Counter((row["node"], row["card"]) for row in rows)
    for (n, card), count in sizes.items():
        target, begin = place[n, card], place[n, first["home_card"]]
        if card != first["home_card"]:
            x, side = target.middle[0] + 0.36 * target.w, 1 if card > first["home_card"] else -1  # below or above
            from_, to = begin.middle[1] - side * begin.h / 2, target.middle[1] + side * target.h / 2
            _way(slide, (x, from_), (x, to), "rope", 3)
        if (n, card) != (home, first["home_card"]):
            slide.box(*target, str(count), "routed", min(20, 50 * target.h) / slide.letters**0.5, round=0.06, zorder=2.5)


def _way(slide: Slide, begin: tuple[float, float], end: tuple[float, float], kind: str, width: float) -> None:
    """An arrow whose shaft passes behind the experts on its way."""
    (x0, y0), (x1, y1) = begin, end
    slide.arrow(begin, end, kind=kind, width=width, head=False)
    back = min(0.3, 0.9 * (abs(x1 - x0) + abs(y1 - y0)))
    slide.arrow((x1 + back * np.sign(x0 - x1), y1 + back * np.sign(y0 - y1)), end, kind=kind, width=width)
