"""Figures 3 and 4: what a token leaves behind in the cache, and how long a context then fits into memory."""

from collections.abc import Mapping
from itertools import cycle

import numpy as np

from minids.config import ModelConfig
from minids.lab.analysis import kv_cache
from minids.lab.analysis.models import DENSE_MODELS, FAMILY
from minids.lab.figures.card import CARD
from minids.lab.figures.picture import Rows, only, picture
from minids.lab.figures.slide import LEFT, RIGHT, Box, Slide
from minids.lab.figures.style import colour
from minids.lab.figures.words import byte_count, token_count

SPARE = ("query", "rope", "value", "shared", "mtp")  # colours of further models
OWN, CONTEXT = "DeepSeek-V3", 1 << 17


def _rows_per_token(
    models: Mapping[str, ModelConfig] | None = None, config: ModelConfig | None = None, name: str = OWN
) -> Rows:
    """``models``: name → configuration, by default the published ones; ``config``: whose heads the mechanisms share (V3), and
    ``name``: what it is called."""
    config = config or ModelConfig.preset("deepseek-v3")
    rows: Rows = []
    for kind, elements in kv_cache.by_kind(config).items():
        heads = 0 if kind == "mla" else elements // kv_cache.mqa_elements(config)
        about = {"group": "the same model with each attention", "name": kind.upper(), "model": name, "key_value_heads": heads}
        about["against_width"] = 2 * config.hidden_size / elements  # n_h·d_h = d, as V2's abstract compares
        rows.append(about | _sizes(kind, elements, config.num_hidden_layers))
    published: list[tuple[str, str, int, int]] = []
    if models is None:
        published += [(m.name, "gqa", 2 * m.kv_heads * m.head_dim, m.layers) for m in DENSE_MODELS]
        models = {name: ModelConfig.preset(preset) for name, preset in FAMILY.items()}
    published += [(name, c.attention, kv_cache.elements(c), c.num_hidden_layers) for name, c in models.items()]
    published.sort(key=lambda row: -row[2] * row[3])
    return rows + [{"group": "models", "name": model} | _sizes(*sizes) for model, *sizes in published]


def _sizes(attention: str, elements: int, layers: int) -> dict:
    total = kv_cache.bytes_of(elements * layers)
    return {"attention": attention, "elements_per_token_and_layer": elements, "layers": layers, "bytes_per_token": total}


@picture(3, _rows_per_token)
def kv_cache_per_token(slide: Slide, rows: Rows) -> None:
    """Bytes that one token adds to the key-value cache: DeepSeek-V3's sizes with MHA, GQA (8 groups), MQA and MLA, and
    published models.

    Horizontal bars to one scale, longest first. DeepSeek-V3's sizes with multi-head attention are far ahead, then come
    published dense models with grouped-query attention, then the models with multi-head latent attention, DeepSeek-V3 among
    them, at a small fraction of the first bar; V3's sizes with multi-query attention and the smallest models are shorter
    still.
    """
    kinds = only(rows, group="the same model with each attention")
    own_width = kinds[-1]["against_width"]
    size, own = {row["attention"]: row["bytes_per_token"] for row in kinds}, kinds[0]["model"]
    top = slide.title(
        f"MLA caches {_less(size['mha'] / size['mla'])} than full attention with the same heads",
        f"{own}, arithmetic",
        "Cache of one token, all layers, BF16"
        + (f"; {_less(own_width)} than V2's baseline, heads as wide as the model" if own_width else ""),
    )
    published = only(rows, group="models")
    mine = [row for row in kinds if row["attention"] != "mla" or own not in {row["name"] for row in published}]
    shown = sorted([*mine, *published], key=lambda row: -row["bytes_per_token"])
    looks = {
        "latent": "MLA: one latent for all heads",
        "muted": "same sizes, other attention" if own == OWN else f"sizes of {own}, other attention",
        "other": "other models",
    }
    fills = ["latent" if row["attention"] == "mla" else "muted" if row in kinds else "other" for row in shown]
    low = slide.legend(LEFT, slide.line, [(words, kind) for kind, words in looks.items() if kind in fills]) + 0.6 * slide.line
    slide.bars(
        5.0, low, 9.3, top - 0.3 - low,
        [row["bytes_per_token"] for row in shown],
        [_called(row) for row in shown],
        fills,
        [byte_count(row["bytes_per_token"]) for row in shown],
        [fill == "latent" for fill in fills],
    )  # fmt: skip


