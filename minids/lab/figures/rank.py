"""Figure 8: how many numbers the keys and values of a trained model really are."""

from pathlib import Path

import numpy as np

from minids.errors import refuse
from minids.lab.figures.picture import Picture, Rows, column, distinct, only
from minids.lab.figures.slide import Slide
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


def _draw(slide: Slide, rows: Rows) -> None:
    latent, columns, blocks = rows[0]["latent"], rows[0]["columns"], distinct(rows, "block")
    needed = [1 + sum(row["energy_up_to"] < 0.99 for row in only(rows, block=b)) for b in blocks]
    top = slide.title(
        f"All keys and values, {columns} numbers a token, have rank {latent}; {min(needed)} to {max(needed)} directions hold "
        f"99 %",
        rows[0]["model"],
        f"Singular values over {rows[0]['tokens']:,} held-out tokens, each block's largest set to 1",
    )
    across, floor = min(columns, 2 * latent), 1e-9
    ax = slide.plot(1.9, 1.15, 11.6, top - 1.5, grid="y", yscale="log", xlabel="direction", ylabel="singular value")
    shades = [tint(colour("latent"), 0.4 + 0.6 * i / max(1, len(blocks) - 1)) for i in range(len(blocks))]
    dot = dict(markeredgecolor=colour("ink"), markersize=11 * slide.scale)
    slide.text(13.75, top - 0.5, "block", weight="bold")
    for i, (b, at, shade) in enumerate(zip(blocks, needed, shades, strict=True)):
        values = [max(value, floor) for value in column(only(rows, block=b), "singular_value")[:across]]
        ax.plot(range(1, len(values) + 1), values, color=shade, linewidth=2.8 * slide.scale)
        ax.plot([at], [values[at - 1]], "o", color=shade, **dot)
        slide.rectangle(13.75, top - 1.13 - 0.5 * i, 0.34, 0.26, shade)
        slide.text(14.25, top - 1.0 - 0.5 * i, f"{b}:  {at}")
    ax.set(xlim=(0, across), ylim=(floor, 3))
    slide.powers_of_ten(ax.yaxis, 2)
    ax.axvline(latent, color=colour("ink"), linestyle=(0, (5, 3)), linewidth=1.8 * slide.scale)
    ax.plot([1.6], [3e-5], "o", color="none", **dot)
    slide.label(ax, 1.6, 3e-5, "99 % of the energy lies to the left", 17, 12)
    slide.label(ax, latent, 0.3, f"size of the latent: {latent}", 17)
    slide.label(ax, latent, 1e-5, "nothing: rounding", 17, 100, color=colour("muted"))


rank_of_keys_and_values = Picture(
    8,
    "rank_of_keys_and_values",
    "Singular values of all heads' keys and values in the trained model: as many directions as the latent has numbers, fewer"
    " matter.",
    "Falling curves on a logarithmic axis, one per block, singular value against direction. They drop by many orders of "
    "magnitude behind the latent's size, marked by a dashed line; dots well before it mark where 99 percent of the energy is"
    " reached.",
    _rows,
    _draw,
    source="run",
)
