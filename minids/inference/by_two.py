"""Verification and guessing by two threads: who gives orders to the companion of ``minids/kernels/decode_by_two.py``.

The companion is a thread that lives as long as the caches it works on. Between two orders it watches the board, so that an
order reaches it within a microsecond; when none comes for some milliseconds it sleeps until it is woken. Whatever ends the
leader's work, an error or Ctrl-C, first frees a companion that waits for it, and the other way round.

Two threads that wait for each other in every layer need two cores at the same time. On a machine that is busy with other
things they do not get them, and one thread alone is faster by far. So orders are timed: after one that took many times as
long as the fastest of its kind, one thread does the next ones, twice as many every time that this happens again.
"""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Sequence

import numpy as np

from minids.inference import compiled
from minids.inference.cache import Cache, LatentCache
from minids.layers.parameters import Array
from minids.model import DeepSeekV3

TOO_LONG = 4
"""Times the fastest order of its kind: then the other core is taken."""
PAUSE, LONGEST_PAUSE = 16, 1 << 12
"""Passes for which one thread goes on alone, at first and at most."""


class ByTwo:
    """Two threads for one sequence, its cache and that of an MTP module. A context: at its end the second thread is gone."""

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
        self._fastest: dict[tuple[int, int], float] = {}  # seconds, by task and number of rows
        self._alone, self._pause = 0, PAUSE
        self._error: BaseException | None = None
        self._wake, self._thread, self._closing = threading.Semaphore(0), None, False

    def __enter__(self) -> ByTwo:
        return self

    def __exit__(self, *_):
        self.close()

    @property
    def ready(self) -> bool:
        """Whether two threads should take the next pass. Asked once a pass."""
        self._alone = max(self._alone - 1, 0)
        return self._alone == 0

    def verify(self, tokens: Sequence[int]) -> tuple[Array, Array]:
        """Read tokens (S,), at least 2 → h⁰ (S, d) and logits (S, V), the same bits as by one thread."""
        count = len(tokens)
        self._x[:count] = self.step.model.embed_tokens.weight.value[list(tokens)]
        self._order(self.kernels.VERIFY, self.cache, count, (count + 1) // 2)
        return self._x[:count].copy(), self._logits[:count].copy()

    def guess(self, tokens: Array, before: Array) -> tuple[Array, Array]:
        """As ``decode.read_mtp``, tokens (S,) and h^{depth−1} (S, d): of the last position h^depth (1, d) and logits (1, V)."""
        count = len(tokens)
        self._embedding[:count], self._before[:count] = self.step.model.embed_tokens.weight.value[tokens], before
        self._order(self.kernels.GUESS, self.mtp_cache, count, count - 1)
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
            self._begin()
            began = time.perf_counter()
            self._board[[k.TASK, k.ROWS, k.SPLIT, k.START]] = task, rows, split, cache.lengths[0]
            if not k.post(self._board):
                self._wake.release()
            k.lead(self._board, *self._arguments)
        except BaseException:
            self.close()
            raise
        if self._error is not None:
            self.close()
            raise self._error
        cache.advance(rows)
        self._judge((task, rows), time.perf_counter() - began)

    def _judge(self, kind: tuple[int, int], seconds: float) -> None:
        """Whether two threads pay at present."""
        fastest = self._fastest.setdefault(kind, seconds)
        if seconds > TOO_LONG * fastest:
            self._alone, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        elif seconds < fastest:
            self._fastest[kind] = seconds

    def _begin(self) -> None:
        """See to it that a companion is there and works on the caches' present arrays: they move when they grow."""
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
        if self._thread is None:
            self._thread = threading.Thread(target=self._companion, name="minids companion", daemon=True)
            self._thread.start()

    def _companion(self) -> None:
        """The second thread."""
        k = self.kernels
        try:
            while not self._closing:
                self._wake.acquire()
                if not self._closing:
                    self.kernels.serve(self._board, *self._arguments)
        except BaseException as error:
            self._error = error
        finally:
            self._board[k.COMPANION] = self._board[k.DONE] = k.GONE


def by_two(model: DeepSeekV3, cache: Cache, mtp_cache: Cache, depth: int, threads: int) -> ByTwo | None:
    """Two threads, where they may be used and the compiled step serves this model; None where one has to do."""
    if threads < 2:
        return None
    steps = [compiled.step_for(model, c, 1, True) for c in (cache, mtp_cache)]
    return None if None in steps else ByTwo(steps[0], cache, mtp_cache, depth)
