"""Figures 6 and 28: RoPE turns pairs of coordinates; YaRN slows the slow ones, and facts are found in longer contexts."""

import re

import numpy as np

from minids.config import Yarn
from minids.errors import refuse
from minids.lab.figures.picture import LEFT, RIGHT, Rows, Slide, column, distinct, only, picture, size_of
from minids.lab.figures.style import colour, ink_on, sequential, tint
from minids.lab.studies import long_context, results
from minids.ops import rope, yarn

_POSITIONS = 12
MAPS = ((long_context.NONE, long_context.STAGES[0]), ("YaRN", long_context.STAGES[0]), ("YaRN", long_context.STAGES[1]))


def _rows(
    rope_dim: int = 64, base: float = 1e4, scaling: Yarn | None = None, shown: tuple[int, ...] = (), name: str = "DeepSeek-V3"
) -> Rows:
    """``rope_dim``, ``base``, ``scaling``: V3's by default, and ``name``: whose they are; ``shown``: the three pairs
    whose rotation is drawn, by default a fast, a middling and a slow one."""
    count = rope_dim // 2
    if rope_dim < 6 or rope_dim % 2:
        raise refuse("rope_dim", rope_dim, "must be even and at least 6: it is turned in pairs, and three of them are drawn")
    shown = shown or (count // 16, 3 * count // 16 if count >= 16 else 1, max(5 * count // 16, 2))
    if not all(0 <= pair < count for pair in shown):
        raise refuse("shown", shown, f"there are pairs 0 to {count - 1}")
    s = scaling or Yarn()
    original = s.original_max_position_embeddings
    plain = yarn.plain_frequencies(rope_dim, base)
    slowed = yarn.yarn_frequencies(rope_dim, base, s.factor, original, s.beta_fast, s.beta_slow)
    ramp = yarn.ramp(rope_dim, *yarn.cut_offs(rope_dim, base, original, s.beta_fast, s.beta_slow))
    rows: Rows = [
        {"group": "frequency", "pair": i, "radians_per_token": theta, "with_yarn": slow, "ramp": at}
        | {"turns_in_original_context": theta * original / (2 * np.pi), "turns_with_yarn": slow * original / (2 * np.pi)}
        | {"original": original, "fast": s.beta_fast, "slow": s.beta_slow, "factor": s.factor, "model": name}
        for i, (theta, slow, at) in enumerate(np.stack((plain, slowed, ramp), axis=1).tolist())
    ]
    start = np.tile([1.0, 0.0], rope_dim // 2)  # every pair points right
    cos, sin = yarn.rotation_table(plain, np.arange(_POSITIONS))
    turned, _ = rope.forward(np.broadcast_to(start, (1, _POSITIONS, 1, rope_dim)), cos, sin)
    for pair in shown:
        ends = turned[0, :, 0, 2 * pair : 2 * pair + 2].tolist()
        rows += [{"group": "rotation", "pair": pair, "position": i, "x": x, "y": y} for i, (x, y) in enumerate(ends)]
    return rows


@picture(6, _rows)
def rope_and_yarn(slide: Slide, rows: Rows) -> None:
    """RoPE as rotation of pairs at three speeds, the turns of all pairs in the context of training, and which YaRN slows.

    Left: three circles with hands for successive positions; in the first they spread all around, in the last they hardly
    move. Right: turns within the context of training against the pair's index on a logarithmic axis, a falling straight
    line for RoPE. Above a dashed line at 32 turns YaRN's line is the same, below one at a single turn it runs lower, and
    between the two it goes over from one to the other.
    """
    pairs, turns = only(rows, group="frequency"), only(rows, group="rotation")
    kept, divided = (len(only(pairs, ramp=end)) for end in (0, 1))
    fast, slow, factor, original = (pairs[0][name] for name in ("fast", "slow", "factor", "original"))
    finding = f"YaRN keeps {kept} of {len(pairs)} rotations as they are and slows the {divided} slowest {factor:g} times"
    top = slide.headed(finding, f"RoPE turns each pair by its own angle per token; dots: positions 0 to {_POSITIONS - 1}")
    shown, angle = distinct(turns, "pair"), np.linspace(0, 2 * np.pi, 200)
    circles, frame = slide.parts(0.3, top - 0.1, *((1, 2.4) if slide.tall else (1 + 0.1 * slide.letters, 2.7)))
    angles = {pair: f"θ = {pairs[pair]['radians_per_token']:.2g}" for pair in shown}
    label = slide.width_of(angles.values(), 17) + 0.1
    round = dict(frame=False, aspect="equal", xlim=(-1.25, 1.25), ylim=(-1.25, 1.25))
    for i, pair in enumerate(shown):
        x, y, w, h = circles.piece(i, len(shown), across=slide.tall)
        size = min(h - 0.2, w - label - 0.1)
        ax = slide.plot(x + label, y + (h - size) / 2, size, size, **round)
        ax.plot(np.cos(angle), np.sin(angle), color=colour("faint"), linewidth=2 * slide.scale)
        for row in only(turns, pair=pair):
            shade = tint(colour("rope"), 0.35 + 0.65 * row["position"] / (_POSITIONS - 1))
            ax.plot([0, row["x"]], [0, row["y"]], color=shade, linewidth=1.6 * slide.scale)
            ax.plot([row["x"]], [row["y"]], "o", color=shade, markersize=8 * slide.scale)
        slide.lines(x, y + h / 2, (f"pair {pair}", 18, "ink", "bold"), (angles[pair], 17))
    last, limits = len(pairs) - 1, dict(yscale="log", xlim=(-0.5, len(pairs) - 0.5))
    ax = slide.within(frame, "10⁻²0", ["with YaRN"], f"turns in {original:,} tokens", xlabel="pair", **limits)
    for name, words, kind in (("turns_in_original_context", "RoPE", "muted"), ("turns_with_yarn", "with YaRN", "rope")):
        slide.curve(ax, column(pairs, "pair"), column(pairs, name), words, kind, marker="o", color=colour(kind))
    ax.set_ylim(top=2 * ax.get_ylim()[1])
    slide.powers_of_ten(ax.yaxis)
    ax.axhspan(slow, fast, color=colour("panel"), linewidth=0)
    low, high = ax.get_ylim()
    for below, above, said, ha, at in (
        (fast, high, f"over {fast:g} turns:\nkept", "right", last),
        (slow, fast, "between:\nblended", "left", 0),
        (low, slow, f"under {slow:g} turn:\nslowed {factor:g} times", "left", 0),
    ):
        if above != high:
            slide.level(ax, above)
        size = 17 * min(1, 1.2 / slide.letters)  # larger ones would lie on the curves
        slide.label(ax, at, np.sqrt(below * above), said, size, 0, ha=ha, linespacing=1.2)  # in the middle, on this axis


def _rows_needles(found: dict | None = None) -> Rows:
    """``found``: results of the study of long contexts, by default those kept with the package."""
    found = found or results("long-context")
    about = size_of(found["common"]["model"])
    rows: Rows = []
    for arm, stage in MAPS:
        for key, summary in found["arms"][arm]["summary"].items():
            if at := re.fullmatch(rf"{stage} needle (\d+) at ([\d.]+)", key):
                row = {"model": about, "arm": arm, "stage": stage, "length": int(at[1]), "depth": float(at[2])}
                row |= {"found": summary["mean"], "trained_length": long_context.TRAINED, "seeds": len(found["seeds"])}
                rows.append(row)
    return rows


@picture(28, _rows_needles, source="study long-context")
def needles(slide: Slide, rows: Rows) -> None:
    """Share of needles that a small model finds, by context and depth: without YaRN, with it, and tuned.

    Three maps, context length across and depth downwards. Without an extension the column of the length of training is
    dark; with YaRN more of it is; after tuning at the longer context nearly all of it.
    """
    longest, trained = max(column(rows, "length")), rows[0]["trained_length"]
    of = [only(rows, arm=arm, stage=stage) for arm, stage in MAPS]
    plain, zero, _ = (100 * np.mean(column(only(mine, length=longest), "found")) for mine in of)
    top = slide.title(
        f"At {longest / trained:g} times the trained length {plain:.0f} % of the needles are found, with YaRN {zero:.0f} %",
        f"a model of {rows[0]['model']}",
        f"Trained on {trained} tokens; a fact said once is asked for at the end, one guess in eight is right",
    )
    line, margin, shades = slide.line, 1.1 + 0.9 * slide.line, sequential("rope")
    wide = (RIGHT - LEFT - margin - 0.8) / len(MAPS)
    low, high = 0.35 + 2.4 * line, top - 1.4 * line
    for i, (mine, words) in enumerate(zip(of, ("no extension", "YaRN", "YaRN, tuned"), strict=True)):
        lengths, depths = distinct(mine, "length"), distinct(mine, "depth")
        grid = np.array([[only(mine, length=n, depth=d)[0]["found"] for n in lengths] for d in depths])
        x = LEFT + margin + i * (wide + 0.4)
        down = [f"{100 * d:.0f} %" for d in depths] if i == 0 else ()
        ax = slide.heat(x, low, wide, high - low, grid, shades, 0, 1, [str(n) for n in lengths], down)
        slide.text(x + wide / 2, high + 0.6 * line, words, 19, ha="center", weight="bold")
        for j, k in np.argwhere(grid < 0.995):
            slide.label(ax, k, j, f"{100 * grid[j, k]:.0f}", 16, 0, ha="center", color=ink_on(shades(grid[j, k])))
        for between, count in ((ax.axhline, len(depths)), (ax.axvline, len(lengths))):
            for edge in range(1, count):
                between(edge - 0.5, color=colour("background"), linewidth=2 * slide.scale)
    slide.text(LEFT, high + 0.6 * line, "depth", 16, "muted")
    slide.text(LEFT + margin, 0.35 + 0.35 * line, "context in tokens; percentages found, empty: all", 16, "muted")
