"""Figure 1: the whole model on one slide."""

from __future__ import annotations

import numpy as np

from minids.config import ModelConfig
from minids.lab.analysis.parameters import activated, parts, total
from minids.lab.figures.picture import Picture, Rows
from minids.lab.figures.slide import Slide
from minids.lab.figures.style import colour, tint
from minids.lab.figures.words import parameter_count
from minids.ops import router


def _rows(config: ModelConfig | None = None, name: str = "DeepSeek-V3", seed: int = 0) -> Rows:
    """``config``: the model, V3 by default; ``name``: what it is called; ``seed``: of the scores one token's experts have."""
    c = config or ModelConfig.preset("deepseek-v3")
    dense = min(c.first_k_dense_replace, c.num_hidden_layers)
    sizes = {
        "model": name,
        "parameters": total(c),
        "active": activated(c),
        "hidden_size": c.hidden_size,
        "vocab_size": c.vocab_size,
        "blocks": c.num_hidden_layers,
        "dense_blocks": dense,
        "moe_blocks": c.num_hidden_layers - dense,
        "heads": c.num_attention_heads,
        "attention": c.attention,
        "kv_latent": c.kv_lora_rank,
        "rope_key": c.qk_rope_head_dim,
        "experts": c.n_routed_experts,
        "chosen": c.num_experts_per_tok,
        "groups": c.n_group,
        "groups_allowed": c.topk_group,
        "shared_experts": c.n_shared_experts,
        "expert_width": c.moe_intermediate_size,
        "mtp_modules": c.num_nextn_predict_layers,
    }
    rows: Rows = [{"size": key, "value": value} for key, value in sizes.items()]
    scores = np.random.default_rng(seed).random((1, c.n_routed_experts))
    chosen = router.choose(scores, c.num_experts_per_tok, c.n_group, c.topk_group, c.topk_method)[0]
    rows += [{"expert": int(expert)} for expert in sorted(chosen)]
    return rows + [{"part": p.name, "parameters": p.total, "active": p.activated} for p in parts(c)]


def _draw(slide: Slide, rows: Rows) -> None:
    s = {row["size"]: row["value"] for row in rows if "size" in row}
    top = slide.title(
        f"{s['model']}: {s['blocks']} blocks, {s['moe_blocks']} of them with {s['experts']} experts, {s['chosen']} of which "
        f"work",
        f"{parameter_count(s['parameters'])} parameters, {parameter_count(s['active'])} at work on a token",
    )
    blocks = _column(slide, s, top)
    experts = _block(slide, s, top, blocks)
    _experts(slide, s, [row["expert"] for row in rows if "expert" in row], top, experts)


def _column(slide: Slide, s: dict, top: float) -> tuple[float, float, float]:
    """The model from tokens to logits, upwards; the MTP module beside its upper end. Returns where the MoE blocks are."""
    x, w = 0.6, 2.7
    rooms = [
        ("tokens", None, 0.5),
        ("embedding", "hidden", 0.62),
        (f"{s['dense_blocks']} × dense block", "hidden", 0.7),
        (f"{s['moe_blocks']} × MoE block", "routed", 1.25),
        ("norm, head", "hidden", 0.62),
        ("next token", None, 0.5),
    ]
    gap = (top - 0.65 - sum(h for _, _, h in rooms)) / (len(rooms) - 1)
    y = 0.4
    for i, (words, kind, h) in enumerate(rooms):
        if kind:
            slide.box(x, y, w, h, words, kind, 17)
        else:
            slide.text(x + w / 2, y + h / 2, words, 18, ha="center", weight="bold")
        if i + 1 < len(rooms):
            slide.arrow((x + w / 2, y + h), (x + w / 2, y + h + gap))
        if kind == "routed":
            blocks = (x + w, y, h)
        if words == "norm, head":
            head, above = y + h / 2, y + h + gap
        y += h + gap
    if s["mtp_modules"]:
        left, wide = 3.75, 1.55
        slide.box(left, head - 0.31, wide, 0.62, f"MTP × {s['mtp_modules']}", "mtp", 17)
        slide.arrow((x + w, head), (left - 0.03, head), kind="mtp")
        slide.arrow((left + wide / 2, head + 0.31), (left + wide / 2, above), kind="mtp")
        slide.text(left + wide / 2, above + 0.25, "one further", 17, ha="center", weight="bold")
    return blocks


