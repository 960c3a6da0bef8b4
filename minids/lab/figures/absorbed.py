"""Figure 5: absorption: the same product with its brackets moved, and what that does to the work of a token."""

from minids.config import ModelConfig
from minids.errors import refuse
from minids.lab.analysis import flops
from minids.lab.figures.picture import Rows, column, only, picture
from minids.lab.figures.slide import LEFT, Box, Slide
from minids.lab.figures.words import token_count
from minids.words import si

WAYS = {"re-expand": "expanded", "absorbed": "absorbed"}


def _rows(config: ModelConfig | None = None, name: str = "DeepSeek-V3", context: int = 8192, points: int = 33) -> Rows:
    """``config``: a model with MLA, V3 by default, and ``name``: what it is called; work of one token behind up to ``context``
    cached ones, all layers, in floating-point operations."""
    c = config or ModelConfig.preset("deepseek-v3")
    if c.attention != "mla":
        raise refuse("attention", c.attention, "has no latent to absorb; give a configuration with MLA")
    sizes = {"model": name, "d_nope": c.qk_nope_head_dim, "d_c": c.kv_lora_rank, "heads": c.num_attention_heads}
    return [
        sizes | {"way": way, "context": at, "flops": float(flops.decode(c, at, mode).flops)}
        for mode, way in WAYS.items()
        for at in (1 + round((context - 1) * i / (points - 1)) for i in range(points))
    ]


@picture(5, _rows)
def absorption(slide: Slide, rows: Rows) -> None:
    """Absorption: the query times the up-projection first, and the work of one token against the number of tokens before
    it.

    Left, twice the same three blocks, query, up-projection and cached latents; above a bracket joins the projection with
    the latents, below it joins the query with the projection. Right, work per token against the tokens before it, on linear
    axes: the expanding way rises steeply, absorption stays near the floor.
    """
    longest = max(column(rows, "context"))
    at = {row["way"]: row["flops"] for row in only(rows, context=longest)}
    top = slide.title(
        f"With the bracket moved, a token behind {token_count(longest)} others takes "
        f"{at['expanded'] / at['absorbed']:.0f} times less work",
        f"{rows[0]['model']}, arithmetic",
        "The keys are never made again: the query goes to the latents. Values are treated alike",
    )
    left, frame = slide.parts(0.3, top - 0.1, *((1.3, 1) if slide.tall else (4, 3)))
    _algebra(slide, rows[0], left)
    names = {way: f"{way}\n{si(value, 'FLOP')}" for way, value in at.items()}
    said = [words for name in names.values() for words in name.split("\n")]
    ax = slide.within(frame, "15", said, "TFLOP a token", grid="y", xlabel="tokens before it")
    for way, kind, width, weight in (("expanded", "muted", 4, "normal"), ("absorbed", "latent", 6, "bold")):
        mine = only(rows, way=way)
        work = [value / 1e12 for value in column(mine, "flops")]
        slide.curve(ax, column(mine, "context"), work, names[way], kind, width, fontweight=weight, linespacing=1.3)
    ax.set(xlim=(0, longest), ylim=(0, None))
    ax.set_xticks([0, longest / 2, longest], ["0", token_count(longest / 2), token_count(longest)])
    ax.locator_params(axis="y", nbins=4)


def _algebra(slide: Slide, sizes: dict, frame: Box) -> None:
    """Twice the product q · W · C, with the bracket here and there; widths and heights of q and W in one scale."""
    head, latent, height, line = sizes["d_nope"], sizes["d_c"], frame.h / 2, slide.line
    top, stretch = frame.y + frame.h, frame.w / 8.3
    spare = height - 1.5 * line - 0.25
    brief = spare - 2.9 * line < 1.2  # large letters on a flat slide: the blocks alone
    unit = min(1.68 * stretch, spare if brief else spare - 2.9 * line) / latent
    pieces = [
        (0.8, max(head * unit + 0.35, 0.55 * slide.letters), 0.4 * slide.letters, "q", "query", f"1 × {head}"),
        (2.15 * stretch, latent * unit, head * unit + 0.3, "Wᵁᴷ", "hidden", f"{head} × {latent}"),
        (4.4 * stretch, 2.75 * stretch, latent * unit * 0.72, "C, cached", "latent", f"{latent} × T"),  # the text is long
    ]
    expanded = ("expanded: keys first", 1, f"T keys of {head} for each of {sizes['heads']} heads")
    absorbed = ("absorbed: query first", 0, f"one query of {latent} for each head")
    for i, (heading, first, made) in enumerate((expanded, absorbed)):
        y = top - height * (i + 1)
        middle = y + height - 1.3 * line - 0.12 - latent * unit / 2
        slide.text(LEFT, y + height - 0.75 * line, heading, 19, weight="bold")
        blocks, low = [], middle - latent * unit / 2 - 0.05
        for x, w, h, name, kind, shape in pieces:
            blocks.append(slide.box(x, middle - h / 2, w, h, name, kind, 16 if kind == "query" else 18, round=0.05))
            if not brief:
                slide.text(x + w / 2, low - 0.55 * line, shape, 16, "muted", ha="center")
        side = 0.43 * latent * unit
        for x, turn in ((blocks[first].x - 0.2, 0.14), (blocks[first + 1].behind[0] + 0.2, -0.14)):
            corners = [(x + turn, middle + side), (x, middle + side), (x, middle - side), (x + turn, middle - side)]
            slide.arrow(*corners, kind="ink", head=False, width=3)
        if not brief:
            slide.text(LEFT, low - 1.75 * line, "made: " + made)
