"""Figure 7: how much text the cache of one graphics card holds, with MHA and with MLA; as a film, two caches read one text."""

import math

import numpy as np

from minids.config import ModelConfig
from minids.lab.analysis import kv_cache
from minids.lab.figures.film import Film
from minids.lab.figures.picture import Rows, picture
from minids.lab.figures.slide import LEFT, RIGHT, Box, Slide
from minids.lab.figures.words import byte_count, token_count

PAGE = 500  # tokens of a printed page
CARD = 80e9  # bytes of an H800's memory
DOTS = 64  # of one token's numbers, one below the other


def _rows(config: ModelConfig | None = None, name: str = "DeepSeek-V3", card: float = CARD, page: int = PAGE,
          context: int = 1 << 17) -> Rows:  # fmt: skip
    """``config``: whose heads the kinds of attention share, V3 by default, and ``name``: what it is called; ``card``: bytes of
    its memory; ``page``: tokens of a page; ``context``: tokens at which the film ends. Weights are not counted."""
    config = config or ModelConfig.preset("deepseek-v3")
    rows: Rows = []
    for kind, elements in kv_cache.by_kind(config).items():
        each = kv_cache.bytes_of(elements * config.num_hidden_layers)
        rows.append(
            {"model": name, "attention": kind.upper(), "numbers_per_token_and_layer": elements, "bytes_per_token": each}
            | {"card_bytes": card, "tokens": int(card // each), "page_tokens": page, "pages": card / each / page}
            | {"groups": elements // kv_cache.mqa_elements(config) if kind == "gqa" else 0, "context": context}
        )
    return rows


def _both(rows: Rows) -> tuple[dict, dict]:
    by_kind = {row["attention"]: row for row in rows}
    return by_kind["MHA"], by_kind["MLA"]


def _pages(slide: Slide, card: Box, pages: float, kind: str) -> None:
    """An outline of the card, full of pages of equal size; large ones have lines of text."""
    slide.box(*card, fill="panel", edge="ink", round=0.15)
    inside = Box(card.x + 0.12, card.y + 0.12, card.w - 0.24, card.h - 0.24)
    count = max(1, round(pages))
    down = min(range(1, count + 1), key=lambda n: abs(math.log(inside.w / math.ceil(count / n) / (inside.h / n) / 0.75)))
    across = math.ceil(count / down)
    w, h = inside.w / across, inside.h / down
    gap = 0.1 * min(w, h) if w > 0.25 else 0.16 * w
    places = [
        Box(inside.x + w * (i % across) + gap, inside.y + inside.h - h * (1 + i // across) + gap, w - 2 * gap, h - 2 * gap)
        for i in range(count)
    ]
    slide.many(places, [kind] * count)
    if w > 0.25:
        text = [
            Box(p.x + 0.16 * p.w, p.y + p.h * (0.2 + 0.15 * i), p.w * (0.68 if i else 0.4), 0.045 * p.h)
            for p in places
            for i in range(5)
        ]
        slide.many(text, ["panel"] * len(text))


def _numbers(slide: Slide, both: tuple[dict, dict], y: float, high: float, line: float) -> None:
    """As many dots as numbers are cached for one token in one layer, ``DOTS`` of them one below the other."""
    mha, mla = (row["numbers_per_token_and_layer"] for row in both)
    columns = [math.ceil(n / DOTS) for n in (mha, mla)]
    last = slide.width_of(f"{mla:,}", 18, bold=True)
    pitch = min((RIGHT - LEFT - 0.3 - max(last, 0.5)) / columns[0], high / DOTS * 1.6)
    top = y + high
    for n, count, kind in ((mha, columns[0], "muted"), (mla, columns[1], "latent")):
        wide = count * pitch
        x = LEFT if kind == "muted" else RIGHT - wide
        slide.texture(Box(x, y, wide, high), (np.arange(count * DOTS) < n).reshape(count, DOTS).T, kind)
        ha, at = ("left", x) if kind == "muted" else ("right", RIGHT)
        slide.text(at, top + 0.62 * line, f"{n:,}", 18, weight="bold", ha=ha)
    words = "numbers for one token in one layer, a dot each"
    slide.text(LEFT + slide.width_of(f"{mha:,}", 18, bold=True) + 0.25, top + 0.62 * line, words, 16, "muted")


def _moments(rows: Rows) -> list[tuple[int, int]]:
    """Tokens read and milliseconds: on to where MHA's card is full, a pause, and on to the whole context."""
    full, end = _both(rows)[0]["tokens"], rows[0]["context"]
    first, last = np.linspace(0, min(full, end), 36).astype(int).tolist(), np.linspace(full, end, 41).astype(int).tolist()
    if full >= end:
        return [(tokens, 110) for tokens in first[:-1]] + [(end, 3000)]
    return [(t, 110) for t in first[:-1]] + [(full, 1700), *((t, 110) for t in last[1:-1]), (end, 3000)]


def _draw_moment(slide: Slide, rows: Rows, tokens: int) -> None:
    mha, mla = _both(rows)
    end, card = mha["context"], mha["card_bytes"]
    cards = [max(1, math.ceil(end * row["bytes_per_token"] / card)) for row in (mha, mla)]
    ratio = mha["bytes_per_token"] / mla["bytes_per_token"]
    top = slide.title(
        f"One text of {token_count(end)} tokens: {cards[0]} cards or {cards[1]}",
        f"{mha['model']}, arithmetic",
        f"Both caches read the same tokens; each outline is a card of {card / 1e9:g} GB",
    )
    line, big = slide.line, 1 / max(1, slide.letters)  # headings do not grow with the letters
    shown = min(sum(cards), 14)
    step = (RIGHT - LEFT - 0.9) / shown
    low, high = 0.3 + 3.4 * line, top - 0.7 - 6 * line
    slide.text(LEFT, top - 1.1 * line, f"{tokens:,} tokens", 34 * big, weight="bold")
    if tokens == end:
        slide.text(RIGHT, top - 1.1 * line, f"{ratio:.0f} times less with MLA", 34 * big, weight="bold", ha="right")
    for row, count, kind in ((mha, cards[0], "muted"), (mla, cards[1], "latent")):
        at, ha = (LEFT, "left") if row is mha else (RIGHT, "right")
        held, first = tokens * row["bytes_per_token"], LEFT if row is mha else RIGHT + 0.22 - count * step
        for i in range(min(count, shown - 1)):
            place, fill = Box(first + i * step, low, step - 0.22, high), min(max(held / card - i, 0.0), 1.0)
            if i and not fill:
                continue  # the next card comes when it is needed
            full = fill > 0.9999
            slide.box(*place, fill="panel", edge="ink" if full else "muted", round=0.08)
            slide.rectangle(place.x + 0.05, place.y + 0.05, place.w - 0.1, fill * (place.h - 0.1), kind)
            if full:
                slide.text(place.middle[0], place.y + place.h - 0.5, "full", 22 * big, "background", ha="center", weight="bold")
        over = f"{byte_count(held)} on {math.ceil(held / card)} cards"
        words = over if held > card else f"{byte_count(held)}, {100 * held / card:.1f} % of a card"
        slide.text(at, low - 1.2 * line, row["attention"], 28 * big, ha=ha, weight="bold")
        slide.text(at, low - 2.6 * line, words, 22 * big, ha=ha)


@picture(7, _rows, film=Film(_moments, _draw_moment))
def one_card(slide: Slide, rows: Rows) -> None:
    """How many pages of text one graphics card's cache holds with multi-head attention and with MLA, and the numbers cached
    for one token in one layer.

    Two equal outlines of one card's memory. The left one, multi-head attention, is full with forty large pages; the right
    one, multi-head latent attention, is a fine texture of more than two thousand. Below, a wide field of 32,768 dots, the
    numbers of one token in one layer, beside a narrow strip of 576. The film fills both memories with one text: the left is
    full at 20,011 tokens and needs seven cards in the end, the right never fills one.
    """
    both = mha, mla = _both(rows)
    top = slide.title(
        f"One {mha['card_bytes'] / 1e9:g} GB card: {mha['pages']:,.0f} pages or {mla['pages']:,.0f}",
        f"{mha['model']}, arithmetic",
        f"What its cache can hold, at {mha['page_tokens']} tokens a page, in BF16, without the weights",
    )
    line = slide.line
    told = [
        row["attention"] + (f" with {row['groups']} groups" if row["groups"] else "") + f": {row['pages']:,.0f} pages"
        for row in rows
        if row not in both
    ]
    numbers, each = mha["numbers_per_token_and_layer"], mha["bytes_per_token"]
    foot = slide.note(f"{'; '.join(told)}. MHA's {numbers:,} numbers in all layers: {each:,} bytes a token")
    dots = min(1.6, 0.18 * slide.h)
    low = foot + dots + 2.3 * line  # under the cards: the numbers of a token
    wide, high = (RIGHT - LEFT - 0.5) / 2, top - low - 2.2 * line
    for i, (row, kind) in enumerate(zip(both, ("muted", "latent"), strict=True)):
        if i:
            slide.step("MLA")
        card = Box(LEFT + i * (wide + 0.5), low, wide, high)
        _pages(slide, card, row["pages"], kind)
        y = low + high + line
        size = 30 / max(1, slide.letters)
        slide.text(card.x, y, row["attention"], size, weight="bold", va="center_baseline")
        slide.text(card.x + card.w, y, f"{row['pages']:,.0f} pages", size, weight="bold", ha="right", va="center_baseline")
    slide.step("one token")
    _numbers(slide, both, foot + 0.05, dots, line)
