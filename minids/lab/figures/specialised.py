"""Figure 26: experts by domain with an auxiliary loss in each sequence and with V3's bias, side by side (as V3's figure 9)."""

import numpy as np

from minids.config import ModelConfig
from minids.lab.analysis.parameters import total
from minids.lab.figures.picture import Picture, Rows, distinct, only
from minids.lab.figures.run_curves import domain_colours
from minids.lab.figures.slide import LEFT, RIGHT, Slide
from minids.lab.figures.style import diverging
from minids.lab.studies import results
from minids.words import si

PAIR = {"sequence loss 0.1": "loss in each sequence", "bias 0.003": "V3's bias"}
"""Arms of the balance study, each the even load of its kind, and what the picture calls them."""


def _rows(found: dict | None = None, pair: dict[str, str] = PAIR) -> Rows:
    """``found``: results of the balance study, by default those kept with the package; ``pair``: arm → its name here. Loads are
    those of the first seed, in even shares; what an expert tells of the domain, in bits, is the mean over all."""
    found = found or results("balance")
    about = f"{si(total(ModelConfig(**found['common']['model'])))} parameters"
    rows: Rows = []
    for arm, name in pair.items():
        held = found["arms"][arm]
        summary = {key: held["summary"][key]["mean"] for key in ("specialisation", "max_vio", "loss")}
        for domain, layers in held["details"]["relative_load"].items():
            rows += [
                {
                    "model": about,
                    "arm": arm,
                    "strategy": name,
                    "domain": domain,
                    "layer": layer,
                    "expert": e,
                    "times_even": load,
                }
                | summary
                | {"seeds": len(found["seeds"])}
                for layer, loads in enumerate(layers)
                for e, load in enumerate(loads)
            ]
    return rows


def _draw(slide: Slide, rows: Rows) -> None:
    names, domains, layers = (distinct(rows, key) for key in ("strategy", "domain", "layer"))
    bits = {name: only(rows, strategy=name)[0]["specialisation"] for name in names}
    plain, ours = names[0], names[-1]
    top = slide.title(
        f"With {ours} an expert tells {bits[ours] / bits[plain]:.0f} times as much about the domain as with a {plain}",
        f"two models of {rows[0]['model']}",
        f"{bits[ours]:.3f} and {bits[plain]:.3f} bits of {np.log2(len(domains)):.2f}, mean of {rows[0]['seeds']} seeds; "
        "maps: the first",
    )
    line = slide.line
    shades = domain_colours(domains)
    margin = max(slide.width_of(slide.language.say(d), 17) for d in domains) + 0.2
    wide = (RIGHT - LEFT - margin - 0.5) / 2
    even = ", ".join(f"{only(rows, strategy=name)[0]['max_vio']:.2f}" for name in names)
    foot = slide.note(
        f"Full red: four even shares, full blue: a quarter. Both keep the load even over all text (MaxVio {even})"
    )
    low, limit = foot + 1.2 * line, np.log2(4)
    step = (top - 1.4 * line - low) / len(layers)
    for i, name in enumerate(names):
        x = LEFT + margin + i * (wide + 0.5)
        slide.text(x + wide / 2, top - 0.7 * line, name, 20, ha="center", weight="bold")
        for k, layer in enumerate(layers):
            grid = np.array([[row["times_even"] for row in only(rows, strategy=name, domain=d, layer=layer)] for d in domains])
            across = range(0, grid.shape[1]) if k + 1 == len(layers) else ()
            shown, y = np.log2(np.maximum(grid, 1 / 8)), top - 1.4 * line - step * (k + 1)
            down = domains if i == 0 else ()
            ax = slide.heat(x, y + 0.12, wide, step - 0.24, shown, diverging(), -limit, limit, across, down)
            if across:
                ax.set_xticks(range(0, grid.shape[1], 5), [str(e) for e in range(0, grid.shape[1], 5)])
            for label, d in zip(ax.get_yticklabels(), down, strict=True):
                label.set_color(shades[d])
    slide.text(LEFT, low - 0.45 * line, "expert", 16, "muted")


specialisation = Picture(
    26,
    "specialisation",
    "Load of every expert by domain in two small models: balanced by a loss in each sequence, and by V3's bias.",
    "Two maps side by side, experts across and domains downwards, for two layers. Under that loss all cells are pale: "
    "each domain loads the experts alike. Under the bias many are strongly red in one domain and blue in another.",
    _rows,
    _draw,
    source="study balance",
)
