"""Pictures of notebook 5: widths of latent attention, what absorbing saves, and what training does to the rotary part."""

from collections.abc import Mapping

import numpy as np
from threadpoolctl import threadpool_limits

from minids.config import ModelConfig
from minids.lab import notebook
from minids.lab.analysis import flops
from minids.lab.bench import timing
from minids.lab.studies.store import results
from minids.ops import attention

Array = np.ndarray

_WAYS = {"absorbed": "C0", "re-expand": "C1", "full cache": "C2"}
_V3 = ModelConfig.preset("deepseek-v3")
_H, _C, _Q = _V3.num_attention_heads, _V3.kv_lora_rank, _V3.q_lora_rank or 0
_CONTENT, _ROPE, _VALUE = _V3.qk_nope_head_dim, _V3.qk_rope_head_dim, _V3.v_head_dim


def widths() -> None:
    """Everything that V3's attention makes of one token, as bars to scale; green carries the position."""
    rows = {
        "h, the hidden state": [(_V3.hidden_size, "#777777")],
        "c_q, latent of the queries": [(_Q, "C5")],
        "q, all heads": [(_H * _CONTENT, "C5"), (_H * _ROPE, "C2")],
        "[c_kv ; k_rope], cached": [(_C, "C1"), (_ROPE, "C2")],
        "k, all heads": [(_H * _CONTENT, "C1"), (_H * _ROPE, "C2")],
        "v, all heads": [(_H * _VALUE, "C1")],
        "o, all heads": [(_H * _VALUE, "#777777")],
    }
    figure, axes = notebook.picture(height=3.2)
    for y, pieces in enumerate(rows.values()):
        left = 0
        for count, colour in pieces:
            axes.barh(y, count, left=left, color=colour, height=0.62)
            left += count
        axes.text(left + 250, y, f"{left:,}", va="center")
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set(xlabel="numbers per token and layer", xlim=(0, 28000))
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_title(f"Green carries the position; the k of all heads repeats one green key {_H} times")
    notebook.show(figure, "Bars of numbers per token and layer; the cached one, 576, is hardly visible.")


def one_query_for_all(fixed: Array, right: Mapping[int, Array]) -> None:
    """Scores with the vector made for distance 0, and the right ones by distance: two clouds, and all correlations."""
    figure, (near, far, line) = notebook.picture(1, 3, width=9.4, height=3.1, width_ratios=[1, 1, 1.35])
    agree = {distance: np.corrcoef(fixed, scores)[0, 1] for distance, scores in right.items()}
    for ax, distance in ((near, 8), (far, 32)):
        ax.plot(right[distance], fixed, ".", markersize=2, color="C1", alpha=0.5)
        limit = 3.6 * fixed.std()
        ax.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[], yticks=[], aspect="equal")
        ax.set(xlabel="right score", ylabel="with the vector of distance 0")
        ax.set_title(f"Distance {distance}: {agree[distance]:.2f}", fontsize=11)
    line.semilogx(list(agree), list(agree.values()), "o-", color="C1")
    line.set(xlabel="distance", ylim=(-0.05, 1.05))
    line.set_title("Correlation by distance", fontsize=11)
    notebook.show(figure, "Right scores against those of one fixed vector: near a line at distance 1, a cloud at 32.")


def product(counts: tuple[int, int]) -> None:
    """The two factors of one head's absorbed matrix beside their product; ``counts`` are the numbers in each."""
    figure, axes = notebook.picture(height=2.1)
    matrices = (  # left edge, rows, columns, colour, name
        (0, _C, _CONTENT, "C1", "$W^{UK\\top}$"),
        (330, _CONTENT, _Q, "C0", "$W^{UQ}$"),
        (2180, _C, _Q, "#777777", "$W^{UK\\top} W^{UQ}$"),
    )
    for left, high, wide, colour, name in matrices:
        axes.barh(0, wide, height=high, left=left, align="center", color=colour)
        axes.text(left + wide / 2, -300, f"{name}\n{high} × {wide}", ha="center", va="top")
    axes.text(2020, 0, "=", fontsize=22, ha="center", va="center")
    for middle, count in zip((930, 2180 + _Q / 2), counts, strict=True):
        axes.text(middle, 320, f"{count:,} numbers", ha="center")
    axes.set(xlim=(-60, 3760), ylim=(-620, 460), aspect="equal")
    axes.set_axis_off()
    axes.set_title("One head, to scale: two thin matrices, and the fat one that does the same")
    notebook.show(figure, "Two thin matrices, and their product of three times their area.")


