"""Figure 23: where the time of a training step goes, operation by operation, in NumPy and in Numba, and PyTorch's beside it."""

from __future__ import annotations

import importlib.util
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import minids.ops
from minids.backend import op
from minids.lab.bench.sizes import SIZES
from minids.lab.bench.timing import median
from minids.lab.bench.train import contenders
from minids.lab.figures.picture import Picture, Rows, distinct, only
from minids.lab.figures.slide import Slide
from minids.lab.figures.style import colour

_KINDS = {
    "experts": ("grouped_feed_forward", "routed"),
    "attention": ("attention", "latent"),
    "linear maps": ("linear", "hidden"),
    "AdamW": ("adamw", "backward"),
    "cross-entropy": ("cross_entropy", "ink"),
    "norms, RoPE, SwiGLU": ("rmsnorm rope swiglu", "rope"),
    "routing": ("router dispatch combine balance_loss", "weights"),
}
REST = ("everything else", "other3")


def _rows(size: str = "A-12x64", rounds: int = 7) -> Rows:
    """Measures on this machine, one thread, all by turns: ``size``: one of the bench's models and batches; ``rounds``: whose
    median counts. PyTorch takes part where torch and transformers are installed."""
    against = "torch" if all(importlib.util.find_spec(name) for name in ("torch", "transformers")) else None
    spent: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with ExitStack() as stack:
        steps = contenders(SIZES[size], 1, against, stack)
        for turn in range(rounds + 1):
            for name, step in steps.items():
                with _watch() as seconds:
                    began = time.perf_counter()
                    step()
                    whole = time.perf_counter() - began
                if turn:  # the first turn compiles
                    for operation in (*seconds, "whole"):
                        spent[name][operation].append(seconds.get(operation, whole))
    rows: Rows = []
    for name, operations in spent.items():
        whole = 1e3 * median(operations.pop("whole"))
        known = {operation: 1e3 * median(times) for operation, times in operations.items()}
        rows.append({"contender": name, "part": "whole", "milliseconds": whole, "size": size, "tokens": SIZES[size].tokens})
        if not known:
            continue
        for part, (names, _) in _KINDS.items():
            rows.append({"contender": name, "part": part, "milliseconds": sum(known.pop(n, 0.0) for n in names.split())})
        rest = whole - sum(row["milliseconds"] for row in rows if row["contender"] == name and row["part"] != "whole")
        rows.append({"contender": name, "part": REST[0], "milliseconds": rest})
    return rows


@contextmanager
def _watch() -> Iterator[dict[str, float]]:
    """Within it, every operation notes the seconds it takes: those called by the layers, not those inside one another."""
    seconds: dict[str, float] = {}
    depth = 0

    class Timed:
        def __init__(self, name, operation):
            self._name, self._operation = name, operation

        def __getattr__(self, attribute):
            found = getattr(self._operation, attribute)
            if not callable(found) or isinstance(found, type):
                return found

            def call(*arguments, **more):
                nonlocal depth
                depth += 1
                began = time.perf_counter()
                try:
                    return found(*arguments, **more)
                finally:
                    depth -= 1
                    if not depth:
                        seconds[self._name] = seconds.get(self._name, 0.0) + time.perf_counter() - began

            return call

    names = [path.stem for path in Path(minids.ops.__file__).parent.glob("*.py") if not path.stem.startswith("_")]
    before = {name: getattr(op, name) for name in names}
    for name, operation in before.items():
        setattr(op, name, Timed(name, operation))
    try:
        yield seconds
    finally:
        for name, operation in before.items():
            setattr(op, name, operation)


_NAMES = {"numpy": "NumPy", "numba": "Numba", "torch": "PyTorch", "torch eager": "PyTorch", "torch compiled": "compiled"}


def _draw(slide: Slide, rows: Rows) -> None:
    whole = {row["contender"]: row["milliseconds"] for row in only(rows, part="whole")}
    peers = [name for name in whole if name not in ("numpy", "numba")]
    slow = peers[0] if peers else "numpy"
    first = only(rows, part="whole")[0]
    top = slide.title(
        f"A training step in Numba: {whole[slow] / whole['numba']:.1f} times as fast as {_called(slow)}, "
        f"{whole['numpy'] / whole['numba']:.1f} times as NumPy"
        if peers
        else f"A training step in Numba is {whole['numpy'] / whole['numba']:.1f} times as fast as in NumPy",
        f"Bench size {first['size']}: {first['tokens']:,} tokens, one thread, AdamW included, by turns in one process",
    )
    rim = dict(edgecolor=colour("background"), linewidth=1.2 * slide.scale)
    order = sorted(whole, key=lambda name: -whole[name])
    ax = slide.plot(3.3, 2.35, 10.8, top - 2.6)
    largest = max(whole.values())
    kinds = {part: kind for part, (_, kind) in _KINDS.items()} | {REST[0]: REST[1]}
    for place, name in zip(range(len(order), 0, -1), order, strict=True):
        parts = [row for row in only(rows, contender=name) if row["part"] != "whole"]
        if not parts:
            ax.barh(place, whole[name], height=0.6, color=colour("faint"))
        left = 0.0
        for row in parts:
            ax.barh(place, row["milliseconds"], left=left, height=0.6, color=colour(kinds[row["part"]]), **rim)
            left += row["milliseconds"]
        weight = "bold" if name == "numba" else "normal"
        slide.label(ax, whole[name], place, f"{whole[name]:,.0f} ms", 19, 10, "center_baseline", fontweight=weight)
    ax.set(xlim=(0, largest), ylim=(0.4, len(order) + 0.6), xticks=[])
    ax.set_yticks(range(len(order), 0, -1), [_called(name) for name in order])
    ax.tick_params(axis="y", length=0, labelsize=18 * slide.scale)
    for edge in ("left", "bottom"):
        ax.spines[edge].set_visible(False)
    shown = [part for part in distinct(rows, "part") if part != "whole"]
    for i in range(0, len(shown), 3):
        for j, part in enumerate(shown[i : i + 3]):
            slide.legend(1.4 + 4.9 * j, 1.75 - 0.55 * (i // 3), [(part, kinds[part])])


def _called(name: str) -> str:
    for known, words in _NAMES.items():
        if name == known:
            return words
    return name.replace("torch", "PyTorch")


step_time = Picture(
    23,
    "step_time",
    "Time of one training step by operation, in NumPy and in the compiled kernels, and PyTorch's whole step beside them.",
    "Horizontal bars, two divided by operation: NumPy's, with large parts for experts, linear maps and attention, and the "
    "compiled kernels', which is clearly shorter in every part but the products; PyTorch's whole step, undivided, beside them.",
    _rows,
    _draw,
    source="measurement",
)
