"""Figure 14: how many nodes a token touches, and what it sends to them, against the limit M."""

from __future__ import annotations

import numpy as np

from minids.analysis.network import dispatch_bytes
from minids.config import ModelConfig
from minids.figures.picture import Picture, Rows, only
from minids.figures.slide import Slide
from minids.figures.style import colour
from minids.ops import router
from minids.presets import model_preset

DISPATCH, COMBINE = 1, 2  # bytes per element: FP8 out, BF16 back (V3 report, section 3.3.2)


def _rows(config: ModelConfig | None = None, tokens: int = 8192, seed: int = 0) -> Rows:
    """``config``: V3 by default, one group a node. ``tokens`` tokens with even, independent scores go through its router once
    for each limit M."""
    config = config or model_preset("deepseek-v3")
    experts, groups, k = config.n_routed_experts, config.n_group, config.num_experts_per_tok
    scores = np.random.default_rng(seed).random((tokens, experts))
    rows: Rows = []
    for limit in range(-(-k * groups // experts), groups + 1):
        chosen = router.choose(scores, k, groups, limit, config.topk_method)  # (N, K)
        nodes = chosen // (experts // groups)
        touched = (np.diff(np.sort(nodes, axis=1), axis=1) != 0).sum(axis=1) + 1
        rows += [
            {
                "M": limit,
                "nodes": n,
                "share_of_tokens": float(np.mean(touched == n)),
                "mean_nodes": float(touched.mean()),
                "kilobytes_per_token_and_layer": dispatch_bytes(config, float(touched.mean()), DISPATCH + COMBINE) / 1e3,
                "own_limit": config.topk_group,
                "experts": experts,
                "chosen": k,
                "groups": groups,
            }
            for n in range(1, min(k, groups) + 1)
        ]
    return rows


def _draw(slide: Slide, rows: Rows) -> None:
    limits = list(dict.fromkeys(row["M"] for row in rows))
    each = {m: only(rows, M=m)[0] for m in limits}
    own, free = rows[0]["own_limit"], limits[-1]
    saved = 1 - each[own]["mean_nodes"] / each[free]["mean_nodes"]
    top = slide.title(
        f"With M = {own} a token sends to {each[own]['mean_nodes']:.1f} nodes instead of "
        f"{each[free]['mean_nodes']:.1f}: {100 * saved:.0f} % less traffic",
        f"V3's router ({rows[0]['chosen']} of {rows[0]['experts']} experts, {rows[0]['groups']} nodes) on even random scores; "
        "area of a dot: share of the tokens",
    )
    ax = slide.plot(1.6, 1.15, 10.4, top - 1.5, grid="y", xlabel="limit M: nodes a token may use", ylabel="nodes it uses")
    for row in rows:
        if row["share_of_tokens"] > 0.002:
            side = 62 * np.sqrt(row["share_of_tokens"]) * slide.scale
            shade = colour("routed" if row["M"] == own else "other3")
            ax.plot([row["M"]], [row["nodes"]], "o", color=shade, markersize=side, markeredgewidth=0)
    ax.plot(limits, [each[m]["mean_nodes"] for m in limits], color=colour("ink"), linewidth=2.5 * slide.scale)
    highest = max(row["nodes"] for row in rows)
    ax.set(xlim=(limits[0] - 0.6, free + 0.6), ylim=(0, highest + 0.5), xticks=limits, yticks=range(1, highest + 1))
    slide.text(15.4, top - 0.42, "InfiniBand, kB per token", 16, "muted", ha="right")
    slide.text(15.4, top - 0.82, "and layer, there and back", 16, "muted", ha="right")
    most = max(e["kilobytes_per_token_and_layer"] for e in each.values())
    for i, m in enumerate(limits):
        y = top - 1.5 - i * (top - 2.3) / len(limits)
        share = each[m]["kilobytes_per_token_and_layer"] / most
        slide.text(12.35, y, f"M = {m}", 16, weight="bold" if m == own else "normal")
        slide.rectangle(13.35, y - 0.17, 1.25 * share, 0.34, colour("routed" if m == own else "other3"))
        slide.text(15.4, y, f"{each[m]['kilobytes_per_token_and_layer']:.0f}", 16, ha="right")


nodes_and_traffic = Picture(
    14,
    "nodes_and_traffic",
    "Nodes that a token's experts sit on, and the bytes it sends there and back, for every node limit M of DeepSeek-V3's "
    "router.",
    "Dots show how many nodes tokens use for each limit M from 1 to 8, larger where more tokens do; a line through their means "
    "rises along the limit at first and then flattens below six. Bars beside it give the bytes per token, which follow the "
    "mean.",
    _rows,
    _draw,
)