def decoding(contexts: Array, costs: Mapping[str, list], at: int = 65_536) -> None:
    """Arithmetic and traffic of one new token by context, for three ways to use the cache; numbers of one context."""
    figure, (left, right) = notebook.picture(1, 2, width=9.4, height=3.6)
    traffic = {way: 2e-9 * np.array([c.cache_elements for c in costs[way]]) for way in _WAYS}
    traffic["re-expand"] = traffic["re-expand"] + 2 * traffic["full cache"]  # expanded, written and read
    work = {way: np.array([c.flops / 1e9 for c in costs[way]]) for way in _WAYS}
    place = list(contexts).index(at)
    for axes, values in ((left, work), (right, traffic)):
        for way, colour in _WAYS.items():
            axes.loglog(contexts, values[way], "o-", color=colour, label=way)
            number = values[way][place]
            told = f"{number:,.0f}" if number >= 10 else f"{number:.1f}"
            low = way == "full cache"  # a line runs just above it
            axes.annotate(
                told, (at, number), (4, -13) if low else (-5, 5), textcoords="offset points", ha="left" if low else "right",
                color=colour, weight="bold",
            )  # fmt: skip
        axes.axvline(at, color="black", linewidth=0.9, linestyle=":")
        axes.set_ylim(top=8 * max(v.max() for v in values.values()))
        axes.set(xlabel=f"tokens of context; numbers: at {at:,}")
    left.set(ylabel="GFLOP per new token")
    left.set_title("Arithmetic")
    left.legend(loc="upper left", ncols=3, fontsize=8.5)
    right.set(ylabel="GB per new token")
    right.set_title("Traffic of keys, values, latents")
    notebook.show(figure, "Left: arithmetic by context, re-expanding far above. Right: traffic, absorbed far below.")


def border(context: int = 4096, latent: int = 512) -> None:
    """Work of both forms by the number of new tokens, for V3 with another latent size; between them, its quotient."""
    new = np.unique(np.geomspace(1, context, 60).astype(int))
    expanded, absorbed = (np.array([_work(form, int(n), context, latent) for n in new]) for form in ("expanded", "absorbed"))
    figure, axes = notebook.picture(height=3.2)
    axes.loglog(new, expanded / 1e9, color="C1", label="expanded")
    axes.loglog(new, absorbed / 1e9, color="C0", label="absorbed")
    for n in sorted({1, 2, 16, context}):
        two = [_work(form, n, context, latent) for form in ("expanded", "absorbed")]
        axes.plot([n, n], np.array(two) / 1e9, color="#999999", linewidth=1)
        told = f"{two[0] / two[1]:.0f}×" if two[0] > 9.5 * two[1] else f"{two[0] / two[1]:.2g}×"
        last = n == context
        axes.annotate(
            told, (n, np.sqrt(two[0] * two[1]) / 1e9), (-5 if last else 5, 0), textcoords="offset points",
            ha="right" if last else "left", va="center", weight="bold",
        )  # fmt: skip
    crossing = latent * (_CONTENT + _VALUE) / (2 * latent - _CONTENT - _VALUE)
    axes.axvline(crossing, color="black", linewidth=0.9, linestyle=":")
    axes.set(xlabel="new tokens in one call; bold: expanded / absorbed", ylabel="GFLOP per layer")
    axes.set_title(f"{context:,} tokens in all, latent of {latent}: S* = {crossing:.0f}")
    axes.legend(loc="upper left", bbox_to_anchor=(0.1, 1))
    notebook.show(figure, "Work of both forms against the number of new tokens; they cross.")


def _work(form: str, new: int, context: int, latent: int) -> float:
    """FLOPs of one layer's attention for the last ``new`` of ``context`` tokens, V3 with this latent."""
    pairs = new * (context - (new - 1) / 2)  # causal: a new token sees the earlier ones only
    per_latent = 2 * _H * latent * (_CONTENT + _VALUE)  # to expand one, or to absorb one query and output
    if form == "expanded":
        return per_latent * context + flops.attention_per_pair(_V3) * pairs
    return per_latent * new + 2 * _H * (2 * latent + _ROPE) * pairs


