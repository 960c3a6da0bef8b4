"""Figure 5: absorption: the same product with its brackets moved, and what that does to the time of a token."""

from __future__ import annotations

import numpy as np
from threadpoolctl import threadpool_limits

from minids.config import ModelConfig
from minids.inference.decoder import Decoder
from minids.lab.bench.decode import filled
from minids.lab.bench.sizes import B
from minids.lab.bench.timing import alternate, median
from minids.lab.figures.picture import Picture, Rows, distinct, only
from minids.lab.figures.slide import Slide
from minids.lab.figures.style import colour, ink_on
from minids.lab.figures.words import token_count
from minids.model import DeepSeekV3

WAYS = {"absorbed": "latent cache, absorbed", "expanded": "latent cache, expanded", "full": "full cache"}
CONTEXTS = (128, 256, 512, 1024, 2048, 4096, 8192)


def _rows(config: ModelConfig = B, contexts: tuple[int, ...] = CONTEXTS, rounds: int = 7) -> Rows:
    """Measures on this machine, one thread: ``config``: the model (random weights do, by default the larger of the bench's),
    one token decoded after ``contexts`` tokens, median of ``rounds`` rounds in which all ways take turns."""
    v3 = ModelConfig.preset("deepseek-v3")
    config = config.replace(max_position_embeddings=max(contexts) + 1)
    model = DeepSeekV3(config, 0)
    rows: Rows = [
        {
            "group": "algebra",
            "d_nope": v3.qk_nope_head_dim,
            "d_c": v3.kv_lora_rank,
            "heads": v3.num_attention_heads,
        }
    ]
    model.rotary(max(contexts) + 1)
    for context in contexts:
        decoders = {
            "absorbed": Decoder(model, "latent"),
            "expanded": Decoder(model, "latent", absorb=False),
            "full": Decoder(model, "full"),
        }

        def step(decoder: Decoder, context: int) -> None:
            decoder.read(np.array([[1]]))
            decoder.rewind(context)

        ways = {}
        for way, decoder in decoders.items():
            filled(decoder, context)
            ways[way] = lambda decoder=decoder, context=context: step(decoder, context)
        with threadpool_limits(1, user_api="blas"):
            seconds = alternate(ways, rounds)
        for way, times in seconds.items():
            nbytes = decoders[way].cache.nbytes
            rows.append(
                {"group": "time", "way": way, "context": context, "milliseconds": 1e3 * median(times), "cache_bytes": nbytes}
            )
    return rows


def _draw(slide: Slide, rows: Rows) -> None:
    times = only(rows, group="time")
    longest = max(row["context"] for row in times)
    at = {row["way"]: row["milliseconds"] for row in only(times, context=longest)}
    ratio = at["expanded"] / at["absorbed"]
    top = slide.title(
        f"Moving a bracket, and compiling what is left, makes a token at {token_count(longest)} context {ratio:.1f} times "
        "faster",
        "Measured, one thread: the absorbed step is compiled as a whole, the others go through the layers",
    )
    _algebra(slide, only(rows, group="algebra")[0], top)
    ax = slide.plot(9.0, 1.2, 4.75, top - 1.65, grid="y", xscale="log", yscale="log", xlabel="context, tokens")
    ax.set_ylabel("ms per token")
    for way, kind, words in (
        ("expanded", "other1", "expanded"),
        ("absorbed", "latent", "absorbed"),
        ("full", "other3", "full cache"),
    ):
        mine = only(times, way=way)
        xs, ys = [row["context"] for row in mine], [row["milliseconds"] for row in mine]
        ax.plot(
            xs,
            ys,
            "o-",
            color=colour(kind),
            linewidth=(5 if way == "absorbed" else 3) * slide.scale,
            markersize=6 * slide.scale,
        )
        slide.label(ax, xs[-1], ys[-1], words, gap=10, fontweight="bold" if way == "absorbed" else "normal")
    contexts = distinct(times, "context")
    ax.minorticks_off()
    ax.set_xticks(contexts[::2], [token_count(c) if c >= 1024 else str(c) for c in contexts[::2]])
    low, high = ax.get_ylim()
    ticks = [t for e in range(-3, 5) for t in (1 * 10.0**e, 3 * 10.0**e) if low <= t <= high]
    ax.set_yticks(ticks, [f"{t:g}" for t in ticks])


def _algebra(slide: Slide, sizes: dict, top: float) -> None:
    """Twice the product q · W · C, with the bracket here and there."""
    head, latent = sizes["d_nope"], sizes["d_c"]
    height = (top - 0.3) / 2
    for i, (heading, bracket, made) in enumerate(
        (
            ("expanded: keys first", (1, 2), f"T keys of {head} for each of {sizes['heads']} heads"),
            ("absorbed: query first", (0, 1), f"one query of {latent} for each head"),
        )
    ):
        y = top - height * (i + 1) + 0.2
        slide.text(0.55, y + height - 0.55, heading, 19, weight="bold")
        middle = y + height / 2 - 0.2
        # widths and heights in one scale: 128 is 0.42, 512 is 1.68; the text is long
        unit = 1.68 / latent
        pieces = [
            (0.8, head * unit + 0.35, 0.3, "q", "query", f"1 × {head}"),
            (2.15, latent * unit, head * unit + 0.3, "Wᵁᴷ", "hidden", f"{head} × {latent}"),
            (4.4, 2.75, latent * unit * 0.72, "C, cached", "latent", f"{latent} × T"),
        ]
        for x, w, h, name, kind, shape in pieces:
            slide.box(x, middle - h / 2, w, h, "", kind, round=0.05)
            slide.text(x + w / 2, middle, name, 18 if kind != "query" else 16, ink_on(colour(kind)), ha="center")
            slide.text(x + w / 2, middle - 0.93, shape, 16, "muted", ha="center")
        left, right = pieces[bracket[0]][0] - 0.2, pieces[bracket[1]][0] + pieces[bracket[1]][1] + 0.2
        for x in (left, right):
            turn = 0.14 if x == left else -0.14
            slide.arrow(
                (x + turn, middle + 0.72),
                (x, middle + 0.72),
                (x, middle - 0.72),
                (x + turn, middle - 0.72),
                kind="ink",
                head=False,
                width=3,
            )
        slide.text(0.55, y + 0.08, "made: " + made, 17, "ink")


absorption = Picture(
    5,
    "absorption",
    "Absorption: the query times the up-projection first, and the measured time of one token against the context it follows.",
    "Left, twice the same three blocks, query, up-projection and cached latents; above a bracket joins the projection with "
    "the latents, "
    "below it joins the query with the projection. Right, time per token against context for both and for a full cache: the "
    "expanding way rises steeply, absorption stays low.",
    _rows,
    _draw,
    source="measurement",
)
