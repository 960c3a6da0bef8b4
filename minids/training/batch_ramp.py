"""A batch that grows during the first part of a run, and where a run stands in tokens (V3 section 4.2).

V3 trains with 3,072 sequences a step at first and with 15,360 after 469B of its 14.8T tokens: a fifth, for 3.2 % of the run.
Here in shares of any run. With B sequences at the end, r = ``batch_ramp_from``, u = ``batch_ramp_until`` and T tokens in all,

    B(t) = B · min(1, r + (1 − r) t / (u T))       after t tokens, in whole sequences
    T    = steps · B / (1 − u + u ln(1/r) / (1 − r))        from dt = B(t) ds, which makes the ramp an exponential in steps

All other courses of a run (learning rate, λ, γ) are in shares of its tokens, as in the paper; without a ramp that is the share
of its steps.
"""

import math
from functools import lru_cache
from itertools import accumulate

from minids.config import TrainConfig
from minids.layers.parameters import Array
from minids.training.batches import Batches


def _stretch(train: TrainConfig) -> float:
    """Steps that a run needs with its ramp, over those with a constant batch."""
    r, u = train.batch_ramp_from, train.batch_ramp_until
    return 1 - u + u * (math.log(1 / r) / (1 - r) if r < 1 else 1)


@lru_cache(maxsize=4)
def _plan(train: TrainConfig) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of a run with a ramp: sequences of every step's micro-batches, and sequences before every step, with the total last."""
    r, u, most = train.batch_ramp_from, train.batch_ramp_until, train.batch_size
    ramp = u * train.steps * most / _stretch(train)  # sequences seen while the batch grows

    def size(seen: float) -> float:
        return most * min(1.0, r + (1 - r) * seen / ramp)

    sizes, seen = [], 0
    for _ in range(train.steps):
        sizes.append(max(1, round(size(seen + size(seen) / 2))))  # as it is in the middle of the step
        seen += sizes[-1]
    return tuple(sizes), (0, *accumulate(sizes))


def sequences(step: int, train: TrainConfig) -> int:
    """In each micro-batch of step ``step``, counted from 0."""
    return _plan(train)[0][step] if train.batch_ramp_until else train.batch_size


def tokens_before(step: int, train: TrainConfig) -> int:
    """Tokens of all steps before step ``step``, counted from 0; before step ``train.steps``: of the run."""
    if not train.batch_ramp_until:
        return step * train.tokens_per_step
    return _plan(train)[1][step] * train.context_length * train.gradient_accumulation_steps


def steps_for(tokens: int, train: TrainConfig) -> int:
    """Steps after which a run with this batch and ramp has seen about so many tokens."""
    return max(1, round(tokens / train.tokens_per_step * (_stretch(train) if train.batch_ramp_until else 1)))


def share_done(step: int, train: TrainConfig) -> float:
    """Of the run's tokens, before step ``step``."""
    if not train.batch_ramp_until:
        return step / train.steps
    seen = _plan(train)[1]
    return seen[step] / seen[-1]


class Growing:
    """The supply of a run with a ramp: every micro-batch as large as its step asks for."""

    def __init__(self, batches: Batches, train: TrainConfig, finished: int = 0):
        """``finished``: steps whose batches have been given out before."""
        self.batches, self.train = batches, train
        self.given = finished * train.gradient_accumulation_steps  # micro-batches

    def next(self) -> tuple[Array, Array]:
        """tokens and the tokens that follow them, (B(t), T) each."""
        step = self.given // self.train.gradient_accumulation_steps
        self.given += 1
        return self.batches.next(sequences(step, self.train))


def growing(batches: Batches, train: TrainConfig, finished: int = 0) -> Batches | Growing:
    return Growing(batches, train, finished) if train.batch_ramp_until else batches
