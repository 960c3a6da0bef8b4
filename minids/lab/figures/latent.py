"""Figures 2, 5 and 8: multi-head latent attention and what of it is cached, its product with the brackets moved, its rank."""

from pathlib import Path

import numpy as np

from minids.config import ModelConfig
from minids.errors import refuse
from minids.lab.analysis import flops
from minids.lab.analysis.kv_cache import mla_elements
from minids.lab.analysis.parameters import attention_tensors
from minids.lab.figures.picture import LEFT, RIGHT, Box, Rows, Slide, column, distinct, only, picture, token_count
from minids.lab.figures.style import colour, ink_on, sequential, tint
from minids.lab.figures.trained import Trained, through
from minids.words import si


def _rows(config: ModelConfig | None = None, name: str = "DeepSeek-V3") -> Rows:
    """``config``: a model with MLA, V3 by default; ``name``: what it is called. A row per tensor and per matrix of a layer."""
    c = config or ModelConfig.preset("deepseek-v3")
    if c.attention != "mla":
        raise refuse("attention", c.attention, "the picture is of latents; give a configuration with MLA")
    heads = c.num_attention_heads
    tensors = [
        ("h", "input of the layer", 1, c.hidden_size, "hidden"),
        ("c_q", "query latent", 1, c.q_lora_rank, "query"),  # None in V2-Lite, whose queries are made from h
        ("c_kv", "key-value latent", 1, c.kv_lora_rank, "latent"),
        ("k_rope", "rotary key, one for all heads", 1, c.qk_rope_head_dim, "rope"),
        ("q_nope", "content queries", heads, c.qk_nope_head_dim, "query"),
        ("q_rope", "rotary queries", heads, c.qk_rope_head_dim, "rope"),
        ("k_nope", "content keys", heads, c.qk_nope_head_dim, "latent"),
        ("v", "values", heads, c.v_head_dim, "value"),
        ("u", "output of the layer", 1, c.hidden_size, "hidden"),
    ]
    rows: Rows = [
        {"what": "tensor", "name": n, "meaning": m, "heads": h, "size": s, "elements": h * s, "kind": k}
        | {"cached": n in ("c_kv", "k_rope"), "model": name}
        for n, m, h, s, k in tensors
        if s is not None
    ]
    assert sum(column(only(rows, cached=True), "elements")) == mla_elements(c)
    return rows + [
        {"what": "matrix", "name": t.part, "rows": t.shape[0], "columns": t.shape[1], "elements": t.size}
        for t in attention_tensors(c)
        if len(t.shape) == 2
    ]


