"""Figure 12: the wall of all experts of all layers, and the few that one token meets."""

from pathlib import Path

import numpy as np

from minids.config import ModelConfig
from minids.lab.figures.picture import Rows, column, picture
from minids.lab.figures.slide import LEFT, RIGHT, Box, Slide
from minids.lab.figures.style import colour, tint
from minids.lab.figures.trained import Trained
from minids.ops import router


def _rows(run: str | Path = "", config: ModelConfig | None = None, name: str = "DeepSeek-V3", seed: int = 0) -> Rows:
    """``run``: a run's folder, whose last token of a held-out window is followed. Without one the limits are those of
    ``config``, V3 by default (``name``: what it is called), and the scores are drawn by ``seed``: an illustration."""
    if run:
        trained = Trained.open(run)
        c, name, about = trained.model.config, trained.about, "one token"
        found = trained.routings(trained.window(trained.held_out.domains[0], 64))
        chosen = {block: routing.chosen[-1] for block, routing in found.items()}
        best = {block: int(routing.chosen[-1][routing.gates[-1].argmax()]) for block, routing in found.items()}
    else:
        c, about = config or ModelConfig.preset("deepseek-v3"), "illustration: random scores"
        rng, chosen, best = np.random.default_rng(seed), {}, {}
        for block in filter(c.is_moe, range(c.num_hidden_layers)):
            scores = rng.random((1, c.n_routed_experts))
            chosen[block] = router.choose(scores, c.num_experts_per_tok, c.n_group, c.topk_group, c.topk_method)[0]
            best[block] = max(chosen[block].tolist(), key=lambda e, s=scores: s[0, e])
    sizes = {"experts": c.n_routed_experts, "groups": c.n_group, "kept_groups": c.topk_group, "shared": c.n_shared_experts}
    return [
        {"model": name, "scores": about, "block": block, "expert": int(e), "largest_gate": int(e) == best[block], **sizes}
        for block, mine in chosen.items()
        for e in sorted(mine)
    ]


@picture(12, _rows)
def wall_of_experts(slide: Slide, rows: Rows) -> None:
    """All routed experts of all layers as a wall of cells, in groups, and those that one token meets on its way.

    A wall of nearly fifteen thousand pale cells, a row for each layer and a column for each expert, with gaps between eight
    groups; in every row eight cells are lit, in at most four groups. At the left a column in another colour, the shared
    expert, is lit in every row. A line runs upwards through the lit cell with the largest gate of each row.
    """
    first, blocks = rows[0], list(dict.fromkeys(column(rows, "block")))
    experts, groups = first["experts"], first["groups"]
    each = experts // groups
    top = slide.title(
        f"A token meets {len(rows):,} of {len(blocks) * experts:,} experts",
        f"{first['model']}, {first['scores']}",
        f"{len(blocks)} layers of {experts} experts; in each {len(rows) // len(blocks)} of them, from "
        f"{first['kept_groups']} of {groups} groups, and a shared one",
    )
    line = slide.line
    name = f"layer {blocks[-1]}"
    x0, low, high = LEFT + slide.width_of(name, 16) + 0.1, 0.25 + 2.4 * line, top - 0.3
    gap, wide = 0.22, (RIGHT - x0 - 0.75 - 0.22 * groups) / groups
    cell, row_high = wide / each, (high - low) / len(blocks)
    at = {b: low + row_high * i for i, b in enumerate(blocks)}
    left = {e: x0 + 0.75 + gap + (e // each) * (wide + gap) + (e % each) * cell for e in range(experts)}
    inset = 0.1 * min(cell, row_high)
    for g in range(groups):
        all_of_it = np.ones((len(blocks), each))
        slide.texture(Box(left[g * each], low, wide, high - low), all_of_it, tint(colour("routed"), 0.25))
        slide.text(left[g * each] + wide / 2, low - 0.75 * line, str(g + 1), 16, "muted", ha="center")
    if first["shared"]:
        shared = [Box(x0 + 0.25, y + inset, 0.4, row_high - 2 * inset) for y in at.values()]
        slide.many(shared, ["shared"] * len(shared))
        slide.text(LEFT, low - 1.75 * line, "shared: always on", 16)
    slide.text(LEFT, low - 0.75 * line, "group", 16, "muted")
    for b in (blocks[0], blocks[-1]):
        slide.text(x0, at[b] + row_high / 2, f"layer {b}", 16, "muted", ha="right")
    slide.step("one token")
    # What is lit is as wide as can be seen from the last row, but never into its neighbour's place by more than half.
    size = max(cell, min(row_high, 2.2 * cell))
    lit = [Box(left[r["expert"]] + (cell - size) / 2, at[r["block"]], size, row_high) for r in rows]
    path = [(left[r["expert"]] + cell / 2, at[r["block"]] + row_high / 2) for r in rows if r["largest_gate"]]
    slide.many(lit, ["query"] * len(lit), zorder=2.2)
    slide.step("its path")
    looks = dict(color=colour("ink"), linewidth=1.6 * slide.scale, zorder=2.5, markersize=9 * slide.scale)
    slide.ax.plot(*zip(*path, strict=True), alpha=0.8, **looks)
    slide.ax.plot(*path[0], "o", **looks)
    slide.ax.plot(*path[-1], "^", **looks)
    words = "line: the largest gate, layer by layer"
    slide.text(RIGHT, low - 1.75 * line, words, 16, ha="right")
