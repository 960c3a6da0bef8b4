"""A text with every token in the colour of its expert: for the terminal, as a web page, as a picture.

The expert of a token is the routed one with the largest gate. Experts of one group (node) have one hue, so that a token's node
is seen at a glance and its expert at a second.
"""

import colorsys
import html
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from minids.errors import refuse
from minids.lab.analysis.routing import relative_load
from minids.lab.analysis.routing_trace import LayerTrace, RoutingTrace
from minids.lab.figures.canvas import Box, Canvas
from minids.lab.figures.glyphs import drawable, families, letters
from minids.lab.figures.style import MONO, SMALLEST, WIDTH, encoded, ink_on, style
from minids.terminal import UNKNOWN, clean, room


class Piece(NamedTuple):
    """One token as it is shown."""

    text: str
    newline: bool  # whether the line ends behind it


def pieces(tokens: Sequence[int], tokenizer) -> list[Piece]:
    """Every token by itself. What cannot be printed alone (a control character, part of a longer character) is a dot."""
    out = []
    for token in tokens:
        special = int(token) in (tokenizer.bos_id, tokenizer.eos_id)
        text = "" if special else tokenizer.decode([int(token)])
        shown = "".join("⏎" if c == "\n" else "·" if c == UNKNOWN else clean(c, keep="\t") for c in text)
        out.append(Piece(shown or "▸", "\n" in text))
    return out


def palette(experts: int, groups: int) -> list[str]:
    """A colour for each expert: a hue for its group, lighter and darker within the group."""
    each = experts // groups
    found = []
    for expert in range(experts):
        group, place = divmod(expert, each)
        hue = (0.58 + group / groups + 0.5 / groups * (place / each - 0.5)) % 1.0
        light = 0.30 + 0.52 * (place / (each - 1) if each > 1 else 0.5)
        found.append("#" + "".join(f"{round(255 * c):02X}" for c in colorsys.hls_to_rgb(hue, light, 0.62)))
    return found


def leading(layer: LayerTrace, sequence: int = 0) -> np.ndarray:
    """The expert with the largest gate, (T,) int."""
    best = layer.gates[sequence].argmax(axis=-1)[:, None]
    return np.take_along_axis(layer.chosen[sequence], best, axis=-1)[:, 0]


def layer_of(trace: RoutingTrace, block: int) -> LayerTrace:
    """The MoE layer of block ``block``; −1 is the last one."""
    by_block = {int(layer.name.split(".")[2]): layer for layer in trace.layers}
    if block == -1:
        return trace.layers[-1]
    if block not in by_block:
        raise refuse("layer", block, f"is no block with experts; there are {', '.join(map(str, by_block))}")
    return by_block[block]


def in_terminal(trace: RoutingTrace, shown: Sequence[Piece], layer: LayerTrace, coloured: bool) -> str:
    """The first sequence for a terminal of 24-bit colours; without them, tokens stand behind their expert's number."""
    experts, colours, out = leading(layer), palette(trace.experts, trace.groups), []
    for i, (piece, expert) in enumerate(zip(shown, experts, strict=True)):
        named = i == 0 or experts[i - 1] != expert or shown[i - 1].newline
        out.append(_painted(colours[expert], piece.text) if coloured else f"[{expert}]" * bool(named) + piece.text)
        out.append("\n" * piece.newline)
    return "".join(out).rstrip("\n")


def legend(trace: RoutingTrace, layer: LayerTrace, coloured: bool) -> str:
    """Every expert with its load relative to the mean, a line for each group."""
    colours = palette(trace.experts, trace.groups)
    load = relative_load(np.bincount(layer.chosen.reshape(-1), minlength=trace.experts))
    each, row = trace.experts // trace.groups, max(1, min(8, (room(104) - 8) // 12))
    lines = []
    for group in range(trace.groups):
        experts = range(group * each, (group + 1) * each)
        numbers = [_painted(colours[e], f" {e:>3} ") if coloured else f" {e:>3} " for e in experts]
        cells = [f"{number} {load[e]:4.2f}" for e, number in zip(experts, numbers, strict=True)]
        lines += [f"node {group}  " + "  ".join(cells[i : i + row]) for i in range(0, each, row)]
    return "\n".join(lines)