def _called(row: dict) -> str:
    """The name of a bar: its attention too, where it is not the model's own or that of MLA."""
    groups = f" ({row['attention'].upper()})" if row["attention"] == "gqa" else ""
    if "model" not in row or row["model"] is None:
        return row["name"] + groups
    return f"{row['model']} with {row['name']}" + (f"-{row['key_value_heads']}" if groups else "")


def _less(ratio: float) -> str:
    times = max(ratio, 1 / ratio)
    told = f"{times:.{0 if times >= 10 else 1}f} times"
    return f"{told} less" if ratio > 1 else f"{told} as much, not less"


def _rows_context(
    models: Mapping[str, ModelConfig] | None = None, context: int = CONTEXT, config: ModelConfig | None = None, name: str = OWN,
    card: float = CARD,
) -> Rows:  # fmt: skip
    """``config``: whose heads the kinds of attention share (V3), and ``name``: what it is called; ``models``: name →
    configuration beside them, by default none; ``context``: tokens at the end, 128K; ``card``: bytes of a card's memory."""
    config = config or ModelConfig.preset("deepseek-v3")
    curves = {kind.upper(): elements * config.num_hidden_layers for kind, elements in kv_cache.by_kind(config).items()}
    curves |= {model: kv_cache.elements(c) * c.num_hidden_layers for model, c in (models or {}).items()}
    return [
        {"model": name, "curve": curve, "bytes_per_token": kv_cache.bytes_of(elements), "context": context}
        | {"bytes": kv_cache.bytes_of(elements * context), "card_bytes": card, "fits": int(card // kv_cache.bytes_of(elements))}
        for curve, elements in curves.items()
    ]


@picture(4, _rows_context)
def cache_against_context(slide: Slide, rows: Rows) -> None:
    """The cache of one text against its length, for four kinds of attention with DeepSeek-V3's sizes (GQA with 8 groups), and
    what one card holds.

    Four straight lines from zero, cache in bytes against tokens, both axes linear: multi-head attention climbs steeply and
    crosses the dashed line of one card's 80 GB at 20,011 tokens; grouped-query attention stays below it; multi-head latent
    attention and multi-query attention lie near the floor.
    """
    of, first = {row["curve"]: row for row in rows}, rows[0]
    card, context = first["card_bytes"], first["context"]
    top = slide.title(
        f"A card of {card / 1e9:g} GB holds {of['MHA']['fits']:,} tokens of MHA's cache, {of['MLA']['fits']:,} of MLA's",
        f"{first['model']}, arithmetic",
        f"Cache of one text, BF16, weights not counted; GQA with {kv_cache.GQA_GROUPS} groups",
    )
    names = {curve: slide.cut(curve, 17, 1.5) + f"  {byte_count(row['bytes'])}" for curve, row in of.items()}
    frame = Box(LEFT, 0.3, RIGHT - LEFT - 0.2, top - 0.6)
    ax = slide.within(frame, byte_count(600e9), names.values(), grid="y", xlabel="tokens read")
    kinds, spare, ends = {"MHA": "muted", "GQA": "hidden", "MQA": "other", "MLA": "latent"}, cycle(SPARE), []
    for curve, row in of.items():
        bold = curve == "MLA"
        shade = colour(kinds.get(curve) or next(spare))
        ax.plot([0, context], [0, row["bytes"]], color=shade, linewidth=(6 if bold else 3.5) * slide.scale)
        ends.append((context, row["bytes"], names[curve], {"fontweight": "bold" if bold else "normal"}))
    ax.set(xlim=(0, context), ylim=(0, 1.05 * max(max(row["bytes"] for row in rows), card)))
    ax.set_xticks([context * i / 4 for i in range(5)], [token_count(context * i / 4) if i else "0" for i in range(5)])
    every = card * max(1, round(ax.get_ylim()[1] / card / 6))
    ticks = np.arange(0, ax.get_ylim()[1], every)  # whole cards
    ax.set_yticks(ticks, [byte_count(tick) if tick else "0" for tick in ticks])
    ax.axhline(card, color=colour("ink"), linewidth=2 * slide.scale, linestyle=(0, (5, 3)))
    for row in rows:
        if row["fits"] < context and row["curve"] in kinds:
            ax.plot([row["fits"]], [card], "o", color=colour("ink"), markersize=11 * slide.scale)
            words = f"one card: full at {row['fits']:,}"
            slide.label(ax, 0.98 * context, 1.05 * card, words, 18, 0, "bottom", ha="right", fontweight="bold")
    slide.end_labels(ax, ends)
