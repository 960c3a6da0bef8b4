"""Figures 3 and 4: what a token leaves behind in the cache, and how long a context then fits into memory."""

from collections.abc import Mapping
from itertools import cycle

from minids.config import ModelConfig
from minids.lab.analysis import kv_cache
from minids.lab.analysis.models import DENSE_MODELS, FAMILY
from minids.lab.figures.picture import Picture, Rows, only
from minids.lab.figures.slide import Slide
from minids.lab.figures.style import colour
from minids.lab.figures.words import byte_count, token_count

MEMORIES = {"a GPU, 80 GB": 80e9, "8 GPUs of 80 GB": 640e9}  # memory lines, in bytes: an H800, and a node of them

OWN, CONTEXTS = "DeepSeek-V3", tuple(1 << i for i in range(10, 21))


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


def _draw_per_token(slide: Slide, rows: Rows) -> None:
    kinds = only(rows, group="the same model with each attention")
    size, own = {row["attention"]: row["bytes_per_token"] for row in kinds}, kinds[0]["model"]
    top = slide.title(
        f"MLA caches {_less(size['mha'] / size['mla'])} than full attention with the same heads",
        f"{own}, arithmetic",
        "Key-value cache of one token, all layers, BF16",
    )
    published = only(rows, group="models")
    mine = [row for row in kinds if row["attention"] != "mla" or own not in {row["name"] for row in published}]
    shown = sorted([*mine, *published], key=lambda row: -row["bytes_per_token"])
    looks = {
        "latent": "MLA: one latent for all heads",
        "muted": "the same sizes, other attention" if own == OWN else f"sizes of {own}, other attention",
        "other": "other models",
    }
    fills = ["latent" if row["attention"] == "mla" else "muted" if row in kinds else "other" for row in shown]
    slide.bars(
        5.0, 0.45, 9.3, top - 0.75,
        [row["bytes_per_token"] for row in shown],
        [_called(row) for row in shown],
        fills,
        [byte_count(row["bytes_per_token"]) for row in shown],
        [fill == "latent" for fill in fills],
    )  # fmt: skip
    slide.legend(9.4, 3.0, [(words, kind) for kind, words in looks.items() if kind in fills], down=0.5)


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


kv_cache_per_token = Picture(
    3,
    "kv_cache_per_token",
    "Bytes that one token adds to the key-value cache: DeepSeek-V3's sizes with MHA, GQA (8 groups), MQA and MLA, and "
    "published models.",
    "Horizontal bars to one scale, longest first. DeepSeek-V3's sizes with multi-head attention are far ahead, then come "
    "published dense models with grouped-query attention, then the models with multi-head latent attention, DeepSeek-V3 "
    "among them, at a small fraction of the first bar; V3's sizes with multi-query attention and the smallest models are "
    "shorter still.",
    _rows_per_token,
    _draw_per_token,
)


def _rows_context(
    models: Mapping[str, ModelConfig] | None = None, contexts: tuple[int, ...] = CONTEXTS, config: ModelConfig | None = None,
    name: str = OWN,
) -> Rows:  # fmt: skip
    """``config``: whose heads the mechanisms share (V3), and ``name``: what it is called; ``models``: name → configuration
    beside them, by default none; ``contexts``: tokens, by default 1K to 1M."""
    config = config or ModelConfig.preset("deepseek-v3")
    curves = {kind.upper(): elements * config.num_hidden_layers for kind, elements in kv_cache.by_kind(config).items()}
    curves |= {model: kv_cache.elements(c) * c.num_hidden_layers for model, c in (models or {}).items()}
    rows: Rows = [
        {"model": name, "curve": curve, "context": context, "bytes": kv_cache.bytes_of(elements * context)}
        for curve, elements in curves.items()
        for context in contexts
    ]
    for memory, size in MEMORIES.items():
        for curve, elements in curves.items():
            fits = int(size // kv_cache.bytes_of(elements))
            rows.append({"curve": curve, "memory": memory, "memory_bytes": size, "longest_context": fits})
    return rows


def _draw_context(slide: Slide, rows: Rows) -> None:
    fits = {row["curve"]: row["longest_context"] for row in rows if row.get("memory") == "a GPU, 80 GB"}
    top = slide.title(
        f"One GPU's memory holds {token_count(fits['MLA'])} tokens of MLA's cache, {token_count(fits['MHA'])} of full "
        f"attention's",
        f"{rows[0]['model']}, arithmetic",
        "Cache of one sequence, BF16, weights not counted",
    )
    ax = slide.plot(1.95, 1.15, 10.9, top - 1.45, grid="both", xscale="log", yscale="log")
    ax.set(xlabel="context, tokens", ylabel="bytes")
    kinds = {"MHA": "muted", "GQA": "hidden", "MQA": "other", "MLA": "latent"}
    spare, ends = cycle(("query", "rope", "value", "shared", "mtp")), []
    for curve in dict.fromkeys(row["curve"] for row in rows):
        points = [row for row in rows if row["curve"] == curve and row.get("context")]
        shade, bold = colour(kinds.get(curve) or next(spare)), curve == "MLA"
        xs, ys = [p["context"] for p in points], [p["bytes"] for p in points]
        ax.plot(xs, ys, color=shade, linewidth=(5 if bold else 3) * slide.scale)
        words = f"{slide.cut(curve, 17, 1.5)}  {byte_count(ys[-1])}"
        ends.append((xs[-1], ys[-1], words, {"fontweight": "bold" if bold else "normal"}))
    span = sorted({row["context"] for row in rows if row.get("context")})
    ax.set_xlim(span[0], span[-1])
    ax.set_xticks(span[::2], [token_count(x) for x in span[::2]])
    low, high = ax.get_ylim()
    ticks = [10.0**e for e in range(0, 18) if low <= 10.0**e <= high]
    ax.set_yticks(ticks, [byte_count(t) for t in ticks])
    ax.set_ylim(low, high)
    ax.minorticks_off()
    for name, memory in {row["memory"]: row["memory_bytes"] for row in rows if row.get("memory")}.items():
        if low < memory < high:
            ax.axhline(memory, color=colour("ink"), linewidth=1.8 * slide.scale, linestyle=(0, (5, 3)))
            behind = dict(facecolor=colour("background"), edgecolor="none", pad=1)  # hides the grid
            slide.label(ax, span[0], memory * 1.1, name, va="bottom", bbox=behind)
    slide.end_labels(ax, ends)


cache_against_context = Picture(
    4,
    "cache_against_context",
    "The cache of one sequence against its length, for four kinds of attention with DeepSeek-V3's sizes (GQA with 8 groups),"
    " and what memory holds.",
    "Four rising lines on logarithmic axes, cache in bytes against context in tokens: multi-head attention highest, then "
    "grouped-query attention, then multi-head latent attention, then multi-query attention. Dashed lines mark the memory of "
    "one graphics processor and of a node of eight.",
    _rows_context,
    _draw_context,
)
