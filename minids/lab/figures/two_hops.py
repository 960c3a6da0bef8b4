"""Figure 18: the way of one token to its experts: over InfiniBand once to each node, over NVLink to each expert."""

from collections import Counter

import numpy as np

from minids.config import ModelConfig
from minids.errors import refuse
from minids.lab.analysis.network import INFINIBAND, NVLINK
from minids.lab.analysis.traffic import meter
from minids.lab.figures.picture import Rows, column, picture
from minids.lab.figures.slide import LEFT, RIGHT, Box, Slide
from minids.lab.figures.style import colour, tint
from minids.ops import router

PER_NODE = 8  # graphics cards of a node


def _rows(config: ModelConfig | None = None, name: str = "DeepSeek-V3", seed: int = 3) -> Rows:
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


@picture(18, _rows)
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
    y = source.middle[1]
    for n in reached:
        if n != home:
            target, side = place[n, first["home_card"]], 1 if n < home else -1  # the side it comes from
            end = target.middle[0] + side * target.w / 2
            _way(slide, (source.middle[0] - side * source.w / 2, y), (end, y), "value", 4)
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
