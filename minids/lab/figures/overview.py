"""Figure 1: the whole model on one slide."""

import numpy as np

from minids.config import ModelConfig
from minids.errors import refuse
from minids.lab.analysis.parameters import activated, parts, total
from minids.lab.figures import mpl
from minids.lab.figures.picture import Box, Look, Rows, Slide, colour, parameter_count, picture, tint
from minids.ops import router

_SIZES = ("hidden_size", "vocab_size", "attention", "num_attention_heads", "kv_lora_rank", "qk_rope_head_dim")
_SIZES += ("n_routed_experts", "num_experts_per_tok", "n_group", "topk_group", "n_shared_experts", "moe_intermediate_size")
_SIZES += ("num_nextn_predict_layers",)
PARTS = ("tokens", "embedding", "blocks", "head", "mtp", "attention", "experts", "router")
"""What ``here`` can point at."""


def _rows(config: ModelConfig | None = None, name: str = "DeepSeek-V3", seed: int = 0) -> Rows:
    """``config``: the model, V3 by default; ``name``: what it is called; ``seed``: of the scores one token's experts have."""
    c = config or ModelConfig.preset("deepseek-v3")
    dense = min(c.first_k_dense_replace, c.num_hidden_layers)
    sizes = {"model": name, "parameters": total(c), "active": activated(c)}
    sizes |= {"blocks": c.num_hidden_layers, "dense_blocks": dense, "moe_blocks": c.num_hidden_layers - dense}
    sizes |= {size: getattr(c, size) for size in _SIZES}
    scores = np.random.default_rng(seed).random((1, c.n_routed_experts))
    chosen = router.choose(scores, c.num_experts_per_tok, c.n_group, c.topk_group, c.topk_method)[0]
    rows: Rows = [{"size": key, "value": value} for key, value in sizes.items()]
    rows += [{"expert": int(expert)} for expert in sorted(chosen)]
    return rows + [{"part": p.name, "parameters": p.total, "active": p.activated} for p in parts(c)]


@picture(1, _rows)
def architecture(slide: Slide, rows: Rows) -> dict[str, Box]:
    """DeepSeek-V3 on one slide: the column of blocks, one block enlarged, and its mixture of experts.

    Left, from bottom to top: tokens, embedding, dense blocks, blocks with experts, norm and head, next token; a
    multi-token-prediction module branches off before the head. Middle: one block, norm and multi-head latent attention,
    then norm and experts, each with a residual path around it. Right: small squares for all routed experts of a layer, few
    of them in strong colour, with the router and the shared expert above.
    """
    s = {row["size"]: row["value"] for row in rows if "size" in row}
    share = f"{parameter_count(s['active'])} of {parameter_count(s['parameters'])} parameters"
    finding = f"Only {s['num_experts_per_tok']} of {s['n_routed_experts']} experts of a layer work on a token: {share}"
    top = slide.title(finding, f"{s['model']}, arithmetic", f"{s['blocks']} blocks, {s['moe_blocks']} of them with experts")
    if slide.tall:  # the experts below the rest, which stands above the edge of the lower magnifier
        low, high = 0.4 + 0.42 * top, 0.58 * top - 0.65
        frames = Box(0.6, low + 0.3, 7.2, high - 0.3), Box(9.05, low, 6.4, high), Box(0.55, 0.3, 14.9, 0.42 * top - 0.45)
    else:
        frames = [Box(x, 0.4, wide, top - 0.65) for x, wide in ((0.6, 4.75), (5.75, 3.85), (10.15, 5.3))]
    at = _column(slide, s, frames[0])
    at |= _block(slide, s, frames[1], at["blocks"])
    # where its parts are, by the names of ``PARTS``
    return at | _experts(slide, s, [row["expert"] for row in rows if "expert" in row], frames[2], at["experts"])


def _column(slide: Slide, s: dict, frame: Box) -> dict[str, Box]:
    """The model from tokens to logits, upwards; the MTP module beside its upper end."""
    dense, moe, wide = f"{s['dense_blocks']} × dense", f"{s['moe_blocks']} × MoE", 0.37 * frame.w
    column = [("tokens", "", 0.5), ("embedding", "hidden", 0.62), (dense, "hidden", 0.7), (moe, "routed", 1.25)]
    column += [("norm, head", "hidden", 0.62), ("next\ntoken", "", 2.3 * slide.line)]
    size = slide.fit("one\nfurther", 18, wide, bold=True)
    at = slide.stack(frame.x, frame.y, 0.57 * frame.w, frame.h, column, size)
    if s["num_nextn_predict_layers"]:
        head, leaves, said = at["norm, head"], (at[moe].above[1] + at["norm, head"].y) / 2, at["next\ntoken"]
        mtp = slide.box(frame.x + frame.w - wide, head.y, wide, head.h, f"MTP × {s['num_nextn_predict_layers']}", "mtp")
        slide.arrow((head.middle[0], leaves), (mtp.middle[0], leaves), mtp.below, kind="mtp")
        slide.arrow(mtp.above, (mtp.middle[0], said.y), kind="mtp")
        if slide.letters > 1.2 and not slide.tall:  # the magnifier's edge passes close by
            size = slide.fit("one\nfurther", 18, 0.25 * frame.w, bold=True)
        slide.text(mtp.middle[0], said.middle[1], "one\nfurther", size, ha="center", weight="bold")
        at["mtp"] = mtp
    return at | {"blocks": at[moe], "head": at["norm, head"]}


