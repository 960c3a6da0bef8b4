"""Figure 20: what training costs, in work per token and in dollars."""

from collections.abc import Mapping

from minids.config import ModelConfig
from minids.lab.analysis import cost, flops
from minids.lab.analysis.models import DENSE_MODELS, FAMILY, comparison
from minids.lab.analysis.parameters import activated, total
from minids.lab.figures.picture import Rows, column, only, picture
from minids.lab.figures.slide import LEFT, Slide
from minids.lab.figures.style import colour, ink_on
from minids.lab.figures.words import parameter_count

_SHOWN = ("DeepSeek-V3", "DeepSeek-V2", "Kimi-K2")


def _rows(context: int = 4096, models: Mapping[str, ModelConfig] | None = None) -> Rows:
    """``context``: tokens of a training sequence; ``models``: name → configuration, to stand beside the published ones. Work
    per token, causal attention included; the bill of V3's report."""
    dense = {model.name for model in DENSE_MODELS}
    sizes = [
        (row.name, row.name in dense, row.total, row.activated, row.training_flops)
        for row in comparison(context)
        if row.name in _SHOWN or row.name not in FAMILY
    ]
    for name, c in (models or {}).items():
        moe = any(c.is_moe(layer) for layer in range(c.num_hidden_layers))
        sizes.append((name, not moe, total(c), activated(c), flops.training(c, context)))
    rows: Rows = [
        {"group": "work", "name": name, "dense": dense, "parameters": all_, "active": active}
        | {"gflop_per_token": work / 1e9, "context": context}
        for name, dense, all_, active, work in sorted(sizes, key=lambda size: -size[-1])
    ]
    for phase, hours in cost.V3_GPU_HOURS.items():
        rows.append({"group": "bill", "name": phase, "gpu_hours": hours, "dollars": hours * cost.PRICE})
    return [*rows, {"group": "bill", "name": "together", "gpu_hours": cost.v3_gpu_hours(), "dollars": cost.v3_dollars()}]


@picture(20, _rows)
def training_cost(slide: Slide, rows: Rows) -> None:
    """Floating-point work of one training token for mixtures of experts and for dense models (for Qwen2.5-72B the ISCA paper
    prints 394), and the bill of V3's run.

    Horizontal bars, longest first: Llama-3.1-405B far ahead, then the dense models of about 70 billion parameters, then
    DeepSeek-V3, Kimi-K2 and DeepSeek-V2, although these have up to a trillion parameters in all.
    """
    work, bill = only(rows, group="work"), only(rows, group="bill")[-1]
    v3, largest = only(work, name="DeepSeek-V3")[0], work[0]
    top = slide.title(
        f"{largest['name']} takes {largest['gflop_per_token'] / v3['gflop_per_token']:.1f} times as much work for a training "
        "token as DeepSeek-V3",
        "published sizes, arithmetic",
        f"Forward and backward at {largest['context']} tokens. V3's final run: {bill['gpu_hours'] / 1e6:.3f} million H800 "
        f"hours, ${bill['dollars'] / 1e6:.3f} million",
    )
    values, dense = column(work, "gflop_per_token"), column(work, "dense")
    words = [f"{gflop:,.0f} GFLOP" if gflop >= 10 else f"{gflop:.2g} GFLOP" for gflop in values]
    kinds, bold = ["hidden" if one else "routed" for one in dense], [not one for one in dense]
    low = slide.legend(LEFT, 0.35 * slide.letters, [("dense", "hidden"), ("mixture of experts", "routed")]) + 0.5 * slide.line
    ax = slide.bars(3.55, low, 9.6, top - 0.3 - low, values, column(work, "name"), kinds, words, bold, thick=0.62)
    for place, row in enumerate(work):
        size = parameter_count(row["parameters"]) + (" parameters" if slide.letters <= 1.5 or row["dense"] else "")
        size += "" if row["dense"] else f", {parameter_count(row['active'])} active"
        inside = row is largest
        looks = dict(color=ink_on(colour("hidden")) if inside else colour("muted"))
        behind = 26 + 57.6 * slide.width_of(words[place], 17, bold=True)  # points behind the bar: its number's, and a gap
        slide.label(ax, 0 if inside else values[place], place, size, 17, 10 if inside else behind, "center_baseline", **looks)
