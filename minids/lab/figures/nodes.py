"""Figure 14: how many nodes the tokens of a trained model touch, and what they send there, against the limit M."""

from pathlib import Path

import numpy as np

from minids.config import ModelConfig
from minids.errors import refuse
from minids.lab.analysis.routing import nodes_touched
from minids.lab.analysis.routing_trace import trace
from minids.lab.analysis.traffic import limited_to, meter
from minids.lab.figures.picture import Rows, distinct, only, picture
from minids.lab.figures.slide import Box, Slide
from minids.lab.figures.style import colour
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
        f"With M = {own} a token sends to {each[own]['mean_nodes']:.1f} of {first['groups']} nodes, without a limit to "
        f"{each[free]['mean_nodes']:.1f}: {100 * saved:.0f} % less traffic",
        first["model"],
        f"{first['chosen']} of {first['experts']} experts, {first['tokens']:,} held-out tokens, same weights; "
        "dot: share of tokens",
    )
    held, without = first["v3_nodes_by_chance"], first["v3_nodes_without_limit"]
    foot = slide.note(f"DeepSeek-V3's limit of {first['v3_limit']}, by chance: {held:.1f} nodes; without it {without:.1f}")
    left, right = slide.parts(foot + 0.1, top - 0.2, 1, 1)
    said = dict(xlabel="node limit M", ylabel="nodes it uses")
    ax = slide.within(left, "4", ["by chance"], grid="y", **said)
    step = 72 * slide.figure.get_figwidth() * ax.get_position().width / (len(limits) + 0.2)  # points
    for row in rows:
        if row["share_of_tokens"] > 0.002:
            side = min(74, 0.95 * step / slide.scale) * np.sqrt(row["share_of_tokens"]) * slide.scale
            shade = colour("routed" if row["M"] == own else "other")
            ax.plot([row["M"]], [row["nodes"]], "o", color=shade, markersize=side, markeredgewidth=0, clip_on=False)
    highest, ends = max(row["nodes"] for row in rows), []
    for name, words, line in (("mean_nodes", "mean", "-"), ("mean_nodes_by_chance", "by chance", (0, (2, 1.5)))):
        values = [each[m][name] for m in limits]
        ax.plot(limits, values, color=colour("ink"), linewidth=2.5 * slide.scale, linestyle=line)
        ends.append((free + 0.6, values[-1], words, {}))
    ax.set(xlim=(limits[0] - 0.6, free + 0.6), ylim=(0.4, highest + 0.6), xticks=limits, yticks=range(1, highest + 1))
    slide.end_labels(ax, ends, 16, 6)
    _columns(slide, each, own, right)


def _columns(slide: Slide, each: dict[int, dict], own: int, frame: Box) -> None:
    """Of each limit: bytes as a bar and a number, and the loss of the same weights under it."""
    head, top, right = 3.2 * slide.line, frame.y + frame.h, frame.x + frame.w
    counts, loss = [row["bytes_per_token_and_layer"] for row in each.values()], slide.width_of("held-out", 16)
    for x, words in ((right - loss - 0.3, "bytes, there\nand back"), (right, "held-out\nloss")):
        slide.text(x, top - head / 2, words, 16, "muted", ha="right", linespacing=1.3)
    high = min(1.1 * slide.letters * len(each), frame.h - head)
    kinds, words = ["routed" if m == own else "other" for m in each], [f"{count:,.0f}" for count in counts]
    names, bold = [f"M = {m}" for m in each], [m == own for m in each]
    x = frame.x + slide.width_of(names[-1], 17) + 0.3
    wide = right - loss - 0.6 - slide.width_of("1,000", 17, True) - x
    slide.bars(x, top - head - high, wide, high, counts, names, kinds, words, bold, thick=0.45, give=False)
    for i, row in enumerate(each.values()):
        weight = "bold" if bold[i] else "normal"
        slide.text(right, top - head - high * (i + 0.6) / (len(each) + 0.2), f"{row['loss']:.3f}", ha="right", weight=weight)
