"""Verification and guessing by two threads: who gives orders to the companion of ``minids/kernels/decode_by_two.py``.

The companion is a thread that lives as long as the caches it works on. Between two orders it watches the board, so that an
order reaches it within a microsecond; when none comes for some milliseconds it sleeps until it is woken. Whatever ends the
leader's work, an error or Ctrl-C, first frees a companion that waits for it, and the other way round.

Two threads that wait for each other in every layer need two cores at the same time. On a machine that is busy with other
things they do not get them, and one thread alone is faster by far. So both are tried, again and again, and what was faster of
late does the most of the passes. What comes out has the same bits.
"""

from __future__ import annotations

import importlib
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from statistics import fmean

import numpy as np

from minids.inference import compiled
from minids.inference.cache import Cache, LatentCache
from minids.inference.decode import logits_of, read
from minids.layers.parameters import Array
from minids.model import DeepSeekV3

BURST = 6
"""Passes of a trial."""
SHORT, LONG = 32, 1024
"""Passes until the next trial, at first and at most: twice as many each time that it changed nothing."""


class Turns:
    """Whether two threads or one take the next pass, by what either took of late."""

    def __init__(self):
        self._recent = {two: deque(maxlen=BURST) for two in (True, False)}  # seconds per pass
        self._phases, self._left, self.two = self._plan(), 0, True
        self._fresh = True

    def next(self) -> bool:
        """Whether two threads take the next pass."""
        self._fresh = self._left == 0
        if self._fresh:
            self.two, self._left = next(self._phases)
        self._left -= 1
        return self.two

    def took(self, seconds: float) -> None:
        """How long the pass took. The first of a phase does not count: the companion may have had to be woken."""
        if not self._fresh:
            self._recent[self.two].append(seconds)

    def _plan(self) -> Iterator[tuple[bool, int]]:
        """Who, and for how many passes."""
        best, length = True, SHORT
        yield False, BURST  # first: for a short text a second thread is not worth its start
        yield True, BURST
        while True:
            before, best = best, fmean(self._recent[True]) <= fmean(self._recent[False])
            length = min(2 * length, LONG) if best == before else SHORT
            yield best, length
            yield not best, BURST


