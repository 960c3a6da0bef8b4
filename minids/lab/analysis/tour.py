"""A tour of the model on paper, or through a real one: every step of one training batch, forward and then backward.

Nothing is computed, so V3 takes as long as the tiny preset. Where arrays of a real model are at hand, they are checked against
the shapes on paper and their root-mean-square is printed beside them.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from minids.config import ModelConfig
from minids.errors import refuse
from minids.lab.analysis.flops import check_whole, usual_context
from minids.lab.analysis.memory import activation_elements
from minids.lab.analysis.parameters import Tensor, mtp_total, total
from minids.lab.analysis.steps import walk
from minids.terminal import cut, room
from minids.words import si

WIDTH = 99
BYTES = 4  # an element has, in float32


class TourStep(NamedTuple):
    """One stop. In the backward pass ``output`` is the gradient that arrives and ``weights`` those that receive one."""

    number: int
    phase: str  # forward or backward
    stage: str
    layer: int | None  # first layer that has it
    layers: int  # how many layers repeat it; all sizes are for one of them
    title: str
    equation: str
    weights: tuple[Tensor, ...]
    output: Tensor
    flops: int
    saved: tuple[Tensor, ...]  # kept for the backward pass (forward), given back (backward)
    cached: tuple[Tensor, ...]  # what generation keeps
    formed_again: frozenset[str]  # of the saved, by name: those that recomputation forms again (V3 section 3.2.3)


def tour_steps(config: ModelConfig, batch: int = 1, time: int | None = None) -> list[TourStep]:
    """All steps, forward then backward. ``time`` defaults to 4096 tokens, or fewer where the model takes fewer."""
    forward = walk(config, batch, _context(config, batch, time))
    steps = []
    for s in forward:
        saved = tuple(kept.tensor for kept in s.kept if kept.when != "recomputed")
        again = frozenset(kept.tensor.name for kept in s.kept if kept.when == "stored")
        where = s.stage, s.layer, s.layers, s.title
        steps.append(
            TourStep(len(steps) + 1, "forward", *where, s.equation, s.weights, s.output, s.flops, saved, s.cached, again)
        )
    for s, there in zip(forward[::-1], steps[::-1], strict=True):
        gradient, flops = Tensor(f"d {s.output.name}", s.output.shape), s.flops * s.backward_factor
        back = there._replace(phase="backward", equation=s.backward, output=gradient, flops=flops, cached=())
        steps.append(back._replace(number=len(steps) + 1))
    return steps


def tour(
    config: ModelConfig, name: str, batch: int = 1, time: int | None = None, values: Mapping[str, np.ndarray] | None = None
) -> str:
    """The tour as text, lines of at most 99 characters, on a narrower terminal as many as that has columns.

    ``values`` maps names as printed (``layers.0.c_kv_norm``; stacked experts without the ``*.``) to arrays of the real
    model, as few as there are.
    """
    time = _context(config, batch, time)
    steps = tour_steps(config, batch, time)
    lines = [f"{name}: {batch} × {time:,} tokens, {BYTES} bytes an element, sizes per layer, matrix FLOPs only"]
    here = None
    for step in steps:
        if (step.phase, step.stage) != here:
            here = step.phase, step.stage
            lines += ["", _heading(step)]
        lines += _lines(step, values or {})
    kept = activation_elements(config, batch, time, "recompute")
    return "\n".join([*lines, "", *around_the_step(config), "", *_totals(steps, kept)])


def _context(config: ModelConfig, batch: int, time: int | None) -> int:
    time = usual_context(config) if time is None else time
    check_whole(batch=batch, time=time)
    return time


def around_the_step(config: ModelConfig) -> list[str]:
    """What V3's training does before and after the passes above: section, what, and the option of ``minids train``."""
    average = si(BYTES * (total(config) + mtp_total(config)), "B")
    rows = [
        ("4.1", "documents packed; a tenth as <fim_begin> prefix <fim_hole> suffix <fim_end> middle", "--fim-rate 0.1"),
        ("4.1", "tokens of punctuation and line break split at random", "--line-token-split-rate"),
        ("4.2", "batch B·min(1, r + (1 − r) t/(u T)) after t of T tokens; r = 1/5, u = 0.032", "--batch-ramp-until"),
        ("4.2", "gradient norm clipped to 1; θ ← θ − η (m̂/(√v̂ + ε) + w θ)", "--clip-norm"),
        ("2.1.2", "b_i ← b_i + γ sign(mean load − load_i)", "--model.bias-update-speed"),
        ("3.2.3", f"average of the weights e ← e + (1 − d)(θ − e), {average} beside them", "--ema-decay"),
        ("3.3.2", "FP8 scales from each tile, or from the maxima of earlier steps", "--model.fp8-scaling"),
        ("Kimi-K2", "heads with logits above τ: W^UQ, W^UK · √γ, W^QR · γ, γ = τ / largest", "--qk-clip"),
    ]
    return ["── around the step ".ljust(98, "─"), *(f"  {where:<8}{what}\n{'':10}{option}" for where, what, option in rows)]


