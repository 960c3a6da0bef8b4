"""Notebook 12: what lies in the files of a release, how its numbers are written, which experts were read."""

import numpy as np

from minids.config import ModelConfig
from minids.lab import notebook
from minids.lab.analysis import released_weights

Array = np.ndarray
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, BLACK = notebook.COLOURS
V3 = ModelConfig.preset("deepseek-v3")
COLOUR_OF = {"F8_E4M3": BLUE, "BF16": ORANGE, "F32": GREEN}


def layer(number: int = 3) -> None:
    """Names, types, shapes and bytes of one of V3's 62 layers, experts but the first as one line, as the headers have them."""
    held = [e for e in released_weights.entries(V3) if e.name.startswith(f"model.layers.{number}.")]
    shown = [e for e in held if ".experts." not in e.name or ".experts.0." in e.name]
    figure, axis = notebook.picture(width=9.4, height=0.7 + 0.205 * len(shown))
    letters = {"family": "DejaVu Sans Mono", "fontsize": 8.5, "va": "center"}
    for row, entry in enumerate(shown):
        times = " (and 255 like it)" if ".experts.0." in entry.name else ""
        name = entry.name.removeprefix(f"model.layers.{number}.")
        axis.text(0, -row, name + times, **letters)
        axis.text(58, -row, entry.dtype, color=COLOUR_OF[entry.dtype], weight="bold", **letters)
        axis.text(68, -row, " × ".join(map(str, entry.shape)), **letters)
        axis.text(100, -row, f"{entry.bytes:,}", ha="right", **letters)
    axis.set(xlim=(-1, 101), ylim=(-len(shown) + 0.4, 1.1))
    total = sum(entry.bytes for entry in held)
    axis.set_title(f"model.layers.{number}: {len(held):,} tensors, {total:,} bytes", fontsize=11)
    axis.axis("off")
    notebook.show(figure, f"The header of layer {number}: {len(held):,} tensors, {total:,} bytes.")


def bytes_by_kind() -> None:
    """Where the 688,574,839,360 bytes are."""
    kinds = {"routed experts": 0, "attention": 0, "shared expert, dense FFN": 0, "embedding and head": 0, "the rest": 0}
    for entry in released_weights.entries(V3):
        name = entry.name
        if ".mlp.experts." in name:
            kinds["routed experts"] += entry.bytes
        elif "self_attn" in name:
            kinds["attention"] += entry.bytes
        elif "shared_experts" in name or ("mlp" in name and "gate." not in name.replace("gate_proj", "")):
            kinds["shared expert, dense FFN"] += entry.bytes
        elif "embed_tokens" in name or "head" in name:
            kinds["embedding and head"] += entry.bytes
        else:
            kinds["the rest"] += entry.bytes
    figure, axis = notebook.picture(width=8, height=2.3)
    names, values = list(kinds)[::-1], [v / 1e9 for v in kinds.values()][::-1]
    axis.barh(names, values, color=BLUE)
    for y, value in enumerate(values):
        axis.text(value, y, f" {value:,.1f}", va="center")
    axis.set(xlabel="GB", xlim=(0, max(values) * 1.15))
    notebook.show(figure, "Bars of gigabytes: nearly all of them are routed experts.")


def numbers_and_codes(values: Array, codes: Array) -> None:
    """Left: all positive numbers of E4M3, (256,) by code. Right: which of them a trained matrix uses."""
    positive = np.sort(values[values > 0])
    figure, (left, right) = notebook.picture(1, 2, width=9.4, height=2.6)
    left.plot(positive, np.zeros_like(positive), "|", color=BLUE, ms=18)
    left.set(yticks=[], ylim=(-1, 1), xlabel="value")
    left.set_xscale("log", base=2)
    left.set_title("E4M3: eight to every power of two", fontsize=10)
    used = np.bincount(codes.ravel() & 0x7F, minlength=128)[:127]
    order = np.argsort(values[:127])
    right.semilogx(values[:127][order][1:], 100 * used[order][1:] / codes.size, ".", color=ORANGE, ms=5, base=2)
    right.set(xlabel="value, either sign", ylabel="% of the codes", ylim=(0, None))
    right.set_title("which of them a trained matrix uses", fontsize=10)
    notebook.show(
        figure, "Left: tick marks evenly spread on a logarithmic axis. Right: most codes of a matrix lie near the top."
    )


def blocks(weights: Array, scales: Array) -> None:
    """Left: a matrix's scales, a block each. Right: the entries of one row below the ceiling of their block."""
    figure, (left, right) = notebook.picture(1, 2, width=9.4, height=2.7, width_ratios=[1, 1.25])
    everywhere = np.repeat(np.repeat(scales, 128, axis=0), 128, axis=1)[: weights.shape[0], : weights.shape[1]]
    left.imshow(np.log2(everywhere), cmap="cividis", aspect="auto")
    left.set(title=f"{scales.size} blocks, a scale each", xlabel="column", ylabel="row")
    left.grid(False)
    right.semilogy(np.abs(weights[10]) + 1e-9, ".", color=BLUE, ms=3, label="|W| of row 10")
    right.semilogy(448 * everywhere[10], color=ORANGE, label="448 · scale of the block")
    right.set(xlabel="column", ylim=(np.abs(weights[10]).max() / 3e3, 1000 * scales.max()))
    right.legend()
    notebook.show(figure, "Left: a matrix in blocks of 128 by 128. Right: entries of one row below the ceiling of each block.")


def experts_read(chosen: Array) -> None:
    """chosen (N, K) of 256: a panel for each token, 8 nodes of 32 experts."""
    figure, axes = notebook.picture(1, len(chosen), width=9.4, height=2.1, sharey=True)
    for token, (axis, row) in enumerate(zip(axes, chosen, strict=True)):
        grid = np.zeros(256)
        grid[row] = 1
        nodes = np.unique(np.asarray(row) // 32)
        axis.imshow(grid.reshape(8, 32), cmap="Blues", vmin=0, vmax=1.3, aspect="auto")
        for node in range(1, 8):
            axis.axhline(node - 0.5, color="0.85", lw=1)
        axis.set_title(f"token {token}: {len(nodes)} nodes", fontsize=10)
        axis.set_xticks([0, 31], ["0", "31"])
        axis.grid(False)
    axes[0].set_yticks(range(8), [f"node {n}" for n in range(8)])
    notebook.show(figure, "A panel for each token, eight rows of 32 experts: its eight experts lie in at most four rows.")
