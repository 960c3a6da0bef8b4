"""Figures 2 and 8: multi-head latent attention, what of it is cached, and how many numbers keys and values really are."""

from pathlib import Path

import numpy as np

from minids.config import ModelConfig
from minids.errors import refuse
from minids.lab.analysis.kv_cache import mla_elements
from minids.lab.analysis.parameters import attention_tensors
from minids.lab.figures.picture import Rows, distinct, only, picture
from minids.lab.figures.slide import LEFT, RIGHT, Box, Slide
from minids.lab.figures.style import colour, ink_on, sequential, tint
from minids.lab.figures.trained import Trained


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
    assert sum(row["elements"] for row in rows if row["cached"]) == mla_elements(c)
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
    t = {row["name"]: row for row in rows if row["what"] == "tensor"}
    cached = sum(row["elements"] for row in t.values() if row["cached"])
    heads = t["v"]["heads"]
    full = t["k_nope"]["elements"] + t["v"]["elements"]
    top = slide.title(
        f"MLA caches {cached} numbers per token and layer instead of {full:,}",
        f"{t['h']['model']}, arithmetic",
        "Heights of h, u, latents and the shared key to scale",
    )
    strip = 0.5 + slide.line  # below: what is cached and what it stands for, to one scale
    base, room = 0.75 + strip, top - 1.3 - strip
    latents = {"c_q": ("$c^Q$", 0.83, 0.4), "c_kv": ("$c^{KV}$", 0.40, 0.25), "k_rope": ("$k^R$", 0.07, 0.2)}
    grown, rope = slide.letters > 1.2, "" if slide.letters > 1.2 else ", RoPE"  # large letters take its room
    sign, begin, cards = (17.5, 3.4, 8.3) if grown else (21, 4.0, 8.6)  # size of symbols; where latents and heads begin
    latents = {name: place for name, place in latents.items() if name in t}
    unit = min(room * share / t[name]["size"] for name, share in (("h", 1), *((n, high) for n, (*_, high) in latents.items())))
    level = {name: base + room * share for name, (_, share, _) in latents.items()}
    tall, centre = unit * t["h"]["size"], base + room / 2
    h, u = (slide.rectangle(x, centre - tall / 2, 0.55, tall, "hidden") for x in (LEFT, RIGHT - 0.65))
    for bar, name in ((h, "h"), (u, "u")):
        slide.text(*bar.middle, f"{name}   {t[name]['size']}", 19, ink_on(colour("hidden")), ha="center", rotation=90)
    # What is cached lies in one frame.
    pale = tint(colour("latent"), 0.12)
    high = level["c_kv"] + (0.8 if grown else 1.02) - base
    looks = dict(fill=pale, edge="latent", linestyle=(0, (4, 2)))
    frame = slide.box(begin - 0.35, base - 0.3, cards - begin - 1.75, high, **looks)
    words = f"cached: {cached}"
    size = slide.fit(words, 18, frame.w, bold=True)
    slide.text(frame.middle[0], frame.above[1] + 0.1 + 0.26 * slide.letters, words, size, ha="center", weight="bold")
    after = frame.x + frame.w + 0.1
    matrices = {"c_q": "$W^{DQ}$", "c_kv": "$W^{DKV}$", "k_rope": "$W^{KR}$" + rope}
    for name, (symbol, *_) in latents.items():
        y, high = level[name], max(t[name]["size"] * unit, 0.05)
        slide.rectangle(begin, y - high / 2, 0.5, high, t[name]["kind"])
        slide.math(begin + 0.65, y, symbol, ha="left", size=sign)
        slide.text(frame.x + frame.w - 0.1, y, str(t[name]["size"]), 17, ha="right")
        slide.arrow((h.x + h.w, min(max(y, h.y + 0.1), h.y + h.h - 0.1)), (begin - 0.05, y))
        slide.math((h.x + h.w + frame.x) / 2, y + 0.1 + 0.24 * slide.letters, matrices[name], size=sign)
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
            source = (after, level["c_q" if i < 2 else "c_kv"])
            slide.arrow(source, (cards - 0.1, y))
            above = i % 2 == 0
            away = (0.1 + (0.24 if grown else 0.34) * slide.letters) * (1 if above else -1)
            slide.math((after + cards) / 2 - (0.15 if above else 0.35), (source[1] + y) / 2 + away, matrix, size=sign)
        card = _cards(slide, cards, y - 0.36, 11.3 - cards if not grown else 3.55, 0.62, kind)
        slide.math(cards + 0.12, card.middle[1], symbol, ink_on(colour(kind)), ha="left", size=sign)
        slide.text(card.x + card.w - 0.12, card.middle[1], f"{heads} × {t[name]['size']}", 17, ink_on(colour(kind)), ha="right")
        slide.arrow((card.x + card.w + 0.22, y), (12.5, y), kind=kind)
    slide.arrow((after, level["k_rope"]), (12.5, level["k_rope"]), kind="rope")
    slide.text(12.3, level["k_rope"] - 0.28 * slide.letters, "one key for all heads", 16, ha="right")
    slide.arrow(attention.behind, (u.x - 0.05, attention.behind[1]))
    slide.math((attention.x + attention.w + u.x) / 2, attention.behind[1] + 0.1 + 0.24 * slide.letters, "$W^{O}$", size=sign)
    wide = RIGHT - LEFT - 0.1
    slide.rectangle(LEFT, 0.3, wide, 0.22, tint(colour("muted"), 0.6))
    slide.rectangle(LEFT, 0.3, wide * cached / full, 0.22, "latent")
    slide.text(LEFT, 0.6 + 0.16 * slide.letters, f"to one scale: {cached} cached of {full:,}", 16, "muted")