@picture(2, _rows)
def mla(slide: Slide, rows: Rows) -> None:
    """Multi-head latent attention with DeepSeek-V3's shapes: two latents, what is made from them, and what is cached.

    From left to right: the hidden state as a tall bar; arrows to three short bars, the query latent, the key-value latent
    and a rotary key; a dashed frame around the last two says what is cached. From the latents come stacks of queries, keys
    and values, one per head; all enter the attention, whose output is as tall a bar again.
    """
    t = {row["name"]: row for row in only(rows, what="tensor")}
    cached, full = sum(column(only(rows, cached=True), "elements")), t["k_nope"]["elements"] + t["v"]["elements"]
    finding = f"MLA caches {cached} numbers per token and layer instead of {full:,}"
    top = slide.headed(finding, "Heights of h, u, latents and the shared key to scale")
    strip = 0.5 + slide.line  # below: what is cached and what it stands for, to one scale
    base, room = 0.75 + strip, top - 1.3 - strip
    grown, line = slide.letters > 1.2, 0.24 * slide.letters
    # size of symbols; where latents and heads begin; what has no room beside large letters
    sign, begin, cards, rope = (17.5, 3.4, 8.3, "") if grown else (21, 4.0, 8.6, ", RoPE")
    # tensor → its symbol, its matrix, where it stands, how high it may be
    latents = {"c_q": ("$c^Q$", "$W^{DQ}$", 0.83, 0.4)} if "c_q" in t else {}
    latents |= {"c_kv": ("$c^{KV}$", "$W^{DKV}$", 0.40, 0.25), "k_rope": ("$k^R$", "$W^{KR}$" + rope, 0.07, 0.2)}
    unit = min(room * share / t[name]["size"] for name, share in [("h", 1), *((n, high) for n, (*_, high) in latents.items())])
    level = {name: base + room * share for name, (*_, share, _) in latents.items()}
    tall, centre = unit * t["h"]["size"], base + room / 2
    h, u = (slide.rectangle(x, centre - tall / 2, 0.55, tall, "hidden") for x in (LEFT, RIGHT - 0.65))
    for bar, name in ((h, "h"), (u, "u")):
        slide.text(*bar.middle, f"{name}   {t[name]['size']}", 19, ink_on(colour("hidden")), ha="center", rotation=90)
    # What is cached lies in one frame.
    looks = dict(fill=tint(colour("latent"), 0.12), edge="latent", linestyle=(0, (4, 2)))
    high = level["c_kv"] + (0.8 if grown else 1.02) - base
    frame = slide.box(begin - 0.35, base - 0.3, cards - begin - 1.75, high, **looks)
    after, words = frame.x + frame.w + 0.1, f"cached: {cached}"
    size = slide.fit(words, 18, frame.w, bold=True)
    slide.text(frame.middle[0], frame.above[1] + 0.1 + 0.26 * slide.letters, words, size, ha="center", weight="bold")
    for name, (symbol, matrix, *_) in latents.items():
        y, high = level[name], max(t[name]["size"] * unit, 0.05)
        slide.rectangle(begin, y - high / 2, 0.5, high, t[name]["kind"])
        slide.math(begin + 0.65, y, symbol, ha="left", size=sign)
        slide.text(frame.x + frame.w - 0.1, y, str(t[name]["size"]), 17, ha="right")
        slide.arrow((h.x + h.w, min(max(y, h.y + 0.1), h.y + h.h - 0.1)), (begin - 0.05, y))
        slide.math((h.x + h.w + frame.x) / 2, y + 0.1 + line, matrix, size=sign)
    # Heads as stacks of cards, and from what they are made.
    attention = slide.box(12.55, base - 0.1, 1.25, room + 0.2, fill="panel", edge="muted")
    slide.text(*attention.middle, "softmax(q·k) v", 19, ha="center", rotation=90)
    queries = [("q_nope", "$q^C$", "$W^{UQ}$"), ("q_rope", "$q^R$", "$W^{QR}$")]
    for i, (name, symbol, matrix) in enumerate([*queries, ("k_nope", "$k^C$", "$W^{UK}$"), ("v", "$v$", "$W^{UV}$")]):
        y, kind = base + room - room / 5 * (i + 0.5), t[name]["kind"]
        if i < 2 and "c_q" not in t:
            slide.arrow((h.x + h.w, min(y, h.y + h.h - 0.1)), (cards - 0.1, y))
            slide.math(2.6, y + 0.32, matrix.replace("UQ", "Q"), size=sign)
        else:
            source, above = (after, level["c_q" if i < 2 else "c_kv"]), i % 2 == 0
            slide.arrow(source, (cards - 0.1, y))
            away = (0.1 + (0.24 if grown else 0.34) * slide.letters) * (1 if above else -1)
            slide.math((after + cards) / 2 - (0.15 if above else 0.35), (source[1] + y) / 2 + away, matrix, size=sign)
        wide, ink = 11.3 - cards if not grown else 3.55, ink_on(colour(kind))
        for j in (0.21, 0.14, 0.07, 0):  # one tensor per head
            card = slide.rectangle(cards + j, y - 0.36 + j, wide, 0.62, kind, edge=colour("background"), linewidth=1.2)
        slide.math(cards + 0.12, card.middle[1], symbol, ink, ha="left", size=sign)
        slide.text(card.x + card.w - 0.12, card.middle[1], f"{t[name]['heads']} × {t[name]['size']}", 17, ink, ha="right")
        slide.arrow((card.x + card.w + 0.22, y), (12.5, y), kind=kind)
    slide.arrow((after, level["k_rope"]), (12.5, level["k_rope"]), kind="rope")
    slide.text(12.3, level["k_rope"] - 0.28 * slide.letters, "one key for all heads", 16, ha="right")
    slide.arrow(attention.behind, (u.x - 0.05, attention.behind[1]))
    slide.math((attention.x + attention.w + u.x) / 2, attention.behind[1] + 0.1 + line, "$W^{O}$", size=sign)
    for share, fill in ((1, tint(colour("muted"), 0.6)), (cached / full, "latent")):
        slide.rectangle(LEFT, 0.3, (RIGHT - LEFT - 0.1) * share, 0.22, fill)
    slide.text(LEFT, 0.6 + 0.16 * slide.letters, f"to one scale: {cached} cached of {full:,}", 16, "muted")


