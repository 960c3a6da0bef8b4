"""Figures 3, 4 and 7: what a token leaves behind in the cache, and how much text fits into a card's memory."""

import math
from collections.abc import Mapping
from itertools import cycle

import numpy as np

from minids.config import ModelConfig
from minids.lab.analysis import kv_cache
from minids.lab.analysis.models import DENSE_MODELS, FAMILY
from minids.lab.figures.film import in_turn
from minids.lab.figures.picture import LEFT, RIGHT, Box, Film, Rows, Slide, colour, column, only, picture, token_count
from minids.lab.figures.slide import BOLD, THIN
from minids.words import si

PAGE = 500  # tokens of a printed page
CARD = 80e9  # bytes of an H800's memory
DOTS = 64  # of one token's numbers, one below the other
SPARE = ("query", "rope", "value", "shared", "mtp")  # colours of further models
OWN, CONTEXT = "DeepSeek-V3", 1 << 17


def _rows(config: ModelConfig | None = None, name: str = "DeepSeek-V3", card: float = CARD, page: int = PAGE,
          context: int = 1 << 17) -> Rows:  # fmt: skip
    """``config``: whose heads the kinds of attention share, V3 by default, and ``name``: what it is called; ``card``: bytes of
    its memory; ``page``: tokens of a page; ``context``: tokens at which the film ends. Weights are not counted."""
    config = config or ModelConfig.preset("deepseek-v3")
    rows: Rows = []
    for kind, elements in kv_cache.by_kind(config).items():
        each, groups = kv_cache.bytes_of(elements * config.num_hidden_layers), elements // kv_cache.mqa_elements(config)
        row = {"model": name, "attention": kind.upper(), "numbers_per_token_and_layer": elements, "bytes_per_token": each}
        row |= {"card_bytes": card, "tokens": int(card // each), "page_tokens": page, "pages": card / each / page}
        rows.append(row | {"groups": groups if kind == "gqa" else 0, "context": context})
    return rows


def _pages(slide: Slide, card: Box, pages: float, kind: str) -> None:
    """An outline of the card, full of pages of equal size; large ones have lines of text."""
    slide.box(*card, fill="panel", edge="ink", round=0.15)
    inside, count = card.inner(0.12), max(1, round(pages))
    down = min(range(1, count + 1), key=lambda n: abs(math.log(inside.w / math.ceil(count / n) / (inside.h / n) / 0.75)))
    across = math.ceil(count / down)
    wide, high = inside.w / across, inside.h / down
    gap = 0.1 * min(wide, high) if wide > 0.25 else 0.16 * wide
    places = [inside.piece(i // across, down, across=False).piece(i % across, across).inner(gap) for i in range(count)]
    slide.many(places, kind)
    if wide > 0.25:
        lines = [(*place, i) for place in places for i in range(5)]
        slide.many(
            [Box(x + 0.16 * w, y + h * (0.2 + 0.15 * i), w * (0.68 if i else 0.4), 0.045 * h) for x, y, w, h, i in lines],
            "panel",
        )


def _moments(rows: Rows) -> list[tuple[int, int]]:
    """Tokens read and milliseconds: on to where MHA's card is full, a pause, and on to the whole context."""
    full, end = only(rows, attention="MHA")[0]["tokens"], rows[0]["context"]
    first, last = np.linspace(0, min(full, end), 36).astype(int).tolist(), np.linspace(full, end, 41).astype(int).tolist()
    return in_turn(first, 110, 3000) if full >= end else in_turn(first, 110, 1700) + in_turn(last[1:], 110, 3000)


def _draw_moment(slide: Slide, rows: Rows, tokens: int) -> None:
    mha, mla = (only(rows, attention=kind)[0] for kind in ("MHA", "MLA"))
    end, card = mha["context"], mha["card_bytes"]
    cards = [max(1, math.ceil(end * row["bytes_per_token"] / card)) for row in (mha, mla)]
    ratio = mha["bytes_per_token"] / mla["bytes_per_token"]
    finding = f"One text of {token_count(end)} tokens: {cards[0]} cards or {cards[1]}"
    top = slide.headed(finding, f"Both caches read the same tokens; each outline is a card of {card / 1e9:g} GB")
    line, big = slide.line, 1 / max(1, slide.letters)  # headings do not grow with the letters
    shown = min(sum(cards), 14)
    step, low, high = (RIGHT - LEFT - 0.9) / shown, 0.3 + 4.4 * line, top - 0.7 - 7 * line
    slide.text(LEFT, top - 1.1 * line, f"{tokens:,} tokens", 34 * big, weight="bold")
    if tokens == end:
        slide.text(RIGHT, top - 1.1 * line, f"{ratio:.0f} times less with MLA", 34 * big, weight="bold", ha="right")
    for row, count, kind, at, ha in ((mha, cards[0], "muted", LEFT, "left"), (mla, cards[1], "latent", RIGHT, "right")):
        held, first = tokens * row["bytes_per_token"], LEFT if row is mha else RIGHT + 0.22 - count * step
        for i in range(max(1, min(count, shown - 1, math.ceil(held / card)))):  # the next card comes when it is needed
            place, fill = Box(first + i * step, low, step - 0.22, high), min(held / card - i, 1.0)
            full, inside = fill > 0.9999, place.inner(0.05)
            slide.box(*place, fill="panel", edge="ink" if full else "muted", round=0.08)
            slide.rectangle(inside.x, inside.y, inside.w, fill * inside.h, kind)
            if full:
                slide.text(place.middle[0], place.y + place.h - 0.5, "full", 22 * big, "background", ha="center", weight="bold")
        over = f"\non {math.ceil(held / card)} cards" if held > card else f",\n{100 * held / card:.1f} % of a card"
        slide.text(at, low - 1.2 * line, row["attention"], 28 * big, ha=ha, weight="bold")
        slide.text(at, low - 3.2 * line, si(held, "B") + over, 22 * big, ha=ha)


@picture(7, _rows, film=Film(_moments, _draw_moment))
def one_card(slide: Slide, rows: Rows) -> None:
    """How many pages of text one graphics card's cache holds with multi-head attention and with MLA, and the numbers cached
    for one token in one layer.

    Two equal outlines of one card's memory. The left one, multi-head attention, is full with forty large pages; the right
    one, multi-head latent attention, is a fine texture of more than two thousand. Below, a wide field of 32,768 dots, the
    numbers of one token in one layer, beside a narrow strip of 576. The film fills both memories with one text: the left is
    full at 20,011 tokens and needs seven cards in the end, the right never fills one.
    """
    both = mha, mla = [only(rows, attention=kind)[0] for kind in ("MHA", "MLA")]
    finding = f"One {mha['card_bytes'] / 1e9:g} GB card: {mha['pages']:,.0f} pages or {mla['pages']:,.0f}"
    top = slide.headed(finding, f"What its cache can hold, at {mha['page_tokens']} tokens a page, in BF16, without the weights")
    pages = {row["attention"] + (f" with {row['groups']} groups" if row["groups"] else ""): row["pages"] for row in rows}
    told = "; ".join(f"{kind}: {count:,.0f} pages" for kind, count in pages.items() if kind not in ("MHA", "MLA"))
    numbers, each = mha["numbers_per_token_and_layer"], mha["bytes_per_token"]
    foot = slide.note(f"{told}. MHA's {numbers:,} numbers in all layers: {each:,} bytes a token")
    dots, line, size = min(1.6, 0.18 * slide.h), slide.line, 30 / max(1, slide.letters)
    low, high = foot + dots + 2.3 * line, top - 2.2 * line  # under the cards: the numbers of a token
    for row, kind, card in zip(both, ("muted", "latent"), slide.parts(low, high, 1, 1, tall=False), strict=True):
        if row is mla:
            slide.step("MLA")
        _pages(slide, card, row["pages"], kind)
        looks = dict(weight="bold", va="center_baseline")
        slide.text(card.x, high + line, row["attention"], size, **looks)
        slide.text(card.behind[0], high + line, f"{row['pages']:,.0f} pages", size, ha="right", **looks)
    slide.step("one token")  # as many dots as numbers are cached, ``DOTS`` of them one below the other
    few, over = mla["numbers_per_token_and_layer"], foot + 0.05 + dots + 0.62 * line
    before, behind = (slide.width_of(f"{n:,}", 18, bold=True) for n in (numbers, few))
    pitch = min((RIGHT - LEFT - 0.3 - max(behind, 0.5)) / math.ceil(numbers / DOTS), dots / DOTS * 1.6)
    for n, kind, edge, ha in ((numbers, "muted", LEFT, "left"), (few, "latent", RIGHT, "right")):
        columns = math.ceil(n / DOTS)
        place = Box(edge - columns * pitch * (ha == "right"), foot + 0.05, columns * pitch, dots)
        slide.texture(place, (np.arange(columns * DOTS) < n).reshape(columns, DOTS).T, kind)
        slide.text(edge, over, f"{n:,}", 18, weight="bold", ha=ha)
    slide.text(LEFT + before + 0.25, over, "numbers for one token in one layer, a dot each", 16, "muted")


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
    own_width, own = kinds[-1]["against_width"], kinds[0]["model"]
    size = {row["attention"]: row["bytes_per_token"] for row in kinds}
    wider = f"; {_less(own_width)} than V2's baseline, heads as wide as the model" if own_width else ""
    finding = f"MLA caches {_less(size['mha'] / size['mla'])} than full attention with the same heads"
    top = slide.headed(finding, f"Cache of one token, all layers, BF16{wider}")
    published = only(rows, group="models")
    mine = [row for row in kinds if row["attention"] != "mla" or own not in {row["name"] for row in published}]
    shown = sorted([*mine, *published], key=lambda row: -row["bytes_per_token"])
    others = "same sizes, other attention" if own == OWN else f"sizes of {own}, other attention"
    looks = {"latent": "MLA: one latent for all heads", "muted": others, "other": "other models"}
    fills = ["latent" if row["attention"] == "mla" else "muted" if row in kinds else "other" for row in shown]
    low = slide.legend(LEFT, slide.line, [(words, kind) for kind, words in looks.items() if kind in fills]) + 0.6 * slide.line
    sizes, names = column(shown, "bytes_per_token"), [_called(row) for row in shown]
    words, bold = [si(size, "B") for size in sizes], [fill == "latent" for fill in fills]
    slide.bars(Box(LEFT, low, RIGHT - LEFT, top - 0.3 - low), sizes, names, fills, words, bold)


def _called(row: dict) -> str:
    """The name of a bar: its attention too, where it is not the model's own or that of MLA."""
    gqa = row["attention"] == "gqa"
    if "model" not in row or row["model"] is None:
        return row["name"] + " (GQA)" * gqa
    return f"{row['model']} with {row['name']}" + (f"-{row['key_value_heads']}" if gqa else "")


def _less(ratio: float) -> str:
    times = max(ratio, 1 / ratio)
    return f"{times:.{0 if times >= 10 else 1}f} times " + ("less" if ratio > 1 else "as much, not less")


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
    finding = f"A card of {card / 1e9:g} GB holds {of['MHA']['fits']:,} tokens of MHA's cache, {of['MLA']['fits']:,} of MLA's"
    top = slide.headed(finding, f"Cache of one text, BF16, weights not counted; GQA with {kv_cache.GQA_GROUPS} groups")
    names = {curve: slide.cut(curve, 17, 1.5) + f"  {si(row['bytes'], 'B')}" for curve, row in of.items()}
    ax = slide.within(Box(LEFT, 0.3, RIGHT - LEFT - 0.2, top - 0.6), "600 GB", names.values(), grid="y", xlabel="tokens read")
    kinds, spare = {"MHA": "muted", "GQA": "hidden", "MQA": "other", "MLA": "latent"}, cycle(SPARE)
    for curve, row in of.items():
        kind, looks = kinds.get(curve) or next(spare), BOLD if curve == "MLA" else THIN
        slide.curve(ax, [0, context], [0, row["bytes"]], names[curve], kind, **looks)
    ax.set(xlim=(0, context), ylim=(0, 1.05 * max(max(row["bytes"] for row in rows), card)))
    ax.set_xticks([context * i / 4 for i in range(5)], [token_count(context * i / 4) if i else "0" for i in range(5)])
    highest = ax.get_ylim()[1]
    ticks = np.arange(0, highest, card * max(1, round(highest / card / 6)))  # whole cards
    ax.set_yticks(ticks, [si(tick, "B") if tick else "0" for tick in ticks])
    slide.level(ax, card)
    for row in rows:
        if row["fits"] < context and row["curve"] in kinds:
            ax.plot([row["fits"]], [card], "o", color=colour("ink"), markersize=11 * slide.scale)
            words = f"one card: full at {row['fits']:,}"
            slide.label(ax, 0.98 * context, 1.05 * card, words, 18, 0, "bottom", ha="right", fontweight="bold")
