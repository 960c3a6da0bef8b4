"""Figure 2: multi-head latent attention, its two latents, every shape, and what is cached."""

from __future__ import annotations

from minids.config import ModelConfig
from minids.errors import refuse
from minids.lab.analysis.kv_cache import mla_elements
from minids.lab.analysis.parameters import attention_tensors
from minids.lab.figures.picture import Picture, Rows
from minids.lab.figures.slide import Slide
from minids.lab.figures.style import colour, ink_on, tint


def _rows(config: ModelConfig | None = None) -> Rows:
    """``config``: a model with MLA and a query latent, V3 by default. One row per tensor and per matrix of a layer."""
    c = config or ModelConfig.preset("deepseek-v3")
    if c.attention != "mla" or c.q_lora_rank is None:
        name, value = ("attention", c.attention) if c.attention != "mla" else ("q_lora_rank", None)
        raise refuse(name, value, "the picture has both latents; give a configuration with MLA and a q_lora_rank")
    heads = c.num_attention_heads
    tensors = [
        ("h", "input of the layer", 1, c.hidden_size, "hidden", False),
        ("c_q", "query latent", 1, c.q_lora_rank, "query", False),
        ("c_kv", "key-value latent", 1, c.kv_lora_rank, "latent", True),
        ("k_rope", "rotary key, one for all heads", 1, c.qk_rope_head_dim, "rope", True),
        ("q_nope", "content queries", heads, c.qk_nope_head_dim, "query", False),
        ("q_rope", "rotary queries", heads, c.qk_rope_head_dim, "rope", False),
        ("k_nope", "content keys", heads, c.qk_nope_head_dim, "latent", False),
        ("v", "values", heads, c.v_head_dim, "value", False),
        ("u", "output of the layer", 1, c.hidden_size, "hidden", False),
    ]
    rows: Rows = [
        {"what": "tensor", "name": n, "meaning": m, "heads": h, "size": s, "elements": h * s, "kind": k, "cached": cached}
        for n, m, h, s, k, cached in tensors
    ]
    assert sum(row["elements"] for row in rows if row["cached"]) == mla_elements(c)
    rows += [
        {"what": "matrix", "name": t.part, "rows": t.shape[0], "columns": t.shape[1], "elements": t.size}
        for t in attention_tensors(c)
        if len(t.shape) == 2
    ]
    return rows


