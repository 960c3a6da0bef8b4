"""Recomputation (V3 section 3.2.3): memory it saves and time it costs, beside what ``analysis.memory`` predicts.

kept        all arrays between the forward and the backward pass, each once, weights left out
predicted   the same on paper, by name and shape, for the NumPy backend
peak        most memory that NumPy's arrays took at once during a forward and a backward pass, weights and gradients left out
time        of a forward and a backward pass, with and without by turns
"""

import tracemalloc
from collections.abc import Iterator

import numpy as np
from threadpoolctl import threadpool_limits

from minids import words
from minids.backend import use_backend
from minids.lab.analysis.memory import activation_elements
from minids.lab.bench.sizes import SIZES, Size
from minids.lab.bench.timing import alternate, median, ratio
from minids.layers.parameters import Array, Parameters
from minids.model import DeepSeekV3

BACKENDS = ("numpy", "numba")
BYTES = 4  # a float32
NUMBERS = ("predicted_megabytes", "kept_megabytes", "peak_megabytes", "milliseconds")


def run(sizes: tuple[str, ...], rounds: int, threads: int, against: str | None) -> dict:
    """Forward and backward passes of all ``sizes`` on one core → what ``table`` prints. ``threads`` and ``against`` belong to
    other benches."""
    return {"sizes": {name: {backend: _measured(SIZES[name], backend, rounds) for backend in BACKENDS} for name in sizes}}


def _measured(size: Size, backend: str, rounds: int) -> dict:
    tokens, targets = size.sequences()
    with use_backend(backend), threadpool_limits(1, user_api="blas"):
        models = {"stored": DeepSeekV3(size.config, 0), "recompute": DeepSeekV3(size.config, 0)}
        models["recompute"].recompute = True
        rows = {}
        for name, model in models.items():
            model.forward_backward(tokens, targets)  # compiles
            rows[name] = {
                "predicted_megabytes": BYTES * activation_elements(size.config, size.batch, size.length, name) / 1e6,
                "kept_megabytes": saved_bytes(model.forward(tokens, targets)[1], model.parameters) / 1e6,
                "peak_megabytes": _peak(model, tokens, targets) / 1e6,
            }
        seconds = alternate({name: lambda m=m: m.forward_backward(tokens, targets) for name, m in models.items()}, rounds)
    for name, row in rows.items():
        row["milliseconds"] = 1e3 * median(seconds[name])
    grads = [model.loss_and_grads(tokens, targets)[1] for model in models.values()]
    same = all(a.tobytes() == b.tobytes() for a, b in zip(*(g.values() for g in grads), strict=True))
    return {"rows": rows, "times_as_long": 1 / ratio(seconds, "recompute", "stored"), "same_bits": same}


def _peak(model: DeepSeekV3, tokens: Array, targets: Array) -> int:
    """Bytes that a forward and a backward pass take at most."""
    tracemalloc.start()
    try:
        model.forward_backward(tokens, targets)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def saved_bytes(saved: object, parameters: Parameters) -> int:
    """Of all arrays in nested saved tuples, each buffer once, parameters left out."""
    buffers = {id(array): array for array in _buffers(saved)}
    buffers.pop(id(parameters.values), None)
    return sum(array.nbytes for array in buffers.values())


def _buffers(node: object) -> Iterator[Array]:
    if isinstance(node, np.ndarray):
        while isinstance(node.base, np.ndarray):
            node = node.base
        yield node
    elif isinstance(node, (tuple, list)):
        for child in node:
            yield from _buffers(child)


def table(found: dict) -> str:
    """What ``run`` found, for a terminal."""
    lines = ["Activations of a forward and a backward pass on one core, all stored and with recomputation. MB of 10⁶ bytes."]
    head = ("", "", "predicted", "kept", "peak", "ms", "times as long", "gradients")
    for name, backends in found["sizes"].items():
        cells = []
        for backend, at in backends.items():
            for kind, row in at["rows"].items():
                again = kind == "recompute"
                sizes = (f"{row[key]:.1f}" for key in NUMBERS)
                same = "the same bits" if at["same_bits"] else "DIFFER"
                cells.append((backend, kind, *sizes, f"{at['times_as_long']:.2f}" if again else "", same if again else ""))
        lines += ["", name, words.table(cells, head, "llrrrrrl")]
    return "\n".join(lines)
