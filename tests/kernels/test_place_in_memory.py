"""The bits of a result do not depend on where in memory the arrays lie.

LLVM runs a vectorised loop one by one where the array that is read and the one that is written lie close together. Rows are
short here, as that is where they can. A sum formed in such a loop changes its last digit with the allocator's mood: the same
seed would then give other bits once in some ten thousand steps.
"""

import itertools

import numpy as np
import pytest

from minids.kernels import balance_loss, combine, cross_entropy, dispatch, embedding, muon, rmsnorm, router, swiglu

N, K, D, E = 3, 2, 16, 8
PLACE = np.arange(N * K)[::-1].copy()
CHOSEN = np.array([[0, 3], [2, 1], [7, 0]])
TOKENS = np.array([4, 0, 4])

CASES = {  # the shapes of what is placed, and who is called with it
    "combine, forward": ([(N * K, D), (N, K), (N, D)], lambda rows, gates, y: combine.gather(rows, gates, PLACE, y)),
    "combine, backward": (
        [(N, D), (N * K, D), (N, K), (N * K, D), (N, K)],
        lambda dy, rows, gates, d_rows, d_gates: combine.scatter(dy, rows, gates, PLACE, d_rows, d_gates),
    ),
    "dispatch, forward": ([(N, D), (N * K, D)], lambda x, rows: dispatch.copy_out(x, PLACE, K, rows)),
    "dispatch, backward": ([(N * K, D), (N, D)], lambda d_rows, dx: dispatch.add_up(d_rows, PLACE, K, dx)),
    "embedding, backward": ([(N, D), (5, D)], lambda dx, d_weight: embedding.scatter_add(dx, TOKENS, d_weight)),
    "rmsnorm, forward": ([(N, D), (D,), (N, D), (N,)], lambda x, g, y, r: rmsnorm.normalise(x, g, 1e-6, y, r)),
    "rmsnorm, backward": ([(N, D), (N, D), (N,), (D,), (N, D), (D,)], rmsnorm.normalise_backward),
    "swiglu, backward": ([(D,)] * 5, swiglu.activate_backward),
    "router, softmax": ([(N, E), (N, E)], lambda logits, scores: router.score(logits, True, scores)),
    "router, gates": ([(N, E), (N, K)], lambda scores, gates: router.weigh(scores, CHOSEN, True, 2.5, gates)),
    "balance loss, forward": ([(N, E), (1, E)], lambda scores, load: balance_loss.measure(scores, CHOSEN, N, load)),
    "balance loss, backward": ([(N, E), (1, E), (N, E)], lambda s, load, d: balance_loss.differentiate(0.1, s, load, N, d)),
    "cross-entropy, backward": (
        [(N, D), (N,), (N,), (N, D)],
        lambda logits, peak, rscale, d: cross_entropy.differentiate(logits, TOKENS, peak, rscale, 0.1, d),
    ),
    "muon, wide": ([(E, D), (E, D), (E, D)], lambda g, m, x: muon.look_ahead(g, m, x, 0.9, 0.5)),
    "muon, tall": ([(D, E), (D, E), (E, D)], lambda g, m, x: muon.look_ahead(g, m, x, 0.9, 0.5)),
}


def placed(shapes, gap, order):
    """Arrays that follow one another in one piece of memory, ``gap`` bytes apart."""
    total = sum(4 * int(np.prod(shape)) + gap for shape in shapes)
    memory = np.zeros(total + 64, np.uint8)
    at = -memory.ctypes.data % 64
    arrays = {}
    for i in order:
        size = 4 * int(np.prod(shapes[i]))
        arrays[i] = memory[at : at + size].view(np.float32).reshape(shapes[i])
        at += size + gap
    return [arrays[i] for i in range(len(shapes))]


@pytest.mark.parametrize("case", CASES)
def test_bits_are_the_same_wherever_arrays_lie(case):
    shapes, run = CASES[case]
    rng = np.random.default_rng(0)
    content = [np.abs(rng.normal(size=shape)).astype(np.float32) + 0.1 for shape in shapes]
    orders = list(itertools.permutations(range(len(shapes))))[:: max(1, len(shapes) - 2) ** 2]
    results = {}
    for gap in (0, 16, 32, 48, 80, 112, 240, 1024):
        for order in orders:
            arrays = placed(shapes, gap, order)
            for array, values in zip(arrays, content, strict=True):
                array[...] = values
            returned = run(*arrays)
            results.setdefault(b"".join(a.tobytes() for a in arrays) + repr(returned).encode(), (gap, order))
    assert len(results) == 1, f"{len(results)} different results, with (gap in bytes, order) {list(results.values())[:4]}"
