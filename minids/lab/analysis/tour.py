"""A tour of the model on paper, or through a real one: every step of one training batch, forward and then backward.

    tour_steps(config)  the steps as data             format_tour(...)  the same as text for the terminal

Nothing is computed, so V3 takes as long as the tiny preset. Where arrays of a real model are at hand, they are checked against
the shapes on paper and their root-mean-square is printed beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from minids.config import ModelConfig
from minids.errors import refuse
from minids.lab.analysis.flops import usual_context
from minids.lab.analysis.parameters import Tensor
from minids.lab.analysis.steps import walk
from minids.words import si

Values = Mapping[str, np.ndarray] | Callable[[str], np.ndarray | None]


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
    output_bytes: int
    flops: int
    saved: tuple[Tensor, ...]  # kept for the backward pass (forward), given back (backward)
    saved_bytes: int
    cached: tuple[Tensor, ...]  # what generation keeps
    cached_bytes: int


def tour_steps(config: ModelConfig, batch: int = 1, time: int | None = None, bytes_per_element: int = 4) -> list[TourStep]:
    """All steps, forward then backward. ``time`` defaults to 4096 tokens, or fewer where the model takes fewer."""
    time = _context(config, batch, time)
    forward = walk(config, batch, time)
    steps = []

    def size(tensors) -> int:
        return sum(t.size for t in tensors) * bytes_per_element

    for phase, order in (("forward", forward), ("backward", forward[::-1])):
        back = phase == "backward"
        for step in order:
            saved = tuple(kept.tensor for kept in step.kept if kept.when != "recomputed")
            output = step.output._replace(name=f"d {step.output.name}") if back else step.output
            flops, cached = step.flops * (step.backward_factor if back else 1), () if back else step.cached
            words = step.title, step.backward if back else step.equation
            where = len(steps) + 1, phase, step.stage, step.layer, step.layers
            sizes = output, size([output]), flops, saved, size(saved), cached, size(cached)
            steps.append(TourStep(*where, *words, step.weights, *sizes))
    return steps


def tour(
    config: ModelConfig,
    name: str,
    batch: int = 1,
    time: int | None = None,
    bytes_per_element: int = 4,
    values: Values | None = None,
) -> str:
    """The tour as text, lines of at most 99 characters.

    ``values`` maps names as printed (``model.layers.0.self_attn.o_proj.weight``, ``layers.0.c_kv_norm``) to arrays of the
    real model; stacked experts are asked for without the ``*.``, as the package names them. It may hold as few as it likes;
    an array of another shape than on paper raises ``MinidsError``.
    """
    time = _context(config, batch, time)
    steps = tour_steps(config, batch, time, bytes_per_element)
    look_up = values if callable(values) else (values or {}).get
    title = f"{name}: {batch} × {time:,} tokens, {bytes_per_element} bytes an element, sizes per layer, matrix FLOPs only"
    lines = [title]
    here = None
    for step in steps:
        if (step.phase, step.stage) != here:
            here = step.phase, step.stage
            lines += ["", _heading(step)]
        lines += _lines(step, look_up)
    return "\n".join([*lines, "", *_totals(steps)])


def _context(config: ModelConfig, batch: int, time: int | None) -> int:
    if time is None:
        time = usual_context(config)
    for field, value in (("batch", batch), ("time", time)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise refuse(field, value, "must be a whole number of at least 1")
    return time


def _heading(step: TourStep) -> str:
    place = step.stage
    if step.layers > 1:
        place += f", layers {step.layer} to {step.layer + step.layers - 1} ({step.layers} times)"
    elif step.layer is not None:
        place += f", layer {step.layer}"
    return f"── {step.phase} ── {place} ".ljust(98, "─")


def _lines(step: TourStep, look_up) -> list[str]:
    """A head line with FLOPs; the equation; then one line per tensor: sign, name, shape, size, and rms where it is known."""
    cost = si(step.flops, "FLOP") if step.flops else "–"
    if step.phase == "forward":
        equation = f"eq. {step.equation}" if step.equation[:1].isdigit() else step.equation
        lines = [f"{step.number:>4}  {step.title:<38.38} {equation:<38.38} {cost:>14}"]
    else:
        lines = [f"{step.number:>4}  {'back: ' + step.title:<77.77} {cost:>14}", f"      {step.equation}"]
    each = step.output_bytes // max(step.output.size, 1)
    forward = step.phase == "forward"
    rows = [("w" if forward else "g", a) for a in step.weights]
    rows.append(("→" if forward else "←", step.output))
    rows += [("s" if forward else "f", a) for a in step.saved]
    rows += [("c", a) for a in step.cached]
    for sign, array in rows:
        of_gradient = sign == "g"  # a weight's line in the backward pass tells of its gradient
        shape = "(" + ", ".join(map(str, array.shape)) + ")"
        line = f"      {sign} {array.name:<53} {shape:<20} {si(array.size * each, 'B'):>7}"
        rms = _rms(array, "d " + array.name if of_gradient else array.name, look_up)
        lines.append(line if rms is None else f"{line} {rms:>8}")
    return lines


def _rms(array: Tensor, name: str, look_up) -> str | None:
    """Root-mean-square of the real array called ``name``, None where there is none."""
    value = look_up(name.replace("experts.*.", "experts."))
    if value is None:
        return None
    if tuple(value.shape) != array.shape:
        raise refuse(array.name, tuple(value.shape), f"has another shape than on paper: {array.shape}")
    if np.issubdtype(value.dtype, np.integer):
        return None  # token ids and expert numbers have no size
    return f"{np.sqrt(np.mean(np.square(value, dtype=np.float64))):.3g}"


def _totals(steps: list[TourStep]) -> list[str]:
    """Sums over all layers; saved counts what the forward pass leaves behind at its peak."""
    forward = sum(s.layers * s.flops for s in steps if s.phase == "forward")
    backward = sum(s.layers * s.flops for s in steps if s.phase == "backward")
    saved = sum(s.layers * s.saved_bytes for s in steps if s.phase == "forward")
    main = [s for s in steps if s.phase == "forward" and not s.stage.startswith("MTP")]
    cached = sum(s.layers * s.cached_bytes for s in main)
    return [
        f"forward {si(forward, 'FLOP')}, backward {si(backward, 'FLOP')}; saved between them {si(saved, 'B')}",
        f"cache of the main model for this batch: {si(cached, 'B')}",
        "w weight   → result   s saved for backward   c cached to generate",
        "← gradient arriving   g weight given its gradient   f saved array given back",
        "last column, where the model is at hand: root-mean-square of the real array",
    ]
