"""Figure 5: absorption: the same product with its brackets moved, and what that does to the time of a token."""

from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from minids.config import ModelConfig
from minids.inference.decoder import Decoder
from minids.lab.bench.decode import filled
from minids.lab.bench.sizes import B
from minids.lab.bench.timing import alternate, median
from minids.lab.figures.picture import Picture, Rows, column, distinct, only
from minids.lab.figures.slide import LEFT, Slide
from minids.lab.figures.style import colour
from minids.lab.figures.words import token_count
from minids.model import DeepSeekV3
from minids.words import si

CONTEXTS = (128, 256, 512, 1024, 2048, 4096, 8192)


def _rows(config: ModelConfig = B, contexts: tuple[int, ...] = CONTEXTS, rounds: int = 7) -> Rows:
    """Measures on this machine, one thread: ``config``: the model (random weights do, by default the larger of the bench's),
    one token decoded after ``contexts`` tokens, median of ``rounds`` rounds in which all ways take turns."""
    v3 = ModelConfig.preset("deepseek-v3")
    config = config.replace(max_position_embeddings=max(contexts) + 1)
    model = DeepSeekV3(config, 0)
    sizes = {"d_nope": v3.qk_nope_head_dim, "d_c": v3.kv_lora_rank, "heads": v3.num_attention_heads}
    rows: Rows = [{"group": "algebra", **sizes, "parameters_measured": model.parameters.values.size}]
    model.rotary(max(contexts) + 1)
    for context in contexts:
        decoders = {"absorbed": Decoder(model), "expanded": Decoder(model, absorb=False), "full": Decoder(model, "full")}
        ways = {way: partial(_step, filled(decoder, context), context) for way, decoder in decoders.items()}
        with threadpool_limits(1, user_api="blas"):
            seconds = alternate(ways, rounds)
        for way, times in seconds.items():
            found = {"milliseconds": 1e3 * median(times), "cache_bytes": decoders[way].cache.nbytes}
            rows.append({"group": "time", "way": way, "context": context} | found)
    return rows


def _step(decoder: Decoder, context: int) -> None:
    decoder.read(np.array([[1]]))
    decoder.rewind(context)


def _draw(slide: Slide, rows: Rows) -> None:
    times, sizes = only(rows, group="time"), only(rows, group="algebra")[0]
    longest = max(row["context"] for row in times)
    at = {row["way"]: row["milliseconds"] for row in only(times, context=longest)}
    ratio = at["expanded"] / at["absorbed"]
    top = slide.title(
        f"Moving a bracket, and compiling what is left, makes a token at {token_count(longest)} context {ratio:.1f} times "
        "faster",
        f"times: {si(sizes['parameters_measured'])} random weights",
        "shapes: DeepSeek-V3. One thread; the absorbed step is compiled as a whole, the others go through the layers",
    )
    _algebra(slide, sizes, top)
    ax = slide.plot(9.0, 1.2, 4.75, top - 1.65, grid="y", xscale="log", yscale="log", xlabel="context, tokens")
    ax.set_ylabel("ms per token")
    ends = []
    for way, kind in (("expanded", "muted"), ("absorbed", "latent"), ("full", "other")):
        mine, bold, words = only(times, way=way), way == "absorbed", "full cache" if way == "full" else way
        xs, ys = column(mine, "context"), column(mine, "milliseconds")
        ax.plot(xs, ys, "o-", color=colour(kind), linewidth=(5 if bold else 3) * slide.scale, markersize=6 * slide.scale)
        ends.append((xs[-1], ys[-1], words, {"fontweight": "bold" if bold else "normal"}))
    contexts = distinct(times, "context")
    ax.minorticks_off()
    ax.set_xticks(contexts[::2], [token_count(c) if c >= 1024 else str(c) for c in contexts[::2]])
    low, high = ax.get_ylim()
    ticks = [t for e in range(-3, 5) for t in (1 * 10.0**e, 3 * 10.0**e) if low <= t <= high]
    ax.set_yticks(ticks, [f"{t:g}" for t in ticks])
    slide.end_labels(ax, ends, 16)


def _algebra(slide: Slide, sizes: dict, top: float) -> None:
    """Twice the product q · W · C, with the bracket here and there; widths and heights of q and W in one scale."""
    head, latent, height = sizes["d_nope"], sizes["d_c"], (top - 0.3) / 2
    unit = 1.68 / latent
    pieces = [
        (0.8, head * unit + 0.35, 0.3, "q", "query", f"1 × {head}"),
        (2.15, latent * unit, head * unit + 0.3, "Wᵁᴷ", "hidden", f"{head} × {latent}"),
        (4.4, 2.75, latent * unit * 0.72, "C, cached", "latent", f"{latent} × T"),  # the text is long
    ]
    expanded = ("expanded: keys first", 1, f"T keys of {head} for each of {sizes['heads']} heads")
    absorbed = ("absorbed: query first", 0, f"one query of {latent} for each head")
    for i, (heading, first, made) in enumerate((expanded, absorbed)):
        y = top - height * (i + 1) + 0.2
        middle = y + height / 2 - 0.2
        slide.text(LEFT, y + height - 0.55, heading, 19, weight="bold")
        blocks = []
        for x, w, h, name, kind, shape in pieces:
            blocks.append(slide.box(x, middle - h / 2, w, h, name, kind, 16 if kind == "query" else 18, round=0.05))
            slide.text(x + w / 2, middle - 0.93, shape, 16, "muted", ha="center")
        for x, turn in ((blocks[first].x - 0.2, 0.14), (blocks[first + 1].behind[0] + 0.2, -0.14)):
            corners = [(x + turn, middle + 0.72), (x, middle + 0.72), (x, middle - 0.72), (x + turn, middle - 0.72)]
            slide.arrow(*corners, kind="ink", head=False, width=3)
        slide.text(LEFT, y + 0.08, "made: " + made)


absorption = Picture(
    5,
    "absorption",
    "Absorption: the query times the up-projection first, and the measured time of one token against the context it follows.",
    "Left, twice the same three blocks, query, up-projection and cached latents; above a bracket joins the projection with "
    "the latents, below it joins the query with the projection. Right, time per token against context for both and for a "
    "full cache: the expanding way rises steeply, absorption stays low.",
    _rows,
    _draw,
    source="measurement",
)
