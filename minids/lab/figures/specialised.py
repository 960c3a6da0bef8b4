"""Figure 26: experts by domain with an auxiliary loss in each sequence and with V3's bias, side by side (as V3's figure 9)."""

import numpy as np

from minids.lab.figures.picture import Rows, column, distinct, only, picture
from minids.lab.figures.routing import domain_maps
from minids.lab.figures.slide import LEFT, RIGHT, Box, Slide
from minids.lab.figures.words import size_of
from minids.lab.studies import results

PAIR = {"sequence loss 0.1": "loss in each sequence", "bias 0.003": "V3's bias"}
"""Arms of the balance study, each the even load of its kind, and what the picture calls them."""


def _rows(found: dict | None = None, pair: dict[str, str] = PAIR) -> Rows:
    """``found``: results of the balance study, by default those kept with the package; ``pair``: arm → its name here. Loads are
    those of the first seed, in even shares; what an expert tells of the domain, in bits, is the mean over all."""
    found = found or results("balance")
    about = size_of(found["common"]["model"])
    rows: Rows = []
    for arm, name in pair.items():
        held = found["arms"][arm]
        summary = {key: held["summary"][key]["mean"] for key in ("specialisation", "max_vio", "loss")}
        for domain, layers in held["details"]["relative_load"].items():
            rows += [
                {"model": about, "arm": arm, "strategy": name, "domain": domain, "layer": layer, "expert": e}
                | {"times_even": load, **summary, "seeds": len(found["seeds"])}
                for layer, loads in enumerate(layers)
                for e, load in enumerate(loads)
            ]
    return rows


@picture(26, _rows, source="study balance")
def specialisation(slide: Slide, rows: Rows) -> None:
    """Load of every expert by domain in two small models: balanced by a loss in each sequence, and by V3's bias.

    Two maps side by side, experts across and domains downwards, for two layers. Under that loss all cells are pale: each
    domain loads the experts alike. Under the bias many are strongly red in one domain and blue in another.
    """
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
    margin = max(slide.width_of(slide.language.say(d), 17) for d in domains) + 0.2
    wide = (RIGHT - LEFT - margin - 0.5) / 2
    even = ", ".join(f"{only(rows, strategy=name)[0]['max_vio']:.2f}" for name in names)
    foot = slide.note(
        f"Full red: four even shares, full blue: a quarter. Both keep the load even over all text (MaxVio {even})"
    )
    low = foot + 1.2 * line
    for i, name in enumerate(names):
        x = LEFT + margin + i * (wide + 0.5)
        slide.text(x + wide / 2, top - 0.7 * line, name, 20, ha="center", weight="bold")
        of = [[column(only(rows, strategy=name, domain=d, layer=k), "times_even") for d in domains] for k in layers]
        domain_maps(slide, Box(x, low, wide, top - 1.4 * line - low), of, domains, 4, named=i == 0, every=5)
    slide.text(LEFT, low - 0.45 * line, "expert", 16, "muted")
