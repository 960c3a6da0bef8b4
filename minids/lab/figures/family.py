"""Figures 23 and 24: what MHA, GQA, MQA and MLA cache, head by head, and the loss that small models of each reach with it."""

from minids.config import ModelConfig
from minids.lab.analysis import kv_cache
from minids.lab.figures.picture import LEFT, RIGHT, Box, Rows, Slide, colour, column, distinct, only, picture, size_of, tint
from minids.lab.studies import results

HEADS = 8  # drawn, of however many there are
GROUPS = 2  # of GQA, drawn


def _rows(config: ModelConfig | None = None, name: str = "DeepSeek-V3") -> Rows:
    """``config``: whose heads the four kinds share, V3 by default; ``name``: what it is called."""
    c = config or ModelConfig.preset("deepseek-v3")
    return [
        {"model": name, "attention": kind.upper(), "heads": c.num_attention_heads, "drawn_heads": HEADS, "drawn_keys": drawn}
        | {"key_value_heads": c.num_attention_heads if kind == "mla" else elements // kv_cache.mqa_elements(c)}
        | {"numbers_per_token_and_layer": elements, "latent": c.kv_lora_rank, "rope": c.qk_rope_head_dim}
        for (kind, elements), drawn in zip(kv_cache.by_kind(c).items(), (HEADS, GROUPS, 1, HEADS), strict=True)
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
    finding = f"All heads keep their own keys in MLA, and {cached['MLA']:,} numbers are cached instead of {cached['MHA']:,}"
    top = slide.headed(finding, f"Per token and layer. Hatched: cached. {HEADS} of {rows[0]['heads']} heads are drawn")
    line, foot, big = slide.line, 0.2 + 4.3 * slide.line, 26 / max(1, slide.letters)
    bottom, lane = foot + 0.2 * line, (top - foot - 1.6 * line) / 4.4
    lanes = {"queries": 3.4, "keys": 2.2, "values": 1.3, "latent": -0.05}
    margin, longest = slide.width_of(lanes, 17) + 0.25, max(cached.values())
    for name, at in lanes.items():
        slide.text(LEFT, bottom + (at + 0.35) * lane, name, 17, "muted")
    for i, row in enumerate(rows):
        if i:
            slide.step(row["attention"])
        x, _, w, _ = Box(LEFT + margin, 0, RIGHT - LEFT - margin, 0).piece(i, len(rows))
        w, count, mla, number = w - 0.55, row["drawn_keys"], row["attention"] == "MLA", row["numbers_per_token_and_layer"]
        heads: dict[str, list[Box]] = {}
        for name, kind, n in (("keys", "latent", count), ("values", "value", count), ("queries", "query", HEADS)):
            looks = dict(fill=tint(colour(kind), 0.35) if mla and kind != "query" else kind, round=0.05)
            if kind != "query" and not mla:  # cached
                looks |= dict(edge="ink", hatch="///")
            lefts = [x + w / n * (j + 0.5) - 0.4 * w / HEADS for j in range(n)]  # each as wide as if there were ``HEADS``
            y, wide = bottom + lanes[name] * lane, 0.8 * w / HEADS
            heads[name] = [slide.box(left, y, wide, 0.7 * lane, **looks) for left in lefts]
        for j, head in enumerate(heads["queries"]):
            slide.arrow(head.below, heads["keys"][j * count // HEADS].above, head=False, width=1.4)
        if mla:
            latent = slide.box(x + 0.16 * w, bottom, 0.68 * w, 0.55 * lane, kind="latent", edge="ink", hatch="///")
            for head in heads["values"]:
                slide.arrow(latent.above, head.below, head=False, width=1.4)
        for y, words in ((top - 0.85 * line, row["attention"]), (foot - 0.9 * line, f"{number:,}")):
            slide.text(x + w / 2, y, words, big, ha="center", weight="bold")
        slide.rectangle(x, foot - 2.3 * line, w * number / longest, 0.6 * line, "ink")
        kv = row["key_value_heads"]
        words = f"{row['latent']} + {row['rope']}\nfor all heads" if mla else f"{kv} key-value\nhead{'s' if kv > 1 else ''}"
        slide.text(x + w / 2, foot - 3.4 * line, words, 16, "muted", ha="center", linespacing=1.2)


def _rows_loss(found: dict | None = None) -> Rows:
    """``found``: results of the attention study, by default those kept with the package: models of nearly one size, the same
    text, steps and seeds."""
    found = found or results("attention")
    rows: Rows = []
    for arm, held in found["arms"].items():
        settings = found["common"]["model"] | held["settings"]["model"]
        cached = kv_cache.elements(ModelConfig(**settings))
        about = {"model": size_of(settings), "attention": arm.upper(), "numbers_per_token_and_layer": cached}
        seeds = zip(found["seeds"], held["summary"]["loss"]["values"], strict=True)
        rows += [about | {"seed": seed, "loss": loss, "steps": found["steps"]} for seed, loss in seeds]
    return rows


@picture(24, _rows_loss, source="study attention")
def cache_and_quality(slide: Slide, rows: Rows) -> None:
    """Held-out loss of four small models that differ in their attention, against the numbers each caches per token and
    layer.

    Numbers cached from left to right, loss upwards. Multi-head attention stands far right with the lowest mean; grouped-
    and multi-query attention cache fewer numbers and stand higher; multi-head latent attention stands furthest left, nearly
    as low as the first. Small dots show how far the seeds lie apart.
    """
    losses = {kind: column(only(rows, attention=kind), "loss") for kind in distinct(rows, "attention")}
    cached = {row["attention"]: row["numbers_per_token_and_layer"] for row in rows}
    mean = {kind: sum(values) / len(values) for kind, values in losses.items()}
    fewest, most = min(cached, key=lambda kind: cached[kind]), max(cached.values())
    second = ", and only MHA's loss is lower" if sorted(mean, key=lambda k: mean[k])[:2] == ["MHA", "MLA"] else ""
    finding = f"{fewest} caches {cached[fewest]} numbers instead of {most}{second}"
    subtitle = f"Small dots: {len(losses[fewest])} seeds; large ones: their mean, after {rows[0]['steps']} steps"
    top = slide.title(finding, f"four models of {rows[0]['model']}", subtitle)
    said = dict(xlabel="numbers cached per token and layer", xlim=(0, 1.05 * most))
    ax = slide.within(Box(LEFT, 0.3, RIGHT - LEFT, top - 0.5), "2.25", ylabel="held-out loss, nats", **said)
    ax.locator_params(axis="y", nbins=5)
    shades, size = {"MHA": "muted", "GQA": "hidden", "MQA": "other", "MLA": "latent"}, 19 / max(1, slide.letters) ** 0.5
    for kind, values in losses.items():
        shade, x = colour(shades.get(kind, "query")), cached[kind]
        ax.plot([x] * len(values), values, "o", color=shade, markersize=8 * slide.scale, markeredgewidth=0, alpha=0.6)
        ax.plot([x], [mean[kind]], "o", color=shade, markeredgecolor=colour("ink"), markersize=22 * slide.scale)
        gap, ha = (-20, "right") if x == most else (20, "left")
        slide.label(ax, x, mean[kind], f"{kind}: {mean[kind]:.3f}", size, gap, fontweight="bold", ha=ha)
