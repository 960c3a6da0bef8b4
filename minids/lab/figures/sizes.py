"""Figures 19 and 20: where the parameters sit, and what training costs, in work per token and in dollars."""

from collections.abc import Mapping

from minids.config import ModelConfig
from minids.lab.analysis import cost, flops
from minids.lab.analysis.models import DENSE_MODELS, FAMILY, comparison
from minids.lab.analysis.parameters import activated, parts, total
from minids.lab.figures.picture import LEFT, RIGHT, Box, Rows, Slide, colour, column, only, parameter_count, picture, tint

_SHOWN = ("DeepSeek-V3", "DeepSeek-V2", "Kimi-K2")
_GROUPS = {  # what the picture calls parts of the main model → their kind, their names
    "routed experts": ("routed", ["routed experts"]),
    "shared experts": ("shared", ["shared experts"]),
    "dense networks": ("hidden", ["dense FFN"]),
    "embedding, head": ("muted", ["embedding", "head"]),
    "router, norms": ("ink", ["router", "routing bias", "block norms", "final norm"]),
    "attention": ("latent", []),  # every other
}


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
    bill = [(phase, hours, hours * cost.PRICE) for phase, hours in cost.V3_GPU_HOURS.items()]
    bill.append(("together", cost.v3_gpu_hours(), cost.v3_dollars()))
    return rows + [{"group": "bill", "name": name, "gpu_hours": hours, "dollars": dollars} for name, hours, dollars in bill]


@picture(20, _rows)
def training_cost(slide: Slide, rows: Rows) -> None:
    """Floating-point work of one training token for mixtures of experts and for dense models (for Qwen2.5-72B the ISCA paper
    prints 394), and the bill of V3's run.

    Horizontal bars, longest first: Llama-3.1-405B far ahead, then the dense models of about 70 billion parameters, then
    DeepSeek-V3, Kimi-K2 and DeepSeek-V2, although these have up to a trillion parameters in all.
    """
    work, bill = only(rows, group="work"), only(rows, group="bill")[-1]
    times = work[0]["gflop_per_token"] / only(work, name="DeepSeek-V3")[0]["gflop_per_token"]
    price = f"{bill['gpu_hours'] / 1e6:.3f} million H800 hours, ${bill['dollars'] / 1e6:.3f} million"
    finding = f"{work[0]['name']} takes {times:.1f} times as much work for a training token as DeepSeek-V3"
    subtitle = f"Forward and backward at {work[0]['context']} tokens. V3's final run: {price}"
    top = slide.title(finding, "published sizes, arithmetic", subtitle)
    values, dense = column(work, "gflop_per_token"), column(work, "dense")
    words = [f"{gflop:,.0f} GFLOP" if gflop >= 10 else f"{gflop:.2g} GFLOP" for gflop in values]
    kinds, bold = ["hidden" if one else "routed" for one in dense], [not one for one in dense]
    low = slide.legend(LEFT, 0.35 * slide.letters, [("dense", "hidden"), ("mixture of experts", "routed")]) + 0.5 * slide.line
    notes = []
    for row in work:
        said = parameter_count(row["parameters"]) + " parameters" * (slide.letters <= 1.5 or row["dense"])
        notes.append(said + ("" if row["dense"] else f", {parameter_count(row['active'])} active"))
    frame = Box(LEFT, low, RIGHT - LEFT, top - 0.3 - low)
    slide.bars(frame, values, column(work, "name"), kinds, words, bold, notes, thick=0.62)


def _rows_sizes(config: ModelConfig | None = None, name: str = "DeepSeek-V3") -> Rows:
    """``config``: the model, V3 by default; ``name``: what it is called. The MTP modules are not counted."""
    config = config or ModelConfig.preset("deepseek-v3")
    group_of = {part: group for group, (_, names) in _GROUPS.items() for part in names}
    sums: dict[str, dict] = {}
    for part in parts(config):
        if not part.name.startswith("MTP"):
            group = group_of.get(part.name, "attention")
            about = {"model": name, "part": group, "kind": _GROUPS[group][0], "parameters": 0, "active": 0}
            row = sums.setdefault(group, about)
            row["parameters"] += part.total
            row["active"] += 0 if part.name == "embedding" else part.activated  # a token reads one row of it
    rows = sorted(sums.values(), key=lambda row: -row["parameters"])
    assert sum(column(rows, "parameters")) == total(config) and sum(column(rows, "active")) == activated(config)
    return rows


@picture(19, _rows_sizes)
def where_parameters_sit(slide: Slide, rows: Rows) -> None:
    """DeepSeek-V3's parameters by part as areas to scale, and in strong colour those at work on one token.

    A wide rectangle is divided into columns as wide as each part's parameters. Almost all of it is routed experts, of which
    only a thin strip at the bottom is strongly coloured; narrow columns at the right, attention, dense networks, shared
    experts and head, are in use from top to bottom; the embedding's and head's to one half.
    """
    whole, active = sum(column(rows, "parameters")), sum(column(rows, "active"))
    share = f"{parameter_count(active)} work on a token: {100 * active / whole:.1f} %"
    finding = f"Of {rows[0]['model']}'s {parameter_count(whole)} parameters, {share}"
    top = slide.headed(finding, "To scale; strong colour: at work on one token (the embedding is a look-up, not counted)")
    # A rectangle whose area is all parameters: columns for parts, the active share at the bottom of each.
    line, name = slide.line, slide.width_of(column(rows, "part"), 17)
    number = slide.width_of([parameter_count(row["parameters"]) for row in rows], 17, True) + 0.35
    x, y, side = 0.6, 0.45, top - 0.75
    wide = RIGHT - 2 * number - name - 0.85 - x
    for row in rows:
        w, share = wide * row["parameters"] / whole, row["active"] / row["parameters"]
        slide.rectangle(x, y, w, side, tint(colour(row["kind"]), 0.3))
        slide.rectangle(x, y, w, side * share, row["kind"])
        if row is rows[0]:
            slide.text(x + w / 2, y + 0.62 * side, row["part"], 24, ha="center", weight="bold")
            slide.text(x + w / 2, y + 0.50 * side, parameter_count(row["parameters"]), 24, ha="center")
            words = f"{100 * share:.1f} % of them, {parameter_count(row['active'])}"
            slide.text(x + w / 2, y + share * side + 0.32, words, 18, ha="center")
        x += w
    # Part, parameters, of which active.
    x, step = x + 0.35, (top - 0.3 - 1.5 * line) / len(rows)
    for right, words in ((RIGHT - number, "in all"), (RIGHT, "active")):
        slide.text(right, top - 0.7 * line, words, 16, "muted", ha="right")
    for i, row in enumerate(rows):
        y = top - 0.2 - 1.3 * line - step * (i + 0.5)
        slide.rectangle(x, y - 0.17, 0.34, 0.34, row["kind"])
        slide.text(x + 0.5, y, row["part"])
        slide.text(RIGHT - number, y, parameter_count(row["parameters"]), 17, "muted", ha="right")
        slide.text(RIGHT, y, parameter_count(row["active"]), ha="right", weight="bold")
