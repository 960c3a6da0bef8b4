"""Figures 3 and 4: what a token leaves behind in the cache, and how long a context then fits into memory."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

from minids.config import ModelConfig
from minids.lab.analysis import kv_cache
from minids.lab.analysis.models import DENSE_MODELS, FAMILY
from minids.lab.figures.picture import Picture, Rows, only
from minids.lab.figures.slide import Slide, fitted
from minids.lab.figures.style import colour
from minids.lab.figures.words import byte_count, token_count

MEMORIES = {"a GPU, 80 GB": 80e9, "8 GPUs of 80 GB": 640e9}
"""Memory lines, in bytes: an H800, and a node of them."""

OWN = "DeepSeek-V3"

MECHANISM_LABELS = {"mha": "MHA", "gqa": "GQA", "mqa": "MQA", "mla": "MLA"}


def _rows_per_token(
    models: Mapping[str, ModelConfig] | None = None, config: ModelConfig | None = None, name: str = OWN
) -> Rows:
    """``models``: name → configuration, by default the published ones; ``config``: whose heads the mechanisms share (V3), and
    ``name``: what it is called."""
    config = config or ModelConfig.preset("deepseek-v3")
    rows: Rows = []
    for kind, elements in kv_cache.by_kind(config).items():
        heads = 0 if kind == "mla" else elements // kv_cache.mqa_elements(config)
        total = elements * config.num_hidden_layers
        rows.append(
            {
                "group": "the same model with each attention",
                "name": MECHANISM_LABELS[kind],
                "model": name,
                "key_value_heads": heads,
                "attention": kind,
                "elements_per_token_and_layer": elements,
                "layers": config.num_hidden_layers,
                "bytes_per_token": kv_cache.bytes_of(total),
            }
        )
    published: list[tuple[str, str, int, int]] = []
    if models is None:
        published += [(m.name, "gqa", 2 * m.kv_heads * m.head_dim, m.layers) for m in DENSE_MODELS]
        models = {name: ModelConfig.preset(preset) for name, preset in FAMILY.items()}
    published += [(name, c.attention, kv_cache.elements(c), c.num_hidden_layers) for name, c in models.items()]
    for model, attention, elements, layers in sorted(published, key=lambda row: -row[2] * row[3]):
        rows.append(
            {
                "group": "models",
                "name": model,
                "attention": attention,
                "elements_per_token_and_layer": elements,
                "layers": layers,
                "bytes_per_token": kv_cache.bytes_of(elements * layers),
            }
        )
    return rows


def _draw_per_token(slide: Slide, rows: Rows) -> None:
    kinds = only(rows, group="the same model with each attention")
    size = {row["attention"]: row["bytes_per_token"] for row in kinds}
    top = slide.title(
        f"MLA caches {_less(size['mha'] / size['mla'])} than full attention with the same heads",
        "Key-value cache of one token, all layers, BF16",
    )
    shown = [*kinds, *only(rows, group="models")]
    own = kinds[0]["model"]
    if any(row["name"] == own for row in shown):
        shown = [row for row in shown if row not in kinds or row["attention"] != "mla"]  # it is there as a published model
    shown.sort(key=lambda row: -row["bytes_per_token"])
    names = [f"{own} with {row['name']}" if row in kinds else row["name"] for row in shown]
    names = [
        name if row["attention"] != "gqa" or row in kinds else f"{name} (GQA)" for name, row in zip(names, shown, strict=True)
    ]
    ax = slide.plot(5.0, 0.45, 9.3, top - 0.75)
    values = [row["bytes_per_token"] for row in shown]
    places = range(len(shown), 0, -1)
    fills = [colour("latent" if r["attention"] == "mla" else "other1" if r in kinds else "other3") for r in shown]
    ax.barh(places, values, height=0.66, color=fills)
    ax.set(xlim=(0, max(values)), ylim=(0.4, len(shown) + 0.6), xticks=[])
    ax.set_yticks(list(places), [fitted(name, 18, 4.4) for name in names])
    ax.tick_params(axis="y", length=0)
    for side in ("bottom", "left"):
        ax.spines[side].set_visible(False)
    for place, value, row in zip(places, values, shown, strict=True):
        weight = "bold" if row["attention"] == "mla" else "normal"
        slide.label(ax, value, place, byte_count(value), 17, va="center_baseline", fontweight=weight)
    entries = [
        ("MLA: one latent for all heads", "latent"),
        ("the same sizes, other attention" if own == OWN else f"sizes of {own}, other attention", "other1"),
        ("other models", "other3"),
    ]
    kinds_shown = {"latent" if r["attention"] == "mla" else "other1" if r in kinds else "other3" for r in shown}
    for i, entry in enumerate(entry for entry in entries if entry[1] in kinds_shown):
        slide.legend(9.4, 3.0 - 0.5 * i, [entry])


def _less(ratio: float) -> str:
    return f"{_times(ratio)} less" if ratio > 1 else f"{_times(1 / ratio)} as much, not less"


def _times(ratio: float) -> str:
    return f"{ratio:.0f} times" if ratio >= 10 else f"{ratio:.1f} times"


kv_cache_per_token = Picture(
    3,
    "kv_cache_per_token",
    "Bytes that one token adds to the key-value cache: DeepSeek-V3's sizes with MHA, GQA (8 groups), MQA and MLA, and "
    "published models.",
    "Horizontal bars to one scale, longest first. DeepSeek-V3's sizes with multi-head attention are far ahead, then come "
    "published dense models with grouped-query attention, then the models with multi-head latent attention, DeepSeek-V3 among "
    "them, at a small fraction of the first bar; V3's sizes with multi-query attention and the smallest models are shorter "
    "still.",
    _rows_per_token,
    _draw_per_token,
)


def _rows_context(models: Mapping[str, ModelConfig] | None = None, contexts: tuple[int, ...] | None = None) -> Rows:
    """``models``: name → configuration beside V3's mechanisms, by default none; ``contexts``: tokens, by default 1K to 1M."""
    config = ModelConfig.preset("deepseek-v3")
    contexts = contexts or tuple(1 << i for i in range(10, 21))
    curves = {
        MECHANISM_LABELS[kind]: elements * config.num_hidden_layers for kind, elements in kv_cache.by_kind(config).items()
    }
    for name, c in (models or {}).items():
        curves[name] = kv_cache.elements(c) * c.num_hidden_layers
    rows: Rows = []
    for name, elements in curves.items():
        for context in contexts:
            rows.append({"curve": name, "context": context, "bytes": kv_cache.bytes_of(elements * context)})
    for name, memory in MEMORIES.items():
        for curve, elements in curves.items():
            fits = int(memory // kv_cache.bytes_of(elements))
            rows.append({"curve": curve, "memory": name, "memory_bytes": memory, "longest_context": fits})
    return rows


def _draw_context(slide: Slide, rows: Rows) -> None:
    fits = {row["curve"]: row["longest_context"] for row in rows if row.get("memory") == "a GPU, 80 GB"}
    top = slide.title(
        f"One GPU's memory holds {token_count(fits['MLA'])} tokens of MLA's cache, {token_count(fits['MHA'])} of full "
        f"attention's",
        "Cache of one sequence with DeepSeek-V3's layers and heads, BF16, weights not counted",
    )
    ax = slide.plot(1.95, 1.15, 11.2, top - 1.45, grid="both")
    kinds = {"MHA": "other1", "GQA": "other2", "MQA": "other3", "MLA": "latent"}
    spare = cycle(("query", "rope", "value", "shared", "mtp"))
    for curve in dict.fromkeys(row["curve"] for row in rows):
        points = [row for row in rows if row["curve"] == curve and "context" in row]
        shade = colour(kinds.get(curve) or next(spare))
        xs, ys = [p["context"] for p in points], [p["bytes"] for p in points]
        ax.plot(xs, ys, color=shade, linewidth=(5 if curve == "MLA" else 3) * slide.scale)
        weight = "bold" if curve == "MLA" else "normal"
        slide.label(ax, xs[-1], ys[-1], f"{curve}  {byte_count(ys[-1])}", 17, 10, fontweight=weight)
    ax.set(xscale="log", yscale="log", xlabel="context, tokens", ylabel="bytes")
    span = sorted({row["context"] for row in rows if "context" in row})
    ax.set_xlim(span[0], span[-1])
    ax.set_xticks(span[::2], [token_count(x) for x in span[::2]])
    low, high = ax.get_ylim()
    ticks = [10.0**e for e in range(0, 18) if low <= 10.0**e <= high]
    ax.set_yticks(ticks, [byte_count(t) for t in ticks])
    for name, memory in {row["memory"]: row["memory_bytes"] for row in rows if "memory" in row}.items():
        ax.axhline(memory, color=colour("ink"), linewidth=1.8 * slide.scale, linestyle=(0, (5, 3)))
        ax.annotate(
            name,
            (span[0], memory),
            xytext=(8, 5),
            textcoords="offset points",
            va="bottom",
            fontsize=16 * slide.scale,
        )


cache_against_context = Picture(
    4,
    "cache_against_context",
    "The cache of one sequence against its length, for four kinds of attention with DeepSeek-V3's sizes (GQA with 8 groups), "
    "and what memory holds.",
    "Four rising lines on logarithmic axes, cache in bytes against context in tokens: multi-head attention highest, then "
    "grouped-query attention, then multi-head latent attention, then multi-query attention. Dashed lines mark the memory of "
    "one "
    "graphics processor and of a node of eight.",
    _rows_context,
    _draw_context,
)
