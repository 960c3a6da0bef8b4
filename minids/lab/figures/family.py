"""Figures 23 and 24: what MHA, GQA, MQA and MLA cache, head by head, and the loss that small models of each reach with it."""

from minids.config import ModelConfig
from minids.lab.analysis import kv_cache
from minids.lab.analysis.parameters import total
from minids.lab.figures.picture import Rows, column, picture
from minids.lab.figures.slide import LEFT, RIGHT, Box, Slide
from minids.lab.figures.style import colour, tint
from minids.lab.studies import results
from minids.words import si

HEADS = 8  # drawn, of however many there are
GROUPS = 2  # of GQA, drawn


def _rows(config: ModelConfig | None = None, name: str = "DeepSeek-V3") -> Rows:
    """``config``: whose heads the four kinds share, V3 by default; ``name``: what it is called."""
    c = config or ModelConfig.preset("deepseek-v3")
    drawn = dict(zip(kv_cache.KINDS, (HEADS, GROUPS, 1, HEADS), strict=True))
    return [
        {"model": name, "attention": kind.upper(), "heads": c.num_attention_heads}
        | {"drawn_heads": HEADS, "drawn_keys": drawn[kind]}
        | {"key_value_heads": c.num_attention_heads if kind == "mla" else elements // kv_cache.mqa_elements(c)}
        | {"numbers_per_token_and_layer": elements, "latent": c.kv_lora_rank, "rope": c.qk_rope_head_dim}
        for kind, elements in kv_cache.by_kind(c).items()
    ]


@picture(23, _rows)
def attention_family(slide: Slide, rows: Rows) -> None:
    """MHA, GQA, MQA and MLA side by side: which queries share which keys and values, and, hatched, what is cached.

    Four columns of small blocks, one per head: queries above, keys and values below. In MHA each query has a key and a
    value of its own, all hatched; in GQA four queries share one, in MQA all do; in MLA each has its own, but none is
    hatched: they are made from one latent below, which is. Under each column the numbers cached, as a bar to scale: 32,768,
    2,048, 256 and 576.
    """
    cached = {row["attention"]: row["numbers_per_token_and_layer"] for row in rows}
    top = slide.title(
        f"All heads keep their own keys in MLA, and {cached['MLA']:,} numbers are cached instead of {cached['MHA']:,}",
        f"{rows[0]['model']}, arithmetic",
        f"Per token and layer. Hatched: cached. {HEADS} of {rows[0]['heads']} heads are drawn",
    )
    line = slide.line
    names = {"q": "queries", "k": "keys", "v": "values"}
    margin = slide.width_of((*names.values(), "latent"), 17) + 0.25
    wide = (RIGHT - LEFT - margin) / len(rows)
    foot = 0.2 + 4.3 * line
    bottom, room = foot + 0.2 * line, top - foot - 1.6 * line
    lane = room / 4.4
    at = {"q": bottom + 3.4 * lane, "k": bottom + 2.2 * lane, "v": bottom + 1.3 * lane}
    for part, name in names.items():
        slide.text(LEFT, at[part] + 0.35 * lane, name, 17, "muted")
    slide.text(LEFT, bottom + 0.3 * lane, "latent", 17, "muted")
    longest = max(cached.values())
    for i, row in enumerate(rows):
        if i:
            slide.step(row["attention"])
        x, w = LEFT + margin + i * wide, wide - 0.55
        heads = {"q": _heads(x, at["q"], w, 0.7 * lane, HEADS)}
        count = row["drawn_keys"]
        mla = row["attention"] == "MLA"
        for part, kind in (("k", "latent"), ("v", "value")):
            heads[part] = _heads(x, at[part], w, 0.7 * lane, count)
            for head in heads[part]:
                _block(slide, head, kind, not mla)
        for j, head in enumerate(heads["q"]):
            _block(slide, head, "query", False)
            key = heads["k"][j * count // HEADS]
            slide.arrow(head.below, key.above, head=False, width=1.4)
        if mla:
            latent = Box(x + 0.16 * w, bottom, 0.68 * w, 0.55 * lane)
            slide.box(*latent, "", fill=colour("latent"), edge="ink", hatch="///")
            for head in heads["v"]:
                slide.arrow(latent.above, head.below, head=False, width=1.4)
        slide.text(x + w / 2, top - 0.85 * line, row["attention"], 26 / max(1, slide.letters), ha="center", weight="bold")
        number = row["numbers_per_token_and_layer"]
        slide.text(x + w / 2, foot - 0.9 * line, f"{number:,}", 26 / max(1, slide.letters), ha="center", weight="bold")
        slide.rectangle(x, foot - 2.3 * line, w * number / longest, 0.6 * line, "ink")
        kv = row["key_value_heads"]
        words = f"{row['latent']} + {row['rope']}\nfor all heads" if mla else f"{kv} key-value\nhead{'s' if kv > 1 else ''}"
        slide.text(x + w / 2, foot - 3.4 * line, words, 16, "muted", ha="center", linespacing=1.2)


def _heads(x: float, y: float, w: float, h: float, count: int) -> list[Box]:
    """``count`` equal blocks side by side in the middle of w, as wide as if there were ``HEADS``."""
    each = w / HEADS
    step = w / count
    return [Box(x + step * (i + 0.5) - 0.4 * each, y, 0.8 * each, h) for i in range(count)]


def _block(slide: Slide, place: Box, kind: str, cached: bool) -> None:
    fill = colour(kind) if cached or kind == "query" else tint(colour(kind), 0.35)
    slide.box(*place, fill=fill, edge="ink" if cached else fill, hatch="///" if cached else "", round=0.05)


def _rows_loss(found: dict | None = None) -> Rows:
    """``found``: results of the attention study, by default those kept with the package: models of nearly one size, the same
    text, steps and seeds."""
    found = found or results("attention")
    rows: Rows = []
    for arm, held in found["arms"].items():
        c = ModelConfig(**found["common"]["model"] | held["settings"]["model"])
        about = f"{si(total(c))} parameters"
        rows += [
            {"model": about, "attention": arm.upper(), "numbers_per_token_and_layer": kv_cache.elements(c), "seed": seed}
            | {"loss": loss, "steps": found["steps"]}
            for seed, loss in zip(found["seeds"], held["summary"]["loss"]["values"], strict=True)
        ]
    return rows


@picture(24, _rows_loss, source="study attention")
def cache_and_quality(slide: Slide, rows: Rows) -> None:
    """Held-out loss of four small models that differ in their attention, against the numbers each caches per token and
    layer.

    Numbers cached from left to right, loss upwards. Multi-head attention stands far right with the lowest mean; grouped-
    and multi-query attention cache fewer numbers and stand higher; multi-head latent attention stands furthest left, nearly
    as low as the first. Small dots show how far the seeds lie apart.
    """
    kinds = list(dict.fromkeys(column(rows, "attention")))
    of = {kind: [row for row in rows if row["attention"] == kind] for kind in kinds}
    cached = {kind: of[kind][0]["numbers_per_token_and_layer"] for kind in kinds}
    mean = {kind: sum(column(of[kind], "loss")) / len(of[kind]) for kind in kinds}
    fewest = min(kinds, key=lambda kind: cached[kind])
    top = slide.title(
        f"{fewest} caches {cached[fewest]} numbers instead of {max(cached.values())}"
        + (", and only MHA's loss is lower" if sorted(mean, key=lambda k: mean[k])[:2] == ["MHA", "MLA"] else ""),
        f"four models of {rows[0]['model']}",
        f"Small dots: {len(of[fewest])} seeds; large ones: their mean, after {rows[0]['steps']} steps",
    )
    said = dict(xlabel="numbers cached per token and layer", xlim=(0, 1.05 * max(cached.values())))
    ax = slide.within(Box(LEFT, 0.3, RIGHT - LEFT, top - 0.5), "2.25", ylabel="held-out loss, nats", **said)
    ax.locator_params(axis="y", nbins=5)
    looks = {"MHA": "muted", "GQA": "hidden", "MQA": "other", "MLA": "latent"}
    for kind in kinds:
        shade = colour(looks.get(kind, "query"))
        x, losses = cached[kind], column(of[kind], "loss")
        ax.plot([x] * len(losses), losses, "o", color=shade, markersize=8 * slide.scale, markeredgewidth=0, alpha=0.6)
        dot = dict(color=shade, markeredgecolor=colour("ink"), markersize=22 * slide.scale)
        ax.plot([x], [mean[kind]], "o", **dot)
        before = cached[kind] == max(cached.values())
        looks_of = dict(fontweight="bold", ha="right" if before else "left")
        size = 19 / max(1, slide.letters) ** 0.5
        slide.label(ax, x, mean[kind], f"{kind}: {mean[kind]:.3f}", size, -20 if before else 20, **looks_of)
