"""Figure 8: how many numbers the keys and values of a trained model really are."""

from pathlib import Path

import numpy as np

from minids.errors import refuse
from minids.lab.figures.picture import Rows, distinct, only, picture
from minids.lab.figures.slide import LEFT, RIGHT, Slide
from minids.lab.figures.style import colour, tint
from minids.lab.figures.trained import Trained


def _rows(run: str | Path = "runs/tiny", length: int = 256, windows: int = 4) -> Rows:
    """``run``: a run's folder; ``windows`` windows of ``length`` tokens of every domain's held-out text are read."""
    trained = Trained.open(run)
    if trained.model.config.attention != "mla":
        raise refuse("run", str(run), f"its attention is {trained.model.config.attention}; this picture is about MLA")
    tokens = np.concatenate([trained.window(domain, length, windows) for domain in trained.held_out.domains])
    rows: Rows = []
    for at in trained.through(tokens):
        mla = at.block.attention
        c_kv, k_rope, _ = mla.latent(at.normed, at.rotary)
        k, v, _ = mla.keys_values(c_kv, k_rope)
        both = np.concatenate([k[..., : mla.d_nope], v], axis=-1)  # (B, T, H, d_nope + d_v)
        both = both.reshape(-1, mla.heads * (mla.d_nope + mla.d_v)).astype(np.float64)
        singular = np.linalg.svd(both, compute_uv=False)
        energy = np.cumsum(singular**2) / np.sum(singular**2)
        rows += [
            {"block": at.index, "index": i + 1, "singular_value": float(value / singular[0]), "energy_up_to": float(energy[i])}
            | {"latent": mla.d_latent, "columns": both.shape[1], "tokens": len(both)}
            for i, value in enumerate(singular)
        ]
    return trained.signed(rows)


@picture(8, _rows, source="run")
def rank_of_keys_and_values(slide: Slide, rows: Rows) -> None:
    """How many directions hold the energy of all heads' keys and values in the trained model, block by block: fewer than the
    latent has numbers.

    Rising curves, one per block, share of the energy against directions up to the size of the latent. They climb fast and
    flatten; dots mark where each reaches 99 percent, well before the right edge.
    """
    latent, columns, blocks = rows[0]["latent"], rows[0]["columns"], distinct(rows, "block")
    needed = [1 + sum(row["energy_up_to"] < 0.99 for row in only(rows, block=b)) for b in blocks]
    span = f"{min(needed)} to {max(needed)}" if min(needed) < max(needed) else f"{max(needed)}"
    top = slide.title(
        f"Of {columns} numbers of keys and values a token, {span} directions hold 99 %: the latent has room for {latent}",
        rows[0]["model"],
        f"Energy of singular values over {rows[0]['tokens']:,} held-out tokens, the largest first",
    )
    line = slide.line
    left, right = LEFT + 1.1 * slide.letters + 0.4, RIGHT - slide.width_of("block 0:  00", 17)
    ax = slide.plot(left, 0.3 + 2.4 * line, right - left - 0.4, top - 0.6 - 2.4 * line, grid="y")
    ax.set(xlim=(0, latent), ylim=(0, 103), xlabel="directions", ylabel="energy in them, %")
    dot = dict(markeredgecolor=colour("ink"), markersize=12 * slide.scale, clip_on=False, zorder=3)
    slide.text(right, top - 0.5 * line, "99 % within", 16, "muted")
    for i, (b, at) in enumerate(zip(blocks, needed, strict=True)):
        shade = tint(colour("latent"), 0.4 + 0.6 * i / max(1, len(blocks) - 1))
        values = [0, *(100 * row["energy_up_to"] for row in only(rows, block=b)[:latent])]
        ax.plot(range(len(values)), values, color=shade, linewidth=3 * slide.scale)
        ax.plot([at], [values[at]], "o", color=shade, **dot)
        y = top - 1.6 * line - 1.25 * line * i
        slide.rectangle(right, y - 0.13, 0.26, 0.26, shade)
        slide.text(right + 0.36, y, f"block {b}: {at}", 17)
    ax.axhline(99, color=colour("ink"), linewidth=1.8 * slide.scale, linestyle=(0, (5, 3)))
