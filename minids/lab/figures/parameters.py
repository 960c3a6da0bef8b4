"""Figure 19: where the parameters sit, and which of them work on one token."""

from minids.config import ModelConfig
from minids.lab.analysis.parameters import activated, parts, total
from minids.lab.figures.picture import Rows, column, picture
from minids.lab.figures.slide import RIGHT, Slide
from minids.lab.figures.style import colour, tint
from minids.lab.figures.words import parameter_count, percent

_GROUPS = {
    "routed experts": ("routed experts", "routed"),
    "shared experts": ("shared experts", "shared"),
    "dense FFN": ("dense networks", "hidden"),
    "embedding": ("embedding, head", "muted"),
    "head": ("embedding, head", "muted"),
    "router": ("router, norms", "ink"),
    "routing bias": ("router, norms", "ink"),
    "block norms": ("router, norms", "ink"),
    "final norm": ("router, norms", "ink"),
}
_ATTENTION = ("attention", "latent")  # every other part of the main model


def _rows(config: ModelConfig | None = None, name: str = "DeepSeek-V3") -> Rows:
    """``config``: the model, V3 by default; ``name``: what it is called. The MTP modules are not counted."""
    config = config or ModelConfig.preset("deepseek-v3")
    sums: dict[str, list] = {}
    for part in parts(config):
        if part.name.startswith("MTP"):
            continue
        group, kind = _GROUPS.get(part.name, _ATTENTION)
        entry = sums.setdefault(group, [kind, 0, 0])
        entry[1] += part.total
        entry[2] += 0 if part.name == "embedding" else part.activated  # a token reads one row of it
    rows = [{"model": name, "part": group, "kind": k, "parameters": n, "active": a} for group, (k, n, a) in sums.items()]
    rows.sort(key=lambda row: -row["parameters"])
    assert sum(column(rows, "parameters")) == total(config) and sum(column(rows, "active")) == activated(config)
    return rows


@picture(19, _rows)
def where_parameters_sit(slide: Slide, rows: Rows) -> None:
    """DeepSeek-V3's parameters by part as areas to scale, and in strong colour those at work on one token.

    A wide rectangle is divided into columns as wide as each part's parameters. Almost all of it is routed experts, of which
    only a thin strip at the bottom is strongly coloured; narrow columns at the right, attention, dense networks, shared
    experts and head, are in use from top to bottom; the embedding's and head's to one half.
    """
    whole, active = sum(column(rows, "parameters")), sum(column(rows, "active"))
    top = slide.title(
        f"Of {rows[0]['model']}'s {parameter_count(whole)} parameters, {parameter_count(active)} work on a token: "
        f"{percent(active / whole, 1)}",
        f"{rows[0]['model']}, arithmetic",
        "To scale; strong colour: at work on one token (the embedding is a look-up, not counted)",
    )
    # A rectangle whose area is all parameters: columns for parts, the active share at the bottom of each.
    line, names = slide.line, [slide.width_of(slide.language.say(row["part"]), 17) for row in rows]
    x, y, wide, side = 0.6, 0.45, min(10.2, RIGHT - 1.5 - max(*names, 4.2 * slide.letters)), top - 0.75
    for row in rows:
        w, share = wide * row["parameters"] / whole, row["active"] / row["parameters"]
        slide.rectangle(x, y, w, side, tint(colour(row["kind"]), 0.3))
        slide.rectangle(x, y, w, side * share, row["kind"])
        if row is rows[0]:
            slide.text(x + w / 2, y + 0.62 * side, row["part"], 24, ha="center", weight="bold")
            slide.text(x + w / 2, y + 0.50 * side, parameter_count(row["parameters"]), 24, ha="center")
            words = f"{percent(share, 1)} of them, {parameter_count(row['active'])}"
            slide.text(x + w / 2, y + share * side + 0.32, words, 18, ha="center")
        x += w
    # Part, parameters, of which active.
    x, step, middle = x + 0.35, (top - 0.3 - 1.5 * line) / len(rows), RIGHT - 1.9 * slide.letters
    slide.text(middle, top - 0.7 * line, "in all", 16, "muted", ha="right")
    slide.text(RIGHT, top - 0.7 * line, "active", 16, "muted", ha="right")
    size = min(17, 40 * step / slide.letters)  # two lines of words to a step
    for i, row in enumerate(rows):
        y = top - 0.2 - 1.3 * line - step * i
        slide.rectangle(x, y - 0.28 * step - 0.17, 0.34, 0.34, row["kind"])
        slide.text(x + 0.5, y - 0.28 * step, row["part"], size)
        slide.text(middle, y - 0.7 * step, parameter_count(row["parameters"]), size, "muted", ha="right")
        slide.text(RIGHT, y - 0.7 * step, parameter_count(row["active"]), size, ha="right", weight="bold")
