"""What a run shows: lines of text, a bar on a terminal or in a notebook, and how Ctrl-C ends it between two steps."""

import importlib
import importlib.util
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar

from tqdm import tqdm

from minids.model import Losses
from minids.terminal import say

Say = Callable[[str], None]
SHORTEST = 8  # columns of a bar, at least


class Voice:
    """Says lines through ``say``; where nobody listens any more (``| head``) it goes on at stderr, and calls ``unheard``."""

    def __init__(self, say: Say, unheard: Callable[[], None]):
        self._say, self._unheard = say, unheard

    def __call__(self, line: str) -> None:
        try:
            with tqdm.external_write_mode():  # a bar would be torn by what is printed beside it
                self._say(line)
        except BrokenPipeError:
            self._say = self._on_stderr
            self._unheard()

    def _on_stderr(self, line: str) -> None:
        with suppress(OSError):  # nor here (``2>&1 | head``)
            say(line, file=sys.stderr)


_bars = ContextVar("bars", default=True)


@contextmanager
def without_bars() -> Iterator[None]:
    """Within it no bar is drawn: for whoever makes several runs, and has a bar over all of them."""
    before = _bars.set(False)
    try:
        yield
    finally:
        _bars.reset(before)


def progress_bar(steps: int, finished: int, quiet: bool = False) -> tqdm:
    """Disabled if ``quiet``, by tqdm's own variable TQDM_DISABLE, and where the output is a file, which gets lines instead."""
    notebook, kind = "ipykernel" in sys.modules, tqdm
    if notebook and importlib.util.find_spec("ipywidgets"):  # without it tqdm's own choice is a warning
        kind = importlib.import_module("tqdm.auto").tqdm
    shown = _bars.get() and not quiet and not os.environ.get("TQDM_DISABLE")
    quiet = not (shown and (sys.stderr.isatty() or notebook))
    shape = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {remaining}{postfix}"
    return kind(total=steps, initial=finished, disable=quiet, dynamic_ncols=True, bar_format=shape)


def in_words(losses: Losses, max_violation: float | None, tokens_per_second: float) -> list[str]:
    """What a step came to, in parts."""
    parts = [f"loss {losses.main:.3f}"]
    parts += ["mtp " + " ".join(f"{loss:.3f}" for loss in losses.mtp)] if losses.mtp else []
    parts += [] if max_violation is None else [f"MaxVio {max_violation:.2f}"]
    return [*parts, f"{tokens_per_second:,.0f} tokens/s"]


def beside_bar(parts: Sequence[str], bar: tqdm, columns: int | None = None) -> str:
    """As many parts as leave ``SHORTEST`` columns to the bar: the first ones and the last give way last. ``columns`` are the
    terminal's if not given."""
    if columns is None:
        columns = shutil.get_terminal_size((80, 24)).columns
    numbers = len(f"100%||  {bar.total}/{bar.total} 00:00, ")
    room, shown = columns - numbers - SHORTEST, list(parts)
    while len(shown) > 1 and len(" ".join(shown)) > room:
        del shown[-2 if len(shown) > 2 else -1]
    return " ".join(shown)


def sums_in_words(right: Mapping[str, float]) -> str:
    """{"one-digit sums": 0.97} → "97 % of one-digit sums"."""
    return ", ".join(f"{100 * share:.0f} % of {kind}" for kind, share in right.items())


def able(bits: Mapping[str, float], right: Mapping[str, float]) -> str:
    """What a model can do, in one sentence: bits per byte of each domain, and how many sums come out right."""
    each = ", ".join(f"{domain} {value:.2f}" for domain, value in bits.items())
    sums = f", and it gets {sums_in_words(right)} right" if right else ""
    return f"What the model can do now: of 8 bits a byte it has to guess {each}{sums}."


@contextmanager
def interrupt(ask: Callable[[], None]) -> Iterator[None]:
    """Within it, Ctrl-C asks for a stop instead of breaking into a step; pressed again, it breaks."""
    if threading.current_thread() is not threading.main_thread():  # there signals cannot be handled
        yield
        return

    def once(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        ask()

    before = signal.signal(signal.SIGINT, once)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
