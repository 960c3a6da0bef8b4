"""Short sequences at first: the same tokens in more and shorter rows, and the full context at the end of a run.

V3 reads 4,096 tokens at a time for all of its 14.8T, and is brought to 32K and 128K in 2,000 steps at the end (section 4.3). At
laptop size the same order pays for another reason: what a small model learns first, spelling and grammar, lies within few
tokens, and a row of 256 shows attention 256 places to look at before any is worth it.

A step has as many tokens as before: a batch (B, T) becomes (B T/S, S), row by row. The first token of each shorter row has
nothing before it.
"""

from minids.config import TrainConfig
from minids.layers.parameters import Array
from minids.training.batch_ramp import Growing, growing, share_done
from minids.training.batches import Batches
from minids.training.loop import Supply


def context(step: int, train: TrainConfig) -> int:
    """Tokens per sequence in step ``step``, counted from 0."""
    short = train.short_context_until > 0 and share_done(step, train) < train.short_context_until
    return min(train.short_context, train.context_length) if short else train.context_length


class Shortened:
    """The supply of a run that begins with short sequences."""

    def __init__(self, batches: Batches | Growing, train: TrainConfig, finished: int = 0):
        """``finished``: steps whose batches have been given out before."""
        self.batches, self.train = batches, train
        self.given = finished * train.gradient_accumulation_steps  # micro-batches

    def next(self) -> tuple[Array, Array]:
        """tokens and the tokens that follow them, (B T/S, S) each."""
        length = context(self.given // self.train.gradient_accumulation_steps, self.train)
        self.given += 1
        tokens, targets = self.batches.next()  # (B, T) each
        return tokens.reshape(-1, length), targets.reshape(-1, length)


def supply(batches: Batches, train: TrainConfig, finished: int = 0) -> Supply:
    """What a run's steps are made of: ``batches`` in the sizes and lengths that the run asks for."""
    given = growing(batches, train, finished)
    return Shortened(given, train, finished) if train.short_context_until else given