def _rows_rank(run: str | Path = "runs/tiny", length: int = 256, windows: int = 4) -> Rows:
    """``run``: a run's folder; ``windows`` windows of ``length`` tokens of every domain's held-out text are read."""
    trained = Trained.open(run)
    if trained.model.config.attention != "mla":
        raise refuse("run", str(run), f"its attention is {trained.model.config.attention}; this picture is about MLA")
    rows: Rows = []
    for at in through(trained.model, trained.windows(length, windows)):
        mla = at.block.attention
        k, v, _ = mla.keys_values(*mla.latent(at.normed, at.rotary)[:2])
        both = np.concatenate([k[..., : mla.d_nope], v], axis=-1)  # (B, T, H, d_nope + d_v)
        both = both.reshape(-1, mla.heads * (mla.d_nope + mla.d_v)).astype(np.float64)
        singular = np.linalg.svd(both, compute_uv=False)
        energy, sizes = np.cumsum(singular**2), {"latent": mla.d_latent, "columns": both.shape[1], "tokens": len(both)}
        pairs = np.stack((singular / singular[0], energy / np.sum(singular**2)), axis=1).tolist()
        found = [{"singular_value": value, "energy_up_to": share} | sizes for value, share in pairs]
        rows += [{"block": at.index, "index": i} | row for i, row in enumerate(found, start=1)]
    return trained.signed(rows)


@picture(8, _rows_rank, source="run")
def rank_of_keys_and_values(slide: Slide, rows: Rows) -> None:
    """How many directions hold the energy of all heads' keys and values in the trained model, block by block: fewer than the
    latent has numbers.

    Rising curves, one per block, share of the energy against directions up to the size of the latent. They climb fast and
    flatten; dots mark where each reaches 99 percent, well before the right edge.
    """
    latent, columns, blocks = rows[0]["latent"], rows[0]["columns"], distinct(rows, "block")
    needed = [1 + sum(row["energy_up_to"] < 0.99 for row in only(rows, block=b)) for b in blocks]
    span = f"{min(needed)} to {max(needed)}" if min(needed) < max(needed) else f"{max(needed)}"
    finding = f"{span} directions hold 99 % of the {columns} numbers of keys and values; the latent has {latent}"
    top = slide.headed(finding, f"Energy of singular values over {rows[0]['tokens']:,} held-out tokens, the largest first")
    frame = Box(LEFT, 0.3, RIGHT - LEFT - slide.width_of("block 0: 00", 17) - 0.26 * slide.letters - 0.4, top - 0.4)
    limits = dict(xlim=(0, latent), ylim=(0, 103), xlabel="directions", grid="y")
    ax, line, right = slide.within(frame, "100", (), "energy in them, %", **limits), slide.line, frame.behind[0] + 0.3
    dot = dict(markeredgecolor=colour("ink"), markersize=12 * slide.scale, clip_on=False, zorder=3)
    slide.text(right, top - 0.5 * line, "99 % within", 16, "muted")
    for i, (b, at) in enumerate(zip(blocks, needed, strict=True)):
        shade = tint(sequential("latent", 0.35)(i / max(1, len(blocks) - 1)), 1)
        values = [0, *(100 * row["energy_up_to"] for row in only(rows, block=b)[:latent])]
        slide.curve(ax, range(len(values)), values, kind=shade)
        ax.plot([at], [values[at]], "o", color=shade, **dot)
        slide.legend(right, top - 1.6 * line - 1.25 * line * i, [(f"block {b}: {at}", shade)], 17)
    slide.level(ax, 99)


def _rows_work(config: ModelConfig | None = None, name: str = "DeepSeek-V3", context: int = 8192, points: int = 33) -> Rows:
    """``config``: a model with MLA, V3 by default, and ``name``: what it is called; work of one token behind up to ``context``
    cached ones, all layers, in floating-point operations."""
    c = config or ModelConfig.preset("deepseek-v3")
    if c.attention != "mla":
        raise refuse("attention", c.attention, "has no latent to absorb; give a configuration with MLA")
    sizes = {"model": name, "d_nope": c.qk_nope_head_dim, "d_c": c.kv_lora_rank, "heads": c.num_attention_heads}
    return [
        sizes | {"way": way, "context": at, "flops": float(flops.decode(c, at, mode).flops)}
        for mode, way in (("re-expand", "expanded"), ("absorbed", "absorbed"))
        for at in (1 + round((context - 1) * i / (points - 1)) for i in range(points))
    ]


