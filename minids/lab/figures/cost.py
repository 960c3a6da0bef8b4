"""Figure 20: what training costs, in work per token and in dollars."""

from __future__ import annotations

from collections.abc import Mapping

from minids.config import ModelConfig
from minids.lab.analysis import cost, flops
from minids.lab.analysis.models import DENSE_MODELS, FAMILY, comparison
from minids.lab.analysis.parameters import activated, total
from minids.lab.figures.picture import Picture, Rows, only
from minids.lab.figures.slide import Slide
from minids.lab.figures.style import colour
from minids.lab.figures.words import parameter_count

_SHOWN = ("DeepSeek-V3", "DeepSeek-V2", "Kimi-K2")


def _rows(context: int = 4096, models: Mapping[str, ModelConfig] | None = None) -> Rows:
    """``context``: tokens of a training sequence; ``models``: name → configuration, to stand beside the published ones. Work
    per token, causal attention included; the bill of V3's report."""
    rows: Rows = []
    for row in comparison(context):
        if row.name in _SHOWN or row.name not in FAMILY:
            rows.append(
                {
                    "group": "work",
                    "name": row.name,
                    "dense": row.name in {m.name for m in DENSE_MODELS},
                    "parameters": row.total,
                    "active": row.activated,
                    "gflop_per_token": row.training_flops / 1e9,
                }
            )
    for name, config in (models or {}).items():
        rows.append(
            {
                "group": "work",
                "name": name,
                "dense": not any(config.is_moe(layer) for layer in range(config.num_hidden_layers)),
                "parameters": total(config),
                "active": activated(config),
                "gflop_per_token": flops.training(config, context) / 1e9,
            }
        )
    for row in rows:
        row["context"] = context
    rows.sort(key=lambda row: -row["gflop_per_token"])
    for phase, hours in cost.V3_GPU_HOURS.items():
        rows.append({"group": "bill", "name": phase, "gpu_hours": hours, "dollars": hours * cost.PRICE})
    rows.append({"group": "bill", "name": "together", "gpu_hours": cost.v3_gpu_hours(), "dollars": cost.v3_dollars()})
    return rows


def _draw(slide: Slide, rows: Rows) -> None:
    work = only(rows, group="work")
    by_name = {row["name"]: row for row in work}
    v3, largest = by_name["DeepSeek-V3"], work[0]
    ratio = largest["gflop_per_token"] / v3["gflop_per_token"]
    bill = only(rows, group="bill")[-1]
    top = slide.title(
        f"A training token costs DeepSeek-V3 {ratio:.1f} times less work than {largest['name']}",
        f"Forward and backward at {largest['context']} tokens. V3's final run: {bill['gpu_hours'] / 1e6:.3f} million H800 "
        f"hours, ${bill['dollars'] / 1e6:.3f} million",
    )
    ax = slide.plot(3.55, 0.45, 9.6, top - 0.75)
    places = range(len(work), 0, -1)
    values = [row["gflop_per_token"] for row in work]
    ax.barh(places, values, height=0.62, color=[colour("hidden" if row["dense"] else "routed") for row in work])
    ax.set(xlim=(0, max(values)), ylim=(0.4, len(work) + 0.6), xticks=[])
    ax.set_yticks(list(places), [row["name"] for row in work])
    ax.tick_params(axis="y", length=0, labelsize=17 * slide.scale)
    for side in ("bottom", "left"):
        ax.spines[side].set_visible(False)
    for place, row in zip(places, work, strict=True):
        gflop = row["gflop_per_token"]
        words = f"{gflop:,.0f} GFLOP" if gflop >= 10 else f"{gflop:.2g} GFLOP"
        slide.label(ax, gflop, place, words, 18, va="center_baseline", fontweight="normal" if row["dense"] else "bold")
        size = f"{parameter_count(row['parameters'])} parameters"
        if not row["dense"]:
            size += f", {parameter_count(row['active'])} active"
        if row is largest:
            slide.label(ax, 0, place, size, 17, 10, "center_baseline", color="#101010")
        else:
            slide.label(ax, gflop, place, size, 17, 150, "center_baseline", color=colour("muted"))
    slide.legend(11.6, 4.6, [("mixture of experts", "routed")])
    slide.legend(11.6, 5.1, [("dense", "hidden")])


training_cost = Picture(
    20,
    "training_cost",
    "Floating-point work of one training token for mixtures of experts of DeepSeek's kind and for dense models, and the bill "
    "of V3's run.",
    "Horizontal bars, longest first: Llama-3.1-405B far ahead, then the dense models of about 70 billion parameters, then "
    "DeepSeek-V3, Kimi-K2 and DeepSeek-V2, although these have up to a trillion parameters in all.",
    _rows,
    _draw,
)
