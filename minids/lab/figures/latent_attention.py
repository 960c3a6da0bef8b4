"""Figure 2: multi-head latent attention, its latents, every shape, and what is cached."""

from minids.config import ModelConfig
from minids.errors import refuse
from minids.lab.analysis.kv_cache import mla_elements
from minids.lab.analysis.parameters import attention_tensors
from minids.lab.figures.picture import Rows, picture
from minids.lab.figures.slide import LEFT, RIGHT, Box, Slide
from minids.lab.figures.style import colour, ink_on, tint


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
        f"MLA caches {cached} numbers per token and layer, where {heads} heads of keys and values are {full:,}",
        f"{t['h']['model']}, arithmetic",
        "Heights of h, u, latents and the shared key to scale",
    )
    strip = 0.5 + slide.line  # below: what is cached and what it stands for, to one scale
    base, room = 0.75 + strip, top - 1.3 - strip
    latents = {"c_q": ("$c^Q$", 0.83, 2.0), "c_kv": ("$c^{KV}$", 0.40, 1.2), "k_rope": ("$k^R$", 0.07, 1.1)}
    grown, rope = slide.letters > 1.2, "" if slide.letters > 1.2 else ", RoPE"  # large letters take its room
    sign, begin, cards = (17.5, 3.4, 8.3) if grown else (21, 4.0, 8.6)  # size of symbols; where latents and heads begin
    latents = {name: place for name, place in latents.items() if name in t}
    unit = min(room / t["h"]["size"], *(high / t[name]["size"] for name, (*_, high) in latents.items()))  # slide per element
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
    slide.text(frame.x + 0.05, frame.above[1] + 0.1 + 0.26 * slide.letters, f"cached: {cached}", 18, weight="bold")
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
