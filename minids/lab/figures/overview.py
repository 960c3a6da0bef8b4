"""Figure 1: the whole model on one slide."""

import numpy as np

from minids.config import ModelConfig
from minids.errors import refuse
from minids.lab.analysis.parameters import activated, parts, total
from minids.lab.figures.picture import Look, Picture, Rows
from minids.lab.figures.slide import Box, Slide
from minids.lab.figures.style import colour, tint
from minids.lab.figures.words import parameter_count
from minids.ops import router

_SIZES = ("hidden_size", "vocab_size", "attention", "num_attention_heads", "kv_lora_rank", "qk_rope_head_dim")
_SIZES += ("n_routed_experts", "num_experts_per_tok", "n_group", "topk_group", "n_shared_experts", "moe_intermediate_size")
_SIZES += ("num_nextn_predict_layers",)


def _rows(config: ModelConfig | None = None, name: str = "DeepSeek-V3", seed: int = 0) -> Rows:
    """``config``: the model, V3 by default; ``name``: what it is called; ``seed``: of the scores one token's experts have."""
    c = config or ModelConfig.preset("deepseek-v3")
    dense = min(c.first_k_dense_replace, c.num_hidden_layers)
    sizes = {"model": name, "parameters": total(c), "active": activated(c)}
    sizes |= {"blocks": c.num_hidden_layers, "dense_blocks": dense, "moe_blocks": c.num_hidden_layers - dense}
    sizes |= {size: getattr(c, size) for size in _SIZES}
    rows: Rows = [{"size": key, "value": value} for key, value in sizes.items()]
    scores = np.random.default_rng(seed).random((1, c.n_routed_experts))
    chosen = router.choose(scores, c.num_experts_per_tok, c.n_group, c.topk_group, c.topk_method)[0]
    rows += [{"expert": int(expert)} for expert in sorted(chosen)]
    return rows + [{"part": p.name, "parameters": p.total, "active": p.activated} for p in parts(c)]


def _draw(slide: Slide, rows: Rows) -> None:
    _drawn(slide, rows)


def _drawn(slide: Slide, rows: Rows) -> dict[str, Box]:
    """The picture; where its parts are, by the names of ``PARTS``."""
    s = {row["size"]: row["value"] for row in rows if "size" in row}
    top = slide.title(
        f"Only {s['num_experts_per_tok']} of {s['n_routed_experts']} experts of a layer work on a token: "
        f"{parameter_count(s['active'])} of {parameter_count(s['parameters'])} parameters",
        f"{s['model']}, arithmetic",
        f"{s['blocks']} blocks, {s['moe_blocks']} of them with experts",
    )
    at = _column(slide, s, top)
    at |= _block(slide, s, top, at["blocks"])
    return at | _experts(slide, s, [row["expert"] for row in rows if "expert" in row], top, at["experts"])


def _column(slide: Slide, s: dict, top: float) -> dict[str, Box]:
    """The model from tokens to logits, upwards; the MTP module beside its upper end."""
    dense, moe = f"{s['dense_blocks']} × dense block", f"{s['moe_blocks']} × MoE block"
    column = [("tokens", "", 0.5), ("embedding", "hidden", 0.62), (dense, "hidden", 0.7), (moe, "routed", 1.25)]
    at = slide.stack(0.6, 0.4, 2.7, top - 0.65, [*column, ("norm, head", "hidden", 0.62), ("next token", "", 0.5)])
    if s["num_nextn_predict_layers"]:
        head, leaves = at["norm, head"], (at[moe].above[1] + at["norm, head"].y) / 2
        mtp = slide.box(3.75, head.y, 1.55, head.h, f"MTP × {s['num_nextn_predict_layers']}", "mtp")
        slide.arrow((head.middle[0], leaves), (mtp.middle[0], leaves), mtp.below, kind="mtp")
        slide.arrow(mtp.above, (mtp.middle[0], at["next token"].y), kind="mtp")
        slide.text(mtp.middle[0], at["next token"].middle[1], "one further", 17, ha="center", weight="bold")
        at["mtp"] = mtp
    return at | {"blocks": at[moe], "head": at["norm, head"]}


def _block(slide: Slide, s: dict, top: float, source: Box) -> dict[str, Box]:
    """One MoE block, enlarged: norm, attention, plus, norm, experts, plus."""
    frame = Box(5.75, 0.4, 3.85, top - 0.65)
    _zoom(slide, source, frame)
    x, y, unit = frame.x + 1.65, frame.y, frame.h / 6.1
    right = frame.x + frame.w - 0.32
    cache = f"MLA, {s['num_attention_heads']} heads\ncache {s['kv_lora_rank']} + {s['qk_rope_head_dim']}"
    attention = cache if s["attention"] == "mla" else f"{s['attention'].upper()}, {s['num_attention_heads']} heads"

    def block(low: float, high: float, words: str, kind: str) -> Box:
        return slide.box(x - 1.4, y + unit * low, 2.8, unit * (high - low), words, kind)

    block(0.75, 1.2, "norm", "hidden")
    at = {"attention": block(1.55, 2.65, attention, "latent")}
    block(3.7, 4.15, "norm", "hidden")
    at["experts"] = block(4.5, 5.15, "experts", "routed")
    for low, high in ((-0.15, 0.75), (1.2, 1.55), (3.2, 3.7), (4.15, 4.5), (5.72, 6.32)):
        slide.arrow((x, y + unit * low), (x, y + unit * high))
    for branch, leaves, plus in ((0.4, 2.65, 3.03), (3.42, 5.15, 5.53)):  # each residual path
        branch, leaves, plus = (y + unit * height for height in (branch, leaves, plus))
        slide.arrow((x, leaves), (x, plus - 0.17), head=False)
        slide.arrow((x, branch), (right, branch), (right, plus), (x + 0.2, plus))
        _plus(slide, x, plus)
    return at