def as_html(trace: RoutingTrace, shown: Sequence[Piece], title: str) -> str:
    """A page that needs nothing else: buttons choose the layer, pointing at a token shows all its experts and gates."""
    colours, each = palette(trace.experts, trace.groups), trace.experts // trace.groups
    layers = {".".join(layer.name.split(".")[1:3]): layer for layer in trace.layers}  # layers.3
    rules, buttons, best = "", "", [leading(layer) for layer in trace.layers]
    for i, name in enumerate(layers):
        rules += f"#l{i}:checked~pre span{{background:var(--b{i});color:var(--c{i})}}"
        checked = " checked" * (i + 1 == len(layers))
        buttons += f'<input type="radio" name="layer" id="l{i}"{checked}><label for="l{i}">{name}</label>\n'
    spans, swatches = "", ""
    for t, piece in enumerate(shown):
        fills = [colours[experts[t]] for experts in best]
        variables = ";".join(f"--b{i}:{fill};--c{i}:{ink_on(fill)}" for i, fill in enumerate(fills))
        told = []  # what pointing at it shows
        for name, at in layers.items():
            gates = sorted(zip(at.chosen[0, t], at.gates[0, t], strict=True), key=lambda pair: -pair[1])
            told.append(html.escape(f"{name}: " + ", ".join(f"{e} ({g:.2f})" for e, g in gates)))
        pointed = "\n".join(told)
        spans += f'<span style="{variables}" title="{pointed}">{html.escape(piece.text)}</span>' + "\n" * piece.newline
    for expert, fill in enumerate(colours):
        swatches += f'<span class="key" style="background:{fill};color:{ink_on(fill)}">{expert}</span>'
        swatches += "<br>" * ((expert + 1) % each == 0)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>
<style>
body{{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;background:#fff;color:#1a1a1a}}
pre{{font:16px/1.7 monospace;white-space:pre-wrap;overflow-wrap:anywhere}}
label{{margin-right:1rem}} .key{{display:inline-block;width:2.6rem;text-align:center;font:14px monospace}}
{rules}
</style></head><body>
<h1>{html.escape(title)}</h1>
<p>Each token in the colour of the expert with the largest gate. Rows of the key are groups (nodes).</p>
<p>{swatches}</p>
{buttons}<pre>{spans}</pre>
</body></html>
"""


def as_png(trace: RoutingTrace, shown: Sequence[Piece], layer: LayerTrace, title: str, columns: int = 96) -> bytes:
    """A slide-wide picture, as high as the text needs."""
    colours, experts = palette(trace.experts, trace.groups), leading(layer)
    boxes, marks, row, at = [], [], 0, 0  # in columns and rows, from above
    for piece, expert in zip(shown, experts, strict=True):
        found = letters(drawable(piece.text.replace("\t", "⇥"), MONO))
        wide = sum(width for _, width, _ in found)
        if at and at + wide > columns:
            row, at = row + 1, 0
        boxes.append((Box(at, 4 + row, wide, 1), colours[expert]))
        marks += [(at + place + width / 2, 4.5 + row, letter, colours[expert], 9.6) for place, width, letter in found]
        row, at = (row + 1, 0) if piece.newline else (row, at + wide)
    rows, each = row + (at > 0), trace.experts // trace.groups
    for expert, fill in enumerate(colours):
        group, place = divmod(expert, each)
        x, y = 3 * (place % 32), 5 + rows + (group * -(-each // 32) + place // 32) * 1.25
        boxes.append((Box(x, y, 2.9, 1.1), fill))
        marks.append((x + 1.45, y + 0.55, str(expert), fill, 10))
    line = 0.23  # inches; 96 letters of DejaVu Sans Mono of 9.6 points fill the width of 12.8
    height = 1.6 + line * rows + 0.3 * trace.groups * -(-each // 32)
    with style():
        slide = Canvas(height=16 * height / WIDTH)
        slide.ax.set(position=(0.02, 0, 0.96, 1), xlim=(0, columns), ylim=(height / line, 0))
        slide.verbatim(0, 1.6, title, SMALLEST, weight="bold", va="baseline")
        about = f"{layer.name}: the routed expert with the largest gate; rows of the key are nodes"
        slide.verbatim(0, 3.2, about, 12, va="baseline")
        slide.many([box for box, _ in boxes], [fill for _, fill in boxes])
        for x, y, mark, fill, size in marks:
            slide.verbatim(x, y, mark, size, ink_on(fill), ha="center", family=families(MONO))
        return encoded(slide.figure, "png")


def _painted(fill: str, words: str) -> str:
    """Words on a colour, for a terminal of 24 bits."""
    behind, ink = (";".join(str(int(shade[i : i + 2], 16)) for i in (1, 3, 5)) for shade in (fill, ink_on(fill)))
    return f"\x1b[48;2;{behind};38;2;{ink}m{words}\x1b[0m"