class ByTwo:
    """Two threads, or one where ``two`` is false, for one sequence, its cache and that of an MTP module.

    A context: at its end the second thread, which starts with the first order to both, is gone.
    """

    def __init__(self, step: compiled.Step, cache: LatentCache, mtp_cache: LatentCache, depth: int):
        """``depth``: of the MTP module that guesses."""
        self.kernels = importlib.import_module("minids.kernels.decode_by_two")
        self.step, self.cache, self.mtp_cache, self.depth = step, cache, mtp_cache, depth
        model, most, d = step.model, compiled.MOST_ROWS, step.sizes.d
        first = len(model.blocks) + depth - 1
        mtp = (step.mtp_norms[depth - 1], *step.mtp_inputs[depth - 1], first)
        self._own = (step.weights, step.places, step.biases, step.sizes, step.final_norm, step.head_place, *mtp)
        rows = [np.empty((n, d), model.dtype) for n in (most, most, most, 1, 1)]  # x, embedding, h^{depth−1}, normed, other
        self._x, self._embedding, self._before, normed, other = rows
        self._logits = np.empty((most, model.config.vocab_size), model.dtype)
        chosen, gates = np.zeros((1, step.sizes.top_k), np.int64), np.empty((1, step.sizes.top_k), model.dtype)
        self._work = (self._x, self._logits, self._embedding, self._before, normed, chosen, gates, other)
        self._board = np.zeros(self.kernels.BOARD, np.int64)
        self._arguments: tuple = ()
        self._error: BaseException | None = None
        self._wake, self._thread, self._closing = threading.Semaphore(0), None, False

    def __enter__(self) -> ByTwo:
        return self

    def __exit__(self, *_):
        self.close()

    def verify(self, tokens: Sequence[int], two: bool) -> tuple[Array, Array]:
        """Read tokens (S,) → h⁰ (S, d) and logits (S, V), by ``two`` threads or one."""
        count = len(tokens)
        if not two or not 1 < count <= compiled.MOST_ROWS:
            hidden = read(self.step.model, np.array([tokens]), self.cache)[0]
            return hidden, logits_of(self.step.model, hidden, self.cache)
        self._x[:count] = self.step.model.embed_tokens.weight.value[list(tokens)]
        self._order(self.kernels.VERIFY, self.cache, count, (count + 1) // 2)
        return self._x[:count].copy(), self._logits[:count].copy()

    def guess(self, tokens: Array, before: Array, two: bool) -> tuple[Array, Array]:
        """As ``decode.read_mtp``, tokens (S,) and h^{depth−1} (S, d) of at most ``compiled.MOST_ROWS`` positions → of the last
        h^depth (1, d) and logits (1, V), by ``two`` threads or one."""
        count, k = len(tokens), self.kernels
        self._embedding[:count], self._before[:count] = self.step.model.embed_tokens.weight.value[tokens], before
        if two:
            self._order(k.GUESS, self.mtp_cache, count, count - 1)
        else:
            self.mtp_cache.reserve(count)
            self._meet_arrays()
            self._board[[k.ROWS, k.START]] = count, self.mtp_cache.lengths[0]
            k.guess_alone(self._board, *self._arguments)
            self.mtp_cache.advance(count)
        return self._x[count - 1 : count].copy(), self._logits[:1].copy()

    def close(self) -> None:
        """Let the second thread end."""
        if self._thread is not None:
            self._closing = True
            self._board[self.kernels.LEADER] = self.kernels.GONE  # for one that waits in the middle of an order
            self._board[self.kernels.TASK] = self.kernels.LEAVE
            self.kernels.post(self._board)
            self._wake.release()
            self._thread.join()
            self._thread = None

    def _order(self, task: int, cache: LatentCache, rows: int, split: int) -> None:
        """Both threads at one task: ``rows`` new positions of ``cache``, the leader's from or up to ``split``."""
        k = self.kernels
        cache.reserve(rows)
        try:
            self._meet_arrays()
            if self._thread is None:
                self._thread = threading.Thread(target=self._companion, name="minids companion", daemon=True)
                self._thread.start()
            self._board[[k.TASK, k.ROWS, k.SPLIT, k.START]] = task, rows, split, cache.lengths[0]
            if not k.post(self._board):
                self._wake.release()
            k.take_part(True, self._board, *self._arguments)
        except BaseException:
            self.close()
            raise
        if self._error is not None:
            self.close()
            raise self._error
        cache.advance(rows)

    def _meet_arrays(self) -> None:
        """See to it that work goes on in the caches' present arrays: they move when they grow."""
        k, latent, mtp_latent = self.kernels, self.cache.arrays[0], self.mtp_cache.arrays[0]
        if self._arguments and self._arguments[2] is latent and self._arguments[3] is mtp_latent:
            return
        if self._thread is not None:  # it holds the old ones
            self._board[k.TASK] = k.LEAVE
            if not k.post(self._board):
                self._wake.release()
            k.wait(self._board, k.DONE, self._board[k.TICKET])
        angles = self.step.model.rotary(max(latent.shape[2], mtp_latent.shape[2]))
        self._arguments = (self._own, self._work, latent, mtp_latent, angles.cos, angles.sin)

    def _companion(self) -> None:
        """The second thread."""
        k = self.kernels
        try:
            while not self._closing:
                self._wake.acquire()
                if not self._closing:
                    self.kernels.take_part(False, self._board, *self._arguments)
        except BaseException as error:
            self._error = error
        finally:
            self._board[k.COMPANION] = self._board[k.DONE] = k.GONE


def by_two(model: DeepSeekV3, cache: Cache, mtp_cache: Cache, depth: int) -> ByTwo | None:
    """For a model and caches that the compiled step serves; None for others."""
    steps = [compiled.step_for(model, c, 1, True) for c in (cache, mtp_cache)]
    return None if None in steps else ByTwo(steps[0], cache, mtp_cache, depth)