def _draw(slide: Slide, rows: Rows) -> None:
    t = {row["name"]: row for row in rows if row["what"] == "tensor"}
    cached = sum(row["elements"] for row in t.values() if row["cached"])
    heads = t["v"]["heads"]
    full = t["k_nope"]["elements"] + t["v"]["elements"]
    top = slide.title(
        f"MLA caches {cached} numbers per token and layer, where {heads} heads of keys and values are {full:,}",
        "Heights of h, u, latents and the shared key to scale; matrices on the arrows",
    )
    room = {"h": top - 1.3, "c_q": 2.0, "c_kv": 1.2, "k_rope": 1.1}
    unit = min(height / t[name]["size"] for name, height in room.items())  # slide units per element
    base = 0.75
    middle = {"c_q": base + (top - 1.3) * 0.83, "c_kv": base + (top - 1.3) * 0.40, "k_rope": base + (top - 1.3) * 0.07}

    def bar(name: str, x: float, y: float, words: str) -> tuple[float, float]:
        """A vector as an upright bar around y; returns its left and right edge."""
        h = max(t[name]["elements"] * unit, 0.05)
        slide.rectangle(x, y - h / 2, 0.55, h, colour(t[name]["kind"]))
        slide.text(x + 0.27, y + h / 2 + 0.3, words, 21, ha="center", parse_math=True)
        return x, x + 0.55

    centre = base + (top - 1.3) / 2
    tall = unit * t["h"]["size"]
    slide.rectangle(0.7, centre - tall / 2, 0.55, tall, colour("hidden"))
    slide.text(0.98, centre, f"h   {t['h']['size']}", 19, ink_on(colour("hidden")), ha="center", rotation=90)
    # What is cached lies in one frame.
    slide.box(
        3.55,
        base - 0.3,
        2.65,
        middle["c_kv"] + 1.02 - base,
        "",
        fill=tint(colour("latent"), 0.12),
        edge=colour("latent"),
        linestyle=(0, (4, 2)),
    )
    slide.text(4.87, middle["c_kv"] + 0.38 + 0.08 + 0.62, f"cached: {cached}", 18, ha="center", weight="bold")
    names = {"c_q": "$c^Q$", "c_kv": "$c^{KV}$", "k_rope": "$k^R$"}
    for name, y in middle.items():
        bar(name, 4.0, y, "")
        slide.text(4.72, y, names[name], 21, parse_math=True)
        slide.text(5.42, y, str(t[name]["size"]), 18)
    for name, words in (("c_q", "$W^{DQ}$"), ("c_kv", "$W^{DKV}$"), ("k_rope", "$W^{KR}$, RoPE")):
        leaves = min(max(middle[name], centre - tall / 2 + 0.1), centre + tall / 2 - 0.1)
        slide.arrow((1.25, leaves), (3.95, middle[name]))
        slide.text(2.45, middle[name] + 0.32, words, 21, ha="center", parse_math=True)
    # Heads as a stack of cards.
    step = (top - 1.3) / 5
    place = {name: base + (top - 1.3) - step * (i + 0.5) for i, name in enumerate(("q_nope", "q_rope", "k_nope", "v", "k_R"))}
    symbol = {"q_nope": "$q^C$", "q_rope": "$q^R$", "k_nope": "$k^C$", "v": "$v$"}
    for name in ("q_nope", "q_rope", "k_nope", "v"):
        _cards(slide, 8.6, place[name] - 0.36, 2.6, 0.62, t[name]["kind"])
        ink = ink_on(colour(t[name]["kind"]))
        slide.text(8.75, place[name] - 0.05, symbol[name], 21, ink, parse_math=True)
        slide.text(11.08, place[name] - 0.05, f"{heads} × {t[name]['size']}", 18, ink, ha="right")
    source = 6.35
    slide.arrow((source, middle["c_q"]), (8.5, place["q_nope"]))
    slide.arrow((source, middle["c_q"]), (8.5, place["q_rope"]))
    slide.arrow((source, middle["c_kv"]), (8.5, place["k_nope"]))
    slide.arrow((source, middle["c_kv"]), (8.5, place["v"]))
    slide.text(7.35, middle["c_q"] + 0.52, "$W^{UQ}$", 21, ha="center", parse_math=True)
    slide.text(7.0, middle["c_q"] - 0.92, "$W^{QR}$, RoPE", 21, ha="center", parse_math=True)
    slide.text(7.3, middle["c_kv"] + 0.52, "$W^{UK}$", 21, ha="center", parse_math=True)
    slide.text(7.0, middle["c_kv"] - 0.72, "$W^{UV}$", 21, ha="center", parse_math=True)
    slide.arrow((source, middle["k_rope"]), (12.35, middle["k_rope"]), kind="rope")
    slide.text(9.9, middle["k_rope"] + 0.28, "the same key for every head", 16, ha="center")
    low, high = base - 0.1, base + top - 1.2
    slide.box(12.45, low, 1.25, high - low, "", fill=colour("panel"), edge=colour("muted"))
    slide.text(13.07, (low + high) / 2, "softmax(q·k) v", 19, ha="center", rotation=90)
    for name in ("q_nope", "q_rope", "k_nope", "v"):
        slide.arrow((11.4, place[name]), (12.35, place[name]), kind=t[name]["kind"])
    slide.arrow((13.7, centre), (14.75, centre))
    slide.text(14.2, centre + 0.34, "$W^{O}$", 21, ha="center", parse_math=True)
    slide.rectangle(14.8, centre - tall / 2, 0.55, tall, colour("hidden"))
    slide.text(15.07, centre, f"u   {t['u']['size']}", 19, ink_on(colour("hidden")), ha="center", rotation=90)


def _cards(slide: Slide, x: float, y: float, w: float, h: float, kind: str) -> None:
    """One tensor per head, as a stack."""
    for i in (3, 2, 1, 0):
        slide.rectangle(x + 0.07 * i, y + 0.07 * i, w, h, colour(kind), edge=colour("background"), linewidth=1.2)


mla = Picture(
    2,
    "mla",
    "Multi-head latent attention with DeepSeek-V3's shapes: two latents, queries, keys and values made from them, and the "
    "cache.",
    "From left to right: the hidden state as a tall bar; arrows to three short bars, the query latent, the key-value latent "
    "and a "
    "rotary key; a dashed frame around the last two says what is cached. From the latents come stacks of queries, keys and "
    "values, "
    "one per head; all enter the attention, whose output is as tall a bar again.",
    _rows,
    _draw,
)
