"""Figure 6: RoPE turns pairs of coordinates; YaRN slows the slow ones down for longer contexts."""

import numpy as np

from minids.config import Yarn
from minids.errors import refuse
from minids.lab.figures.picture import Rows, column, distinct, only, picture
from minids.lab.figures.slide import Slide
from minids.lab.figures.style import colour, tint
from minids.ops import rope, yarn

_POSITIONS = 12


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
        {"group": "frequency", "pair": i, "radians_per_token": float(theta), "with_yarn": float(slowed[i])}
        | {"ramp": float(ramp[i]), "turns_in_original_context": float(theta) * original / (2 * np.pi)}
        | {"turns_with_yarn": float(slowed[i]) * original / (2 * np.pi), "original": original}
        | {"fast": s.beta_fast, "slow": s.beta_slow, "factor": s.factor, "model": name}
        for i, theta in enumerate(plain)
    ]
    start = np.tile([1.0, 0.0], rope_dim // 2)  # every pair points right
    cos, sin = yarn.rotation_table(plain, np.arange(_POSITIONS))
    turned, _ = rope.forward(np.broadcast_to(start, (1, _POSITIONS, 1, rope_dim)), cos, sin)
    for pair in shown:
        for position in range(_POSITIONS):
            a, b = turned[0, position, 0, 2 * pair : 2 * pair + 2]
            rows.append({"group": "rotation", "pair": pair, "position": position, "x": float(a), "y": float(b)})
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
    kept, divided = (sum(row["ramp"] == end for row in pairs) for end in (0, 1))
    factor = pairs[0]["factor"]
    top = slide.title(
        f"YaRN keeps {kept} of {len(pairs)} rotations as they are and slows the {divided} slowest {factor:g} times",
        f"{pairs[0]['model']}, arithmetic",
        f"RoPE turns each pair by its own angle per token; dots: positions 0 to {_POSITIONS - 1}",
    )
    shown, angle = distinct(turns, "pair"), np.linspace(0, 2 * np.pi, 200)
    circles, frame = slide.parts(0.3, top - 0.1, *((1, 2.4) if slide.tall else (1 + 0.1 * slide.letters, 2.7)))
    angles = {pair: f"θ = {pairs[pair]['radians_per_token']:.2g}" for pair in shown}
    label = max(slide.width_of(said, 17) for said in angles.values()) + 0.1
    round = dict(frame=False, aspect="equal", xlim=(-1.25, 1.25), ylim=(-1.25, 1.25))
    for i, pair in enumerate(shown):
        x, y, w, h = circles.piece(i, len(shown), across=slide.tall)
        size = min(h - 0.2, w - label - 0.1, 2.6)
        ax = slide.plot(x + label, y + (h - size) / 2, size, size, **round)
        ax.plot(np.cos(angle), np.sin(angle), color=colour("faint"), linewidth=2 * slide.scale)
        for row in only(turns, pair=pair):
            shade = tint(colour("rope"), 0.35 + 0.65 * row["position"] / (_POSITIONS - 1))
            ax.plot([0, row["x"]], [0, row["y"]], color=shade, linewidth=1.6 * slide.scale)
            ax.plot([row["x"]], [row["y"]], "o", color=shade, markersize=8 * slide.scale)
        slide.lines(x, y + h / 2, (f"pair {pair}", 18, "ink", "bold"), (angles[pair], 17))
    x, last = column(pairs, "pair"), len(pairs) - 1
    turned = f"turns in {pairs[0]['original']:,} tokens"
    ax = slide.within(frame, "10⁻²0", ["with YaRN"], xlabel="pair", ylabel=turned, yscale="log", xlim=(-0.5, last + 0.5))
    ends = []
    for name, words, kind in (("turns_in_original_context", "RoPE", "muted"), ("turns_with_yarn", "with YaRN", "rope")):
        ax.plot(x, column(pairs, name), "o-", color=colour(kind), markersize=6 * slide.scale)
        ends.append((last, pairs[-1][name], words, {"color": colour(kind)}))
    bottom, above = ax.get_ylim()
    ax.set_ylim(bottom, above * 2)
    slide.powers_of_ten(ax.yaxis)
    ax.axhspan(pairs[0]["slow"], pairs[0]["fast"], color=colour("panel"), linewidth=0)
    for turns in (pairs[0]["fast"], pairs[0]["slow"]):
        ax.axhline(turns, color=colour("ink"), linewidth=1.8 * slide.scale, linestyle=(0, (5, 3)))
    share = ax.get_xaxis_transform()
    fast, slow = pairs[0]["fast"], pairs[0]["slow"]
    to_share = ax.transScale + ax.transLimits
    heights = [to_share.transform((1, turns))[1] for turns in (fast, slow)]
    words = (
        (0.5 * (1 + heights[0]), f"over {fast:g} turns:\nkept"),
        (0.5 * sum(heights), "between:\nblended"),
        (0.5 * heights[1], f"under {slow:g} turn:\nslowed {factor:g} times"),
    )
    for (height, said), (ha, at) in zip(words, (("right", last), ("left", 0), ("left", 0)), strict=True):
        ax.text(
            at, height, said, transform=share, ha=ha, va="center", fontsize=17 * slide.scale * slide.letters, linespacing=1.2
        )
    slide.end_labels(ax, ends)