def _heading(step: TourStep) -> str:
    place = step.stage
    if step.layers > 1:
        place += f", layers {step.layer} to {step.layer + step.layers - 1} ({step.layers} times)"
    elif step.layer is not None:
        place += f", layer {step.layer}"
    return f"── {step.phase} ── {place} ".ljust(room(98), "─")


def _lines(step: TourStep, values: Mapping[str, np.ndarray]) -> list[str]:
    """A head line with FLOPs; the equation; then one line per tensor: sign, name, shape, size, and rms where it is known."""
    cost = si(step.flops, "FLOP") if step.flops else "–"
    forward = step.phase == "forward"
    if forward:
        equation = f"eq. {step.equation}" if step.equation[:1].isdigit() else step.equation
        half = (room(WIDTH) - 23) // 2
        lines = [f"{step.number:>4}  {cut(step.title, half):<{half}} {cut(equation, half):<{half}} {cost:>14}"]
    else:
        title = room(WIDTH) - 22
        lines = [f"{step.number:>4}  {cut('back: ' + step.title, title):<{title}} {cost:>14}"]
        lines.append(cut(f"      {step.equation}", room(WIDTH)))
    rows = [("w" if forward else "g", t) for t in step.weights]
    rows.append(("→" if forward else "←", step.output))
    signs = ("r", "s") if forward else ("f", "f")
    rows += [(signs[t.name not in step.formed_again], t) for t in step.saved]
    rows += [("c", t) for t in step.cached]
    names = room(WIDTH) - 46
    for sign, tensor in rows:
        shape = "(" + ", ".join(map(str, tensor.shape)) + ")"
        line = f"      {sign} {_end(tensor.name, names):<{names}} {shape:<20} {si(tensor.size * BYTES, 'B'):>7}"
        prefix = "d " if sign == "g" else ""  # a weight's line in the backward pass tells of its gradient
        rms = _rms(tensor, values.get(prefix + tensor.name.replace("experts.*.", "experts.")))
        lines.append(line if rms is None else f"{line} {rms:>8}")
    return lines


def _end(name: str, columns: int) -> str:
    """A tensor's name, without its beginning where there is no room: the layer's number stands above."""
    return name if len(name) <= columns else "…" + name[1 - columns :]


def _rms(tensor: Tensor, value: np.ndarray | None) -> str | None:
    """Root-mean-square of the real array, None where there is none."""
    if value is None:
        return None
    if tuple(value.shape) != tensor.shape:
        raise refuse(tensor.name, tuple(value.shape), f"has another shape than on paper: {tensor.shape}")
    if np.issubdtype(value.dtype, np.integer):
        return None  # token ids and expert numbers have no size
    return f"{np.sqrt(np.mean(np.square(value, dtype=np.float64))):.3g}"


def _totals(steps: list[TourStep], kept: int) -> list[str]:
    """Sums over all layers; saved counts what the forward pass leaves behind at its peak. ``kept``: elements of it that
    recomputation leaves."""

    def size(of: str, some: list[TourStep]) -> str:
        return si(BYTES * sum(step.layers * tensor.size for step in some for tensor in getattr(step, of)), "B")

    work = {phase: si(sum(s.layers * s.flops for s in steps if s.phase == phase), "FLOP") for phase in ("forward", "backward")}
    forward = [s for s in steps if s.phase == "forward"]
    main = [s for s in forward if not s.stage.startswith("MTP")]
    return [
        f"forward {work['forward']}, backward {work['backward']}; saved between them {size('saved', forward)}",
        f"with recomputation (section 3.2.3, minids train --recompute) saved between them {si(BYTES * kept, 'B')}",
        f"cache of the main model for this batch: {size('cached', main)}",
        "w weight   → result   s saved for backward   r saved, or formed again   c cached to generate",
        "← gradient arriving   g weight given its gradient   f saved array given back",
        "last column, where the model is at hand: root-mean-square of the real array",
    ]