def _experts(slide: Slide, s: dict, chosen: list[int], top: float, source: Box) -> dict[str, Box]:
    """All experts of a layer as small squares, group by group; those chosen for one token in strong colour."""
    frame = Box(10.15, 0.4, 5.3, top - 0.65)
    _zoom(slide, source, frame)
    x, y, w, h = frame
    line = 0.42 * slide.letters
    words = [f"{s['n_routed_experts']} routed, {s['num_experts_per_tok']} chosen"]
    if s["n_group"] > 1:
        words.append(f"in {s['topk_group']} of {s['n_group']} groups")
    low, high = y + 0.15 + line * len(words), y + h - 1.15
    for i, text in enumerate(reversed(words)):
        slide.text(x + w / 2, y + 0.1 + line * (i + 0.5), text, ha="center")
    # The token goes into both; their outputs are added.
    shared = slide.box(x + 0.3, high, 2.55, 0.62, f"{s['n_shared_experts']} shared, always", "shared")
    router_box = slide.box(x + 3.05, high, 1.95, 0.62, "router", "hidden")
    enters, plus = y + h - 0.25, (x + w / 2, low + 0.25)
    for box in (shared, router_box):
        slide.arrow((x + w / 2, y + h), (x + w / 2, enters), (box.above[0], enters), box.above)
    slide.arrow(router_box.below, (router_box.middle[0], high - 0.35))
    fills = [colour("query") if e in chosen else tint(colour("routed"), 0.35) for e in range(s["n_routed_experts"])]
    grid = Box(x + 0.45, low + 0.7, w - 0.75, high - 0.5 - low - 0.7)
    slide.squares(*grid, len(fills), fills, s["n_group"], 2 if s["n_group"] > 1 else 1)
    slide.arrow((shared.x + 0.1, shared.y), (shared.x + 0.1, plus[1]), (plus[0] - 0.2, plus[1]), kind="shared", width=2.6)
    slide.arrow((plus[0], grid.y - 0.05), (plus[0], plus[1] + 0.19), kind="query", width=2.6)
    _plus(slide, *plus)
    return {"experts": frame, "router": router_box}


def _plus(slide: Slide, x: float, y: float) -> None:
    """Where two ways are added."""
    slide.box(x - 0.17, y - 0.17, 0.34, 0.34, fill="background", edge="muted", round=0.17)
    slide.arrow((x - 0.09, y), (x + 0.09, y), head=False, width=1.8)
    slide.arrow((x, y - 0.09), (x, y + 0.09), head=False, width=1.8)


def _zoom(slide: Slide, source: Box, target: Box) -> None:
    """A faint beam that says: this, enlarged; and the frame it falls on."""
    from matplotlib.patches import Polygon

    left, right = source.x + source.w, target.x
    corners = [(left, source.y), (left, source.y + source.h), (right, target.y + target.h - 0.06), (right, target.y + 0.06)]
    slide.ax.add_patch(Polygon(corners, facecolor=colour("panel"), edgecolor="none", zorder=0))
    slide.box(*target, fill="panel", edge="faint")


PARTS = ("tokens", "embedding", "blocks", "head", "mtp", "attention", "experts", "router")
"""What ``here`` can point at."""


def here(ax, *parts: str) -> None:
    """The picture without its title in the ``ax`` of another, all but ``parts`` paled: a map that says where one is."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    for part in parts:
        if part not in PARTS:
            raise refuse("parts", part, f"must be among {', '.join(PARTS)}")
    at: dict[str, Box] = {}
    slide = architecture.slide(_rows(), ax, Look(title=False), lambda slide, rows: at.update(_drawn(slide, rows)))
    if not parts:
        return
    paths = [Path([(0, 0), (16, 0), (16, slide.h), (0, slide.h), (0, 0)], closed=True)]
    for part in parts:
        x, y, w, h = at[part]
        if part == "router" and "experts" in parts:  # it lies within them
            continue
        x, y, w, h = x - 0.12, y - 0.12, w + 0.24, h + 0.24
        paths.append(Path([(x, y), (x, y + h), (x + w, y + h), (x + w, y), (x, y)], closed=True))  # the other way: a hole
        slide.box(x, y, w, h, fill="none", edge="ink", round=0.12)
    pale = PathPatch(Path.make_compound_path(*paths), facecolor=colour("background"), edgecolor="none", alpha=0.68, zorder=9)
    ax.add_patch(pale)


architecture = Picture(
    1,
    "architecture",
    "DeepSeek-V3 on one slide: the column of blocks, one block enlarged, and its mixture of experts.",
    "Left, from bottom to top: tokens, embedding, dense blocks, blocks with experts, norm and head, next token; a multi-"
    "token-prediction module branches off before the head. Middle: one block, norm and multi-head latent attention, then "
    "norm and experts, each with a residual path around it. Right: small squares for all routed experts of a layer, few of "
    "them in strong colour, with the router and the shared expert above.",
    _rows,
    _draw,
)