def _cards(slide: Slide, x: float, y: float, w: float, h: float, kind: str) -> Box:
    """One tensor per head, as a stack; returns the place of the foremost."""
    for i in (3, 2, 1, 0):
        card = slide.rectangle(x + 0.07 * i, y + 0.07 * i, w, h, kind, edge=colour("background"), linewidth=1.2)
    return card


def _rows_rank(run: str | Path = "runs/tiny", length: int = 256, windows: int = 4) -> Rows:
    """``run``: a run's folder; ``windows`` windows of ``length`` tokens of every domain's held-out text are read."""
    trained = Trained.open(run)
    if trained.model.config.attention != "mla":
        raise refuse("run", str(run), f"its attention is {trained.model.config.attention}; this picture is about MLA")
    tokens = np.concatenate([trained.window(domain, length, windows) for domain in trained.held_out.domains])
    rows: Rows = []
    for at in trained.through(tokens):
        mla = at.block.attention
        c_kv, k_rope, _ = mla.latent(at.normed, at.rotary)
        k, v, _ = mla.keys_values(c_kv, k_rope)
        both = np.concatenate([k[..., : mla.d_nope], v], axis=-1)  # (B, T, H, d_nope + d_v)
        both = both.reshape(-1, mla.heads * (mla.d_nope + mla.d_v)).astype(np.float64)
        singular = np.linalg.svd(both, compute_uv=False)
        energy = np.cumsum(singular**2) / np.sum(singular**2)
        rows += [
            {"block": at.index, "index": i + 1, "singular_value": float(value / singular[0]), "energy_up_to": float(energy[i])}
            | {"latent": mla.d_latent, "columns": both.shape[1], "tokens": len(both)}
            for i, value in enumerate(singular)
        ]
    return trained.signed(rows)


@picture(8, _rows_rank, source="run")
def rank_of_keys_and_values(slide: Slide, rows: Rows) -> None:
    """How many directions hold the energy of all heads' keys and values in the trained model, block by block: fewer than the
    latent has numbers.

    Rising curves, one per block, share of the energy against directions up to the size of the latent. They climb fast and
    flatten; dots mark where each reaches 99 percent, well before the right edge.
    """
    from matplotlib.colors import to_hex

    latent, columns, blocks = rows[0]["latent"], rows[0]["columns"], distinct(rows, "block")
    needed = [1 + sum(row["energy_up_to"] < 0.99 for row in only(rows, block=b)) for b in blocks]
    span = f"{min(needed)} to {max(needed)}" if min(needed) < max(needed) else f"{max(needed)}"
    top = slide.title(
        f"{span} directions hold 99 % of the {columns} numbers of keys and values; the latent has {latent}",
        rows[0]["model"],
        f"Energy of singular values over {rows[0]['tokens']:,} held-out tokens, the largest first",
    )
    frame = Box(LEFT, 0.3, RIGHT - LEFT - slide.width_of("block 0: 00", 17) - 0.26 * slide.letters - 0.4, top - 0.4)
    limits = dict(xlim=(0, latent), ylim=(0, 103), xlabel="directions", grid="y")
    ax, line, right = slide.within(frame, "100", (), "energy in them, %", **limits), slide.line, frame.behind[0] + 0.3
    shades = sequential("latent", 0.35)
    dot = dict(markeredgecolor=colour("ink"), markersize=12 * slide.scale, clip_on=False, zorder=3)
    slide.text(right, top - 0.5 * line, "99 % within", 16, "muted")
    for i, (b, at) in enumerate(zip(blocks, needed, strict=True)):
        shade = to_hex(shades(i / max(1, len(blocks) - 1)))
        values = [0, *(100 * row["energy_up_to"] for row in only(rows, block=b)[:latent])]
        slide.curve(ax, range(len(values)), values, kind=shade)
        ax.plot([at], [values[at]], "o", color=shade, **dot)
        slide.legend(right, top - 1.6 * line - 1.25 * line * i, [(f"block {b}: {at}", shade)], 17)
    slide.level(ax, 99)