def _block(slide: Slide, s: dict, frame: Box, source: Box) -> dict[str, Box]:
    """One MoE block, enlarged: norm, attention, plus, norm, experts, plus."""
    _zoom(slide, source, frame)
    x, y, unit, right = frame.x + (frame.w - 0.55) / 2, frame.y, frame.h / 6.1, frame.behind[0] - 0.32
    cache = f"MLA, cached:\n{s['kv_lora_rank']} + {s['qk_rope_head_dim']}"
    attention = cache if s["attention"] == "mla" else f"{s['attention'].upper()}, {s['num_attention_heads']} heads"
    blocks = [(0.65, 1.25, "norm", "hidden"), (1.55, 2.65, attention, "latent")]
    blocks += [(3.6, 4.2, "norm", "hidden"), (4.5, 5.15, "experts", "routed")]
    _, mixer, _, experts = (
        slide.box(frame.x + 0.25, y + unit * low, frame.w - 1.05, unit * (high - low), words, kind)
        for low, high, words, kind in blocks
    )
    for low, high in ((-0.15, 0.65), (1.25, 1.55), (3.2, 3.6), (4.2, 4.5), (5.72, 6.32)):
        slide.arrow((x, y + unit * low), (x, y + unit * high))
    for branch, leaves, plus in ((0.35, 2.65, 3.03), (3.4, 5.15, 5.53)):  # each residual path
        branch, leaves, plus = (y + unit * height for height in (branch, leaves, plus))
        slide.arrow((x, leaves), (x, plus - 0.17), head=False)
        slide.arrow((x, branch), (right, branch), (right, plus), (x + 0.2, plus))
        _plus(slide, x, plus)
    return {"attention": mixer, "experts": experts}


def _experts(slide: Slide, s: dict, chosen: list[int], frame: Box, source: Box) -> dict[str, Box]:
    """All experts of a layer as small squares, group by group; those chosen for one token in strong colour."""
    _zoom(slide, source, frame)
    x, y, w, h = frame
    line, deep, grouped = 0.42 * slide.letters, 2.3 * slide.line, s["n_group"] > 1
    words = [f"{s['n_routed_experts']} routed, {s['num_experts_per_tok']} chosen"]
    words += [f"in {s['topk_group']} of {s['n_group']} groups"] * grouped
    words = [", ".join(words)] if slide.tall else words
    low, high = y + 0.15 + line * len(words), y + h - 0.5 - deep
    for i, text in enumerate(reversed(words)):
        slide.text(x + w / 2, y + 0.1 + line * (i + 0.5), text, ha="center")
    # The token goes into both; their outputs are added.
    half = (w - 0.75) / 2
    shared = slide.box(x + 0.3, high, half, deep, f"{s['n_shared_experts']} shared,\nalways", "shared")
    router_box = slide.box(x + 0.5 + half, high, half - 0.1, deep, "router", "hidden")
    enters, plus = y + h - 0.25, (x + w / 2, low + 0.25)
    for box in (shared, router_box):
        slide.arrow((x + w / 2, y + h), (x + w / 2, enters), (box.above[0], enters), box.above)
    fills = [colour("query") if e in chosen else tint(colour("routed"), 0.35) for e in range(s["n_routed_experts"])]
    shaft, columns = (0.7, 4) if slide.tall else (0.95, 2)
    grid = Box(x + 0.45, low + shaft, w - 0.75, high - 0.5 - low - shaft)
    slide.arrow(router_box.below, (router_box.middle[0], grid.y + grid.h + 0.05))
    slide.squares(*grid, len(fills), fills, s["n_group"], columns if grouped else 1)
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
    left, right = source.x + source.w, target.x
    corners = [(left, source.y), (left, source.y + source.h), (right, target.y + target.h - 0.06), (right, target.y + 0.06)]
    slide.ax.add_patch(mpl.patches.Polygon(corners, facecolor=colour("panel"), edgecolor="none", zorder=0))
    slide.box(*target, fill="panel", edge="faint")


def here(ax, *parts: str) -> None:
    """The picture without its title in the ``ax`` of another, all but ``parts`` paled: a map that says where one is."""
    for part in parts:
        if part not in PARTS:
            raise refuse("parts", part, f"must be among {', '.join(PARTS)}")
    at: dict[str, Box] = {}
    slide = architecture.slide(_rows(), ax, Look(title=False), lambda slide, rows: at.update(architecture.draw(slide, rows)))
    pale = [mpl.path.Path([*Box(0, 0, 16, slide.h).corners, (0, 0)], closed=True)] if parts else []
    for part in parts:
        if part != "router" or "experts" not in parts:  # it lies within them
            place = slide.box(*at[part].inner(-0.12), fill="none", edge="ink")
            pale.append(mpl.path.Path([*place.corners[::-1], (0, 0)], closed=True))  # the other way: a hole
    looks = dict(facecolor=colour("background"), edgecolor="none", alpha=0.68, zorder=9)
    ax.add_patch(mpl.patches.PathPatch(mpl.path.Path.make_compound_path(*pale), **looks))