def _block(slide: Slide, s: dict, top: float, source: tuple[float, float, float]) -> tuple[float, float, float]:
    """One MoE block, enlarged: norm, attention, plus, norm, experts, plus. Returns where its experts are."""
    x, w, y, h = 5.75, 3.85, 0.4, top - 0.65
    _zoom(slide, source, (x, y, h))
    slide.box(x, y, w, h, "", fill=colour("panel"), edge=colour("faint"))
    unit = h / 6.1
    middle, half, right = x + 1.65, 1.4, x + w - 0.32

    def at(height: float) -> float:
        return y + unit * height

    rooms = [
        (0.75, 1.2, "norm", "hidden"),
        (1.55, 2.65, _attention(s), "latent"),
        (3.7, 4.15, "norm", "hidden"),
        (4.5, 5.15, "experts", "routed"),
    ]
    for low, high, words, kind in rooms:
        slide.box(middle - half, at(low), 2 * half, at(high) - at(low), words, kind, 17)
    for a, b in ((-0.15, 0.75), (1.2, 1.55), (3.2, 3.7), (4.15, 4.5), (5.72, 6.32)):
        slide.arrow((middle, at(a)), (middle, at(b)))
    for branch, leaves, plus in ((0.4, 2.65, 3.03), (3.42, 5.15, 5.53)):
        slide.arrow((middle, at(leaves)), (middle, at(plus) - 0.17), head=False)
        slide.arrow((middle, at(branch)), (right, at(branch)), (right, at(plus)), (middle + 0.2, at(plus)))
        _plus(slide, middle, at(plus))
    return middle + half, at(4.5), at(5.15) - at(4.5)


def _attention(s: dict) -> str:
    if s["attention"] != "mla":
        return f"{s['attention'].upper()}, {s['heads']} heads"
    return f"MLA, {s['heads']} heads\ncache {s['kv_latent']} + {s['rope_key']}"


def _plus(slide: Slide, x: float, y: float) -> None:
    from matplotlib.patches import Circle

    slide.ax.add_patch(
        Circle((x, y), 0.17, facecolor=colour("background"), edgecolor=colour("muted"), linewidth=1.8 * slide.scale)
    )
    slide.ax.plot([x - 0.09, x + 0.09], [y, y], color=colour("muted"), linewidth=1.8 * slide.scale)
    slide.ax.plot([x, x], [y - 0.09, y + 0.09], color=colour("muted"), linewidth=1.8 * slide.scale)


def _experts(slide: Slide, s: dict, chosen: list[int], top: float, source: tuple[float, float, float]) -> None:
    """All experts of a layer as small squares, group by group; those chosen for one token in strong colour."""
    x, w, y, h = 10.15, 5.3, 0.4, top - 0.65
    _zoom(slide, source, (x, y, h))
    slide.box(x, y, w, h, "", fill=colour("panel"), edge=colour("faint"))
    slide.box(x + 0.3, y + h - 0.9, 2.05, 0.62, f"{s['shared_experts']} shared", "shared", 17)
    slide.box(x + 2.55, y + h - 0.9, 2.45, 0.62, "router", "hidden", 17)
    slide.arrow((x + 3.77, y + h - 0.9), (x + 3.77, y + h - 1.25))
    words = [f"{s['experts']} routed, {s['chosen']} chosen"]
    if s["groups"] > 1:
        words.append(f"in {s['groups_allowed']} of {s['groups']} groups")
    for i, line in enumerate(reversed(words)):
        slide.text(x + w / 2, y + 0.35 + 0.4 * i, line, 17, ha="center")
    room, low = h - 2.45, y + 1.08
    columns = 2 if s["groups"] > 1 else 1
    lines = -(-s["groups"] // columns)
    wide, high = (w - 0.6 - 0.2 * (columns - 1)) / columns, (room - 0.16 * (lines - 1)) / lines
    each = s["experts"] // s["groups"]
    across = max(range(1, each + 1), key=lambda n: min(wide / n, high / -(-each // n)))
    size = min(wide / across, high / -(-each // across))
    for expert in range(s["experts"]):
        group, place = divmod(expert, each)
        left = x + 0.3 + (group % columns) * (wide + 0.2) + (wide - size * across) / 2
        bottom = low + room - (group // columns) * (high + 0.16) - size
        fill = colour("routed") if expert in chosen else tint(colour("routed"), 0.3)
        spot = (left + size * (place % across), bottom - size * (place // across))
        slide.rectangle(spot[0] + 0.015, spot[1] + 0.015, size - 0.03, size - 0.03, fill)


def _zoom(slide: Slide, source: tuple[float, float, float], target: tuple[float, float, float]) -> None:
    """A faint beam that says: this, enlarged."""
    from matplotlib.patches import Polygon

    x0, y0, h0 = source
    x1, y1, h1 = target
    corners = [(x0, y0), (x0, y0 + h0), (x1, y1 + h1 - 0.06), (x1, y1 + 0.06)]
    slide.ax.add_patch(Polygon(corners, facecolor=colour("panel"), edgecolor="none", zorder=0))


architecture = Picture(
    1,
    "architecture",
    "DeepSeek-V3 on one slide: the column of blocks, one block enlarged, and its mixture of experts.",
    "Left, from bottom to top: tokens, embedding, dense blocks, blocks with experts, norm and head, next token; a "
    "multi-token-prediction module branches off before the head. Middle: one block, norm and multi-head latent attention, then "
    "norm and experts, each with a residual path around it. Right: small squares for all routed experts of a layer, few of "
    "them in "
    "strong colour, with the router and the shared expert above.",
    _rows,
    _draw,
)