def rotary_part(shares: Array) -> None:
    """Which share of the scores' variance comes from the rotary part, (blocks, H); and the kept study of QK-Clip."""
    figure, (left, right) = notebook.picture(1, 2, width=9.4, height=3.3)
    blocks, heads = shares.shape
    for h in range(heads):
        left.bar(np.arange(blocks) + 0.2 * (h - (heads - 1) / 2), 100 * shares[:, h], width=0.17, color="C2")
    left.set(xticks=range(blocks), xlabel="block", ylabel="% of the variance", ylim=(0, 104))
    left.grid(axis="x", visible=False)
    left.set_title("The rotary part of the scores, each head")
    for arm, colour in (("adamw", "C4"), ("muon", "C1"), ("muon, clipped", "C0")):
        runs = [run["curves"] for run in results("qk-clip")["arms"][arm]["runs"]]
        mean = np.mean([run["largest_logit"] for run in runs], axis=0)
        right.plot(runs[0]["step"], mean, color=colour, label=arm)
    right.axhline(10, color="black", linewidth=0.8, linestyle=":")
    right.set(xlabel="step", ylabel="largest logit", ylim=(0, 24))
    right.legend(loc="upper left", fontsize=9)
    right.set_title("The largest logit in training, three seeds")
    notebook.show(figure, "The rotary part has most of the variance in every head; logits grow, and QK-Clip holds them at ten.")


def clock(heads: int = 8, rounds: int = 5) -> None:
    """Milliseconds of expanded and absorbed attention on this machine: one layer with V3's head sizes, float32, one thread."""
    make = np.random.default_rng(1).standard_normal
    w_uk, w_uv = (make((heads, size, _C), np.float32) / 16 for size in (_CONTENT, _VALUE))

    def times(new: int, context: int) -> dict[str, float]:
        latent, positions = make((1, context, 1, _C), np.float32), make((1, context, 1, _ROPE), np.float32)
        queries = make((1, new, heads, _CONTENT + _ROPE), np.float32)
        held = np.concatenate([latent, positions], axis=-1)  # as the cache has it

        def expanded():
            k = (latent[0, :, 0] @ w_uk.reshape(-1, _C).T).reshape(1, context, heads, _CONTENT)
            v = (latent[0, :, 0] @ w_uv.reshape(-1, _C).T).reshape(1, context, heads, _VALUE)
            turned = np.broadcast_to(positions, (1, context, heads, _ROPE))
            return attention.forward(queries, np.concatenate([k, turned], axis=-1), v, 0.07)[0]

        def absorbed():
            into = queries[..., :_CONTENT].swapaxes(1, 2) @ w_uk  # (1, H, S, d_c)
            q = np.concatenate([into.swapaxes(1, 2), queries[..., _CONTENT:]], axis=-1)
            o = attention.forward(q, held, held[..., :_C], 0.07)[0]
            return (o.swapaxes(1, 2) @ w_uv.swapaxes(1, 2)).swapaxes(1, 2)

        with threadpool_limits(1, user_api="blas"):
            seconds = timing.alternate({"expanded": expanded, "absorbed": absorbed}, rounds)
        return {name: 1e3 * min(values) for name, values in seconds.items()}

    lengths, counts = (128, 256, 512, 1024, 2048), (1, 4, 16, 64, 256, 1024)
    writing, reading = [times(1, length) for length in lengths], [times(count, 1024) for count in counts]
    figure, (left, right) = notebook.picture(1, 2, width=9.4, height=3.5)
    for name, colour in (("expanded", "C1"), ("absorbed", "C0")):
        left.loglog(lengths, [found[name] for found in writing], "o-", color=colour, label=name)
        right.loglog(counts, [found[name] for found in reading], "o-", color=colour, label=name)
    left.set(xlabel="tokens of context", ylabel="milliseconds", xticks=lengths, xticklabels=lengths)
    left.set_title("One new token")
    left.legend()
    crossing = flops.absorption_pays_until(_V3)
    right.axvline(crossing, color="black", linewidth=0.9, linestyle=":")
    right.set(xlabel="new tokens, 1,024 in all", ylabel="milliseconds", xticks=counts, xticklabels=counts)
    right.set_title(f"Many at once; dotted: {crossing:.0f}")
    for ax in (left, right):
        ax.minorticks_off()
    notebook.show(figure, "Measured milliseconds of both forms by context and by number of new tokens.")
