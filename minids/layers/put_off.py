"""Weight gradients put off: the backward pass in two parts, for the inputs at once and for the weights at any time after.

In a pipeline only the gradient of a stage's input is waited for, by the stage before. Zero-bubble schedules therefore split the
backward pass (DeepSeek-V3 section 3.2.1, after Qi et al. 2023) and fill gaps with the weights' part:

    with weights_put_off() as later:
        dx = layer.backward(dy, saved)      # matrices' gradients are not formed
    ...
    for add in later:
        add()                               # now they are, and added where they belong

Every matrix is put off: linear maps, experts, eh_proj, embeddings. Gains and biases of norms, a sum each, are not, and neither
are the matrices of FP8 layers, whose quantised operands serve both parts at once. In between dy and what the forward pass saved
stay in memory. Each thread puts off for itself.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class _OfThread(threading.local):
    later: list[Callable[[], None]] | None = None


_here = _OfThread()


def waiting() -> list[Callable[[], None]] | None:
    """Where a layer puts what adds its weights' gradients; None where they are added at once."""
    return _here.later


@contextmanager
def weights_put_off() -> Iterator[list[Callable[[], None]]]:
    """Backward passes in the block put off their weights' gradients: calls, to be made in this order, once each."""
    before, _here.later = _here.later, []
    try:
        yield _here.later
    finally:
        _here.later = before