@picture(5, _rows_work)
def absorption(slide: Slide, rows: Rows) -> None:
    """Absorption: the query times the up-projection first, and the work of one token against the number of tokens before
    it.

    Left, twice the same three blocks, query, up-projection and cached latents; above a bracket joins the projection with
    the latents, below it joins the query with the projection. Right, work per token against the tokens before it, on linear
    axes: the expanding way rises steeply, absorption stays near the floor.
    """
    longest = max(column(rows, "context"))
    at = {row["way"]: row["flops"] for row in only(rows, context=longest)}
    less = f"{at['expanded'] / at['absorbed']:.0f} times less work"
    finding = f"With the bracket moved, a token behind {token_count(longest)} others takes {less}"
    top = slide.headed(finding, "The keys are never made again: the query goes to the latents. Values are treated alike")
    left, frame = slide.parts(0.3, top - 0.1, *((1.3, 1) if slide.tall else (4, 3)))
    _algebra(slide, rows[0], left)
    names = {way: f"{way}\n{si(value, 'FLOP')}" for way, value in at.items()}
    ax = slide.within(frame, "15", names.values(), "TFLOP a token", grid="y", xlabel="tokens before it")
    for way, kind, width, weight in (("expanded", "muted", 4, "normal"), ("absorbed", "latent", 6, "bold")):
        mine = only(rows, way=way)
        work = [value / 1e12 for value in column(mine, "flops")]
        slide.curve(ax, column(mine, "context"), work, names[way], kind, width, fontweight=weight, linespacing=1.3)
    ax.set(xlim=(0, longest), ylim=(0, None))
    ax.set_xticks([0, longest / 2, longest], ["0", token_count(longest / 2), token_count(longest)])
    ax.locator_params(axis="y", nbins=4)


def _algebra(slide: Slide, sizes: dict, frame: Box) -> None:
    """Twice the product q · W · C, with the bracket here and there; widths and heights of q and W in one scale."""
    head, latent, height, line, stretch = sizes["d_nope"], sizes["d_c"], frame.h / 2, slide.line, frame.w / 8.3
    spare = height - 1.5 * line - 0.25
    brief = spare - 2.9 * line < 1.2  # large letters on a flat slide: the blocks alone
    unit = min(1.68 * stretch, spare if brief else spare - 2.9 * line) / latent
    pieces = [
        (0.8, max(head * unit + 0.35, 0.55 * slide.letters), 0.4 * slide.letters, "q", "query", f"1 × {head}"),
        (2.15 * stretch, latent * unit, head * unit + 0.3, "Wᵁᴷ", "hidden", f"{head} × {latent}"),
        (4.4 * stretch, 2.75 * stretch, latent * unit * 0.72, "C, cached", "latent", f"{latent} × T"),  # the text is long
    ]
    for heading, first, made, top in (
        ("expanded: keys first", 1, f"T keys of {head} for each of {sizes['heads']} heads", frame.above[1]),
        ("absorbed: query first", 0, f"one query of {latent} for each head", frame.middle[1]),
    ):
        slide.text(LEFT, top - 0.75 * line, heading, 19, weight="bold")
        middle, side = top - 1.3 * line - 0.12 - latent * unit / 2, 0.43 * latent * unit
        blocks, low = [], middle - latent * unit / 2 - 0.05
        for x, w, h, name, kind, shape in pieces:
            blocks.append(slide.box(x, middle - h / 2, w, h, name, kind, 16 if kind == "query" else 18, round=0.05))
            if not brief:
                slide.text(x + w / 2, low - 0.55 * line, shape, 16, "muted", ha="center")
        for x, turn in ((blocks[first].x - 0.2, 0.14), (blocks[first + 1].behind[0] + 0.2, -0.14)):
            corners = [(x + turn, middle + side), (x, middle + side), (x, middle - side), (x + turn, middle - side)]
            slide.arrow(*corners, kind="ink", head=False, width=3)
        if not brief:
            slide.text(LEFT, low - 1.75 * line, "made: " + made)
