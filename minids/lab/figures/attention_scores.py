"""Figures 7 and 8: what a trained model's attention scores are made of, and how many numbers its keys and values are."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from minids.errors import refuse
from minids.lab.figures.picture import Picture, Rows, only
from minids.lab.figures.slide import Slide, powers_of_ten, width_of
from minids.lab.figures.style import colour, diverging, sequential, theme, tint
from minids.lab.figures.trained import Passing, Trained
from minids.layers.mla import MLA

SHOWN = 13
"""Tokens of the maps: as many as can be read, with room for what hangs below a line."""


def _queries_keys(at: Passing) -> tuple[np.ndarray, np.ndarray]:
    """q and k (T, H, d_nope + d_r) of one sequence."""
    attention = at.block.attention
    q, _ = attention.queries(at.normed, at.rotary)
    c_kv, k_rope, _ = attention.latent(at.normed, at.rotary)
    k, _, _ = attention.keys_values(c_kv, k_rope)
    return q[0], k[0]


def _rows_scores(run: str | Path = "runs/tiny", domain: str = "", length: int = 128) -> Rows:
    """``run``: a run's folder; ``domain``: whose held-out text is read, code if there is any; ``length``: tokens over which the
    two parts of the scores are compared."""
    trained = _with_mla(run)
    domains = trained.held_out.domains
    domain = domain or ("code" if "code" in domains else domains[0])
    tokens = trained.window(domain, length)
    rows: Rows = []
    best = None
    for at in trained.through(tokens):
        mla: MLA = at.block.attention
        q, k = _queries_keys(at)
        for head in range(mla.heads):
            parts = [
                mla.scale * (q[:, head, part] @ k[:, head, part].T)  # (T, T)
                for part in (slice(None, mla.d_nope), slice(mla.d_nope, None))
            ]
            spread = [float(np.mean([z[i, : i + 1].std() for i in range(1, length)])) for z in parts]
            share = spread[1] / sum(spread)
            rows.append(
                {"group": "head", "block": at.index, "head": head, "content": spread[0], "position": spread[1], "share": share}
            )
            if best is None or share < best[0]:  # where both parts can be seen
                best = share, at.index, head, parts
    _, block, head, (content, position) = best
    # The piece with the most different tokens: a row of blanks would show little.
    begin = max(range(length - SHOWN), key=lambda at: len(set(tokens[0, at : at + SHOWN].tolist())))
    letters = trained.letters(tokens[0, begin : begin + SHOWN])
    for i in range(SHOWN):
        total = content[begin + i, : begin + i + 1] + position[begin + i, : begin + i + 1]
        weights = np.exp(total - total.max())
        weights /= weights.sum()
        for j in range(i + 1):
            rows.append(
                {
                    "group": "pair",
                    "block": block,
                    "head": head,
                    "query": i,
                    "key": j,
                    "query_token": letters[i],
                    "key_token": letters[j],
                    "content": float(content[begin + i, begin + j]),
                    "position": float(position[begin + i, begin + j]),
                    "weight": float(weights[begin + j]),
                }
            )
    return rows


def _draw_scores(slide: Slide, rows: Rows) -> None:
    heads, pairs = only(rows, group="head"), only(rows, group="pair")
    shares = [row["share"] for row in heads]
    shown = next(row for row in heads if (row["block"], row["head"]) == (pairs[0]["block"], pairs[0]["head"]))
    top = slide.title(
        f"The rotary part makes {100 * min(shares):.0f} to {100 * max(shares):.0f} % of the spread of a head's scores",
        f"Trained model, {len(heads)} heads; below block {shown['block']}, head {shown['head']}: queries downwards, keys "
        f"across",
    )
    letters = [row["query_token"] for row in pairs if row["key"] == row["query"]]
    grids = {}
    for name in ("content", "position", "weight"):
        grids[name] = np.full((len(letters), len(letters)), np.nan)
        for row in pairs:
            grids[name][row["query"], row["key"]] = row[name]
        if name != "weight":  # the softmax does not feel what a whole row has in common
            grids[name] -= np.nanmean(grids[name], axis=1, keepdims=True)
    limit = max(np.nanmax(np.abs(grids[name])) for name in ("content", "position"))
    side = 4.45
    y = (top - 1.0 - side) / 2 + 0.75
    both = f"blue −{limit:.3g}, red +{limit:.3g}"  # around what a query's scores have in common
    scales = {"content": both, "position": both, "weight": "dark 1, pale 0" if theme() == "light" else "bright 1, dark 0"}
    labels = {"content": ("content scores", "latent"), "position": ("rotary scores", "rope"), "weight": ("attention", "query")}
    for i, (name, grid) in enumerate(grids.items()):
        x = 1.15 + 5.0 * i
        ax = slide.plot(x, y, side, side)
        if name == "weight":
            ax.imshow(grid, cmap=sequential("query"), vmin=0, vmax=1, interpolation="nearest")
        else:
            ax.imshow(grid, cmap=diverging(), vmin=-limit, vmax=limit, interpolation="nearest")
        ax.set_xticks(range(len(letters)), letters, family="DejaVu Sans Mono")
        ax.set_yticks(range(len(letters)), letters if i == 0 else [""] * len(letters), family="DejaVu Sans Mono")
        ax.tick_params(length=0)
        for edge in ("left", "bottom"):
            ax.spines[edge].set_visible(False)
        words, kind = labels[name]
        start = x + (side - width_of(words, 19, True) - 0.4) / 2
        slide.rectangle(start, y + side + 0.16, 0.28, 0.28, colour(kind))
        slide.text(start + 0.4, y + side + 0.3, words, 19, weight="bold")
        slide.text(x + side / 2, y - 0.75, scales[name], 16, "muted", ha="center")
        if i < 2:
            slide.text(x + side + 0.28, y + side / 2, "+→"[i], 26, ha="center", weight="bold")


attention_split = Picture(
    7,
    "attention_split",
    "The scores of one head of the trained model, split into content and rotary part, and the attention they give.",
    "Three square maps over the same short text, queries downwards and keys across, lower triangles filled: content scores, "
    "rotary "
    "scores, and the attention weights that the softmax of their sum gives.",
    _rows_scores,
    _draw_scores,
    source="run",
)


def _rows_rank(run: str | Path = "runs/tiny", length: int = 256, windows: int = 4) -> Rows:
    """``run``: a run's folder; ``windows`` windows of ``length`` tokens of every domain's held-out text are read."""
    trained = _with_mla(run)
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
        for i, value in enumerate(singular):
            rows.append(
                {
                    "block": at.index,
                    "index": i + 1,
                    "singular_value": float(value / singular[0]),
                    "energy_up_to": float(energy[i]),
                    "latent": mla.d_latent,
                    "columns": both.shape[1],
                    "tokens": len(both),
                }
            )
    return rows


def _draw_rank(slide: Slide, rows: Rows) -> None:
    latent, columns = rows[0]["latent"], rows[0]["columns"]
    blocks = list(dict.fromkeys(row["block"] for row in rows))
    needed = [1 + sum(row["energy_up_to"] < 0.99 for row in only(rows, block=b)) for b in blocks]
    top = slide.title(
        f"All keys and values, {columns} numbers a token, have rank {latent}; {min(needed)} to {max(needed)} directions hold "
        f"99 %",
        f"Singular values over {rows[0]['tokens']:,} held-out tokens, trained model, each block's largest set to 1",
    )
    ax = slide.plot(1.9, 1.15, 11.6, top - 1.5, grid="y", yscale="log", xlabel="direction", ylabel="singular value")
    across = min(columns, 2 * latent)
    floor = 1e-9
    for i, b in enumerate(blocks):
        mine = only(rows, block=b)[:across]
        shade = tint(colour("latent"), 0.4 + 0.6 * i / max(1, len(blocks) - 1))
        values = [max(row["singular_value"], floor) for row in mine]
        ax.plot([row["index"] for row in mine], values, color=shade, linewidth=2.8 * slide.scale)
        at = needed[i]
        ax.plot([at], [values[at - 1]], "o", color=shade, markeredgecolor=colour("ink"), markersize=11 * slide.scale)
    ax.set(xlim=(0, across), ylim=(floor, 3))
    powers_of_ten(ax.yaxis, range(-8, 1, 2), slide.scale)
    ax.axvline(latent, color=colour("ink"), linestyle=(0, (5, 3)), linewidth=1.8 * slide.scale)
    label = dict(fontsize=17 * slide.scale, va="center")
    ax.text(latent + 0.6, 0.3, f"size of the latent: {latent}", **label)
    ax.plot([1.6], [3e-5], "o", color="none", markeredgecolor=colour("ink"), markersize=11 * slide.scale)
    ax.text(2.6, 3e-5, "99 % of the energy lies to the left", **label)
    ax.text(latent + 8, 1e-5, "nothing: rounding", color=colour("muted"), **label)
    slide.text(13.75, top - 0.5, "block", 17, weight="bold")
    for i, b in enumerate(blocks):
        shade = tint(colour("latent"), 0.4 + 0.6 * i / max(1, len(blocks) - 1))
        slide.rectangle(13.75, top - 1.13 - 0.5 * i, 0.34, 0.26, shade)
        slide.text(14.25, top - 1.0 - 0.5 * i, f"{b}:  {needed[i]}", 17)


def _with_mla(run: str | Path) -> Trained:
    trained = Trained.open(run)
    if trained.model.config.attention != "mla":
        raise refuse("run", str(run), f"its attention is {trained.model.config.attention}; this picture is about MLA")
    return trained


rank_of_keys_and_values = Picture(
    8,
    "rank_of_keys_and_values",
    "Singular values of all heads' keys and values in the trained model: as many directions as the latent has numbers, fewer "
    "matter.",
    "Falling curves on a logarithmic axis, one per block, singular value against direction. They drop by many orders of "
    "magnitude "
    "behind the latent's size, marked by a dashed line; dots well before it mark where 99 percent of the energy is reached.",
    _rows_rank,
    _draw_rank,
    source="run",
)
