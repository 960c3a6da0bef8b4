"""Figure 24: gradient flow: which expert, head and latent channel of a trained model learn from a batch of all domains."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from minids.errors import refuse
from minids.lab.figures.picture import Picture, Rows, distinct, only
from minids.lab.figures.slide import Slide
from minids.lab.figures.style import sequential
from minids.lab.figures.trained import Trained


def _rows(run: str | Path = "runs/tiny", length: int = 256, windows: int = 2) -> Rows:
    """``run``: a run's folder; ``windows`` windows of ``length`` tokens of every domain's held-out text make one batch.

    The norm of the loss's gradient by each expert's weights, each head's keys and values, and each latent channel's row.
    """
    trained = Trained.open(run)
    model, c = trained.model, trained.model.config
    if c.attention != "mla":
        raise refuse("run", str(run), f"its attention is {c.attention}; this picture is about MLA")
    ids = np.concatenate([trained.window(domain, length + 1, windows) for domain in trained.held_out.domains])
    _, grads = model.loss_and_grads(ids[:, :-1], ids[:, 1:])
    rows: Rows = []
    for block in range(c.num_hidden_layers):
        name = f"model.layers.{block}"
        up = grads[f"{name}.self_attn.kv_b_proj.weight"].reshape(c.num_attention_heads, -1)
        down = grads[f"{name}.self_attn.kv_a_proj_with_mqa.weight"]
        found = {
            "head": np.linalg.norm(up, axis=1),
            "latent": np.linalg.norm(down[: c.kv_lora_rank], axis=1),
            "rope": np.linalg.norm(down[c.kv_lora_rank :], axis=1),
        }
        if c.is_moe(block):
            parts = [
                grads[f"{name}.mlp.experts.{m}_proj.weight"].reshape(c.n_routed_experts, -1) for m in ("gate", "up", "down")
            ]
            found["routed"] = np.linalg.norm(np.concatenate(parts, axis=1), axis=1)
            if c.n_shared_experts:
                shared = [grads[f"{name}.mlp.shared_experts.{m}_proj.weight"].ravel() for m in ("gate", "up", "down")]
                found["shared"] = np.linalg.norm(np.concatenate(shared), keepdims=True)
        for kind, norms in found.items():
            rows += [{"block": block, "kind": kind, "index": i, "norm": float(norm)} for i, norm in enumerate(norms)]
    return rows


def _draw(slide: Slide, rows: Rows) -> None:
    shared, routed = only(rows, kind="shared"), only(rows, kind="routed")
    ratio = np.mean([r["norm"] for r in shared]) / np.mean([r["norm"] for r in routed]) if shared and routed else None
    latent, rope = (np.mean([row["norm"] for row in only(rows, kind=kind)]) for kind in ("latent", "rope"))
    if ratio is None:
        finding = f"A rotary channel's gradient is {rope / latent:.1f} times a latent channel's"
    else:
        finding = (
            f"The shared expert's gradient is {ratio:.1f} times a routed one's, "
            f"a rotary channel's {rope / latent:.1f} times a latent's"
        )
    top = slide.title(finding, "Norm of the loss's gradient, held-out text of all domains, trained model; stronger: larger")
    panels = [("heads: keys and values", ("head",)), ("latent and rotary channels of the cache", ("latent", "rope"))]
    if routed:
        panels.append(("routed experts, shared expert" if shared else "routed experts", ("routed", "shared")))
    blocks = distinct(rows, "block")
    x, gap, room = 1.9, 0.55, 13.5
    units = [max(len(only(rows, block=blocks[-1], kind=k)) ** 0.5 for k in kinds) + 2 for _, kinds in panels]
    widths = [(room - gap * (len(panels) - 1)) * u / sum(units) for u in units]
    low, high = 1.5, top - 1.25
    for (words, kinds), w in zip(panels, widths, strict=True):
        _panel(slide, rows, blocks, kinds, x, low, w, high - low, first=x == 1.9)
        for i, line in enumerate(_two_lines(words)):
            slide.text(x, high + 0.68 - 0.38 * i, line, 17, weight="bold" if i == 0 else "normal")
        x += w + gap
    slide.text(0.55, low - 0.3, "number", 16, "muted")
    slide.text(0.55, low - 0.72, "mean", 16, "muted")
    slide.text(0.9, (low + high) / 2, "block", 17, "muted", ha="center", rotation=90)


def _two_lines(words: str) -> list[str]:
    for mark in (": ", " channels ", ", "):
        if mark in words:
            head, _, rest = words.partition(mark)
            return [head + (mark.rstrip() if mark == " channels " else ""), rest]
    return [words, ""]


def _panel(slide: Slide, rows: Rows, blocks: list, kinds: tuple[str, ...], x: float, y: float, w: float, h: float, first: bool):
    """Blocks downwards, one column per head, channel or expert, the kinds side by side in their own colours to one scale."""
    counts = [len(only(rows, block=blocks[-1], kind=kind)) for kind in kinds]
    kinds = tuple(k for k, n in zip(kinds, counts, strict=True) if n)
    counts = [n for n in counts if n]
    largest = max(row["norm"] for row in rows if row["kind"] in kinds)
    gap = 0.12 if len(kinds) > 1 else 0.0
    extra = [n if n > 1 else max(1.0, sum(counts) / 12) for n in counts]  # a single column is made wide enough to be seen
    for kind, n, share in zip(kinds, counts, extra, strict=True):
        wide = (w - gap * (len(kinds) - 1)) * share / sum(extra)
        grid = np.full((len(blocks), n), np.nan)
        for row in rows:
            if row["kind"] == kind:
                grid[blocks.index(row["block"]), row["index"]] = row["norm"]
        ax = slide.plot(x, y, wide, h)
        shade = {"head": "value"}.get(kind, kind)
        ax.imshow(grid, cmap=sequential(shade), vmin=0, vmax=largest, aspect="auto", interpolation="nearest")
        ax.set_yticks(range(len(blocks)), blocks if first else [""] * len(blocks))
        ax.set_xticks([])
        ax.tick_params(length=0)
        for edge in ("left", "bottom"):
            ax.spines[edge].set_visible(False)
        for i in np.flatnonzero(np.isnan(grid).all(axis=1)):
            if wide > 1.5:
                slide.text(x + wide / 2, y + h * (1 - (i + 0.5) / len(blocks)), "dense: no experts", 16, "muted", ha="center")
        mean = np.nanmean(grid)
        slide.text(x + wide / 2, y - 0.3, str(n), 16, ha="center")
        slide.text(x + wide / 2, y - 0.72, f"{mean:.2g}", 16, ha="center", weight="bold")
        x += wide + gap
        first = False


gradient_flow = Picture(
    24,
    "gradient_flow",
    "Norm of the loss's gradient by attention head, by channel of the cached latent, and by expert, in every block of the "
    "trained model.",
    "Three maps, blocks downwards: across are the attention heads, the channels of the latent and of the rotary key, and the "
    "routed "
    "experts with the shared expert beside them. Stronger cells have larger gradients; below each map stands its mean.",
    _rows,
    _draw,
    source="run",
)
