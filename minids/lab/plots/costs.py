"""Notebook 13: work, dollars, what serving reads, how many GPUs a conversation fills."""

from collections.abc import Sequence

import numpy as np

from minids.config import ModelConfig
from minids.lab import notebook
from minids.lab.analysis import flops, kv_cache, models, parameters

Array = np.ndarray
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, BLACK = notebook.COLOURS
V3 = ModelConfig.preset("deepseek-v3")
SHOWN = ("DeepSeek-V2", "DeepSeek-V3", "Qwen2.5-72B", "Llama-3.1-405B")


def four_models(context: int = 4096) -> list[models.ModelRow]:
    """Two sparse ones, two dense ones."""
    rows = {row.name: row for row in models.comparison(context)}
    return [rows[name] for name in SHOWN]


def size_and_work(rows: Sequence[models.ModelRow], printed: Sequence[float | None]) -> None:
    """Parameters beside training work per token; ``printed``: the work that the paper's table has, a mark where it differs."""
    figure, (left, right) = notebook.picture(1, 2, width=10, height=2.8, sharey=True)
    names, colours = [row.name for row in rows][::-1], [ORANGE, ORANGE, BLUE, BLUE]
    for axis, values, title, unit in (
        (left, [r.total / 1e9 for r in rows], "Parameters", "billions"),
        (right, [r.training_flops / 1e9 for r in rows], "Training work", "GFLOP per token"),
    ):
        axis.barh(names, values[::-1], color=colours)
        for y, value in enumerate(values[::-1]):
            axis.text(value, y, f" {value:,.0f}", va="center")
        axis.set(title=title, xlabel=unit, xlim=(0, max(values) * 1.18))
    for y, value in enumerate(printed[::-1]):
        if value:
            right.plot([value, value], [y - 0.42, y + 0.42], color=BLACK, lw=1.5, label="as printed" if y == 0 else None)
    right.legend(loc="upper right", frameon=False)
    notebook.show(figure, "V3 has the most parameters of four models and needs a tenth of the work of the largest dense one.")


def dollars(flops_per_token: float, tokens: float = 14.8e12, price: float = 2.0, utilisation: float = 0.3894) -> float:
    """Price of training: so many tokens at so much work, on H800s of 989 TFLOP/s, in dollars."""
    return tokens * flops_per_token / (989e12 * utilisation) / 3600 * price


def bill(trillion_tokens: float = 14.8, price: float = 2.0, utilisation: float = 0.39) -> None:
    """Price of training four models."""
    rows = four_models()
    figure, axis = notebook.picture(1, 1, width=8, height=2.4)
    sums = [dollars(r.training_flops, 1e12 * trillion_tokens, price, utilisation) / 1e6 for r in rows]
    axis.barh([r.name for r in rows][::-1], sums[::-1], color=[ORANGE, ORANGE, BLUE, BLUE])
    for y, value in enumerate(sums[::-1]):
        axis.text(value, y, f" {value:.1f}", va="center")
    axis.set(xlabel="million dollars", xlim=(0, 1.15 * max(sums)))
    axis.set_title(f"{trillion_tokens:g}T tokens, {price:g} $ an hour, {utilisation:.0%} utilisation")
    notebook.show(figure, "Bars of training cost: V3 about 5 million dollars, Llama-3.1-405B about 53.")


def crowds() -> None:
    """Left: experts that a layer reads. Right: work for a byte that is read."""
    batches = 2 ** np.arange(0, 13)
    figure, (left, right) = notebook.picture(1, 2, width=10, height=3.4)
    left.semilogx(batches, [flops.distinct_experts(V3, int(b)) for b in batches], color=BLUE, base=2)
    left.set(xlabel="tokens in the batch", ylabel="of 256", ylim=(0, 270), title="Experts a layer has to read")
    for context, colour in ((1024, SKY), (4096, BLUE), (32768, BLACK)):
        intensity = [flops.decode_intensity(V3, context, int(b)).flops_per_byte for b in batches]
        right.loglog(batches, intensity, color=colour, label=f"{context // 1024}K context", base=2)
    right.axhline(295, color=ORANGE, ls=":")
    right.text(1, 330, "an H800 can keep up to here", color=ORANGE)
    right.set(xlabel="users in the batch", ylabel="FLOP per byte", ylim=(1, 1000), title="Work per byte read, decoding")
    right.set_yticks([1, 10, 100, 1000], ["1", "10", "100", "1000"])
    for axis in (left, right):
        axis.set_xticks(batches[::2], batches[::2])
        axis.minorticks_off()
    right.legend(frameon=False)
    notebook.show(
        figure, "Experts read per layer rise to all 256 with the batch; FLOPs per byte rise towards the machine's 295."
    )


def serving(context_k: int = 32, users: int = 64, cache: str = "bf16") -> None:
    """Weights and cache in units of one 80 GB GPU."""
    figure, axis = notebook.picture(1, 1, width=8, height=1.9)
    for row, config in enumerate((V3, V3.replace(attention="mha"))):
        weights = parameters.total(V3) / 80e9  # FP8: one byte each
        held = kv_cache.cache_bytes(config, context_k * 1024, users, cache) / 80e9
        axis.barh(row, weights, color=BLUE)
        axis.barh(row, held, left=weights, color=ORANGE)
        axis.text(weights + held, row, f" {np.ceil(weights + held):,.0f} GPUs", va="center")
    axis.set_yticks([0, 1], ["MLA", "MHA"])
    axis.set_xlabel("80 GB GPUs filled by FP8 weights (blue) and cache (orange)")
    axis.set_title(f"{users} users with {context_k}K tokens each, cache in {cache.upper()}")
    axis.margins(x=0.15)
    notebook.show(figure, "Bars: GPUs filled by weights and by cache, with MLA and with MHA.")
