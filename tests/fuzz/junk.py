"""Random damage, the same on every run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from minids.errors import MinidsError

SLOWEST = 20.0  # seconds a case may take before it counts as hanging; generous, for machines that do other work too

NUMBERS = (0, 1, -1, 2, 3, 7, 64, 2**31, 2**63, 2**70, -(2**40), 1e308, -1e-300, 0.5, 1.5)
WORDS = (
    "",
    " ",
    "mla",
    "yarn",
    "NaN",
    "inf",
    "-",
    "--",
    "../..",
    "/",
    "a\0b",
    "ünï",
    "𝔘",
    "\u202e",
    "x" * 500,
    "null",
    "\n",
    "%s",
    "{}",
)


def value(rng: np.random.Generator, depth: int = 0):
    """Something that JSON can hold."""
    kind = rng.integers(0, 8 if depth < 3 else 5)
    if kind == 0:
        return bool(rng.integers(2))
    if kind in (1, 2):
        return NUMBERS[rng.integers(len(NUMBERS))]
    if kind == 3:
        return WORDS[rng.integers(len(WORDS))]
    if kind == 4:
        return None
    if kind < 7:
        return [value(rng, depth + 1) for _ in range(rng.integers(0, 4))]
    return {WORDS[rng.integers(len(WORDS))]: value(rng, depth + 1) for _ in range(rng.integers(0, 4))}


def changed_object(rng: np.random.Generator, original: dict) -> dict:
    """A copy with one to three entries replaced, removed or added, at the top or one level down."""
    made = json.loads(json.dumps(original))
    for _ in range(rng.integers(1, 4)):
        target = made
        inner = [entry for entry in made.values() if isinstance(entry, dict) and entry]
        if inner and rng.random() < 0.3:
            target = inner[rng.integers(len(inner))]
        key = list(target)[rng.integers(len(target))] if target else "x"
        action = rng.integers(0, 6)
        if action == 0:
            target.pop(key, None)
        elif action == 1:
            target[WORDS[rng.integers(len(WORDS))]] = value(rng)
        else:
            target[key] = value(rng)
    return made


def changed_bytes(rng: np.random.Generator, whole: bytes) -> bytes:
    """Bits flipped, cut short, made longer, a stretch zeroed or repeated."""
    data, at = bytearray(whole), int(rng.integers(0, max(len(whole), 1)))
    action = rng.integers(0, 6)
    if action == 0 or not whole:
        return bytes(data[:at])
    if action == 1:
        return bytes(data) + rng.bytes(int(rng.integers(1, 50)))
    if action == 2:
        data[at : at + int(rng.integers(1, 200))] = b"\0" * 16
    elif action == 3:
        data[at:at] = data[max(0, at - 40) : at]
    else:
        for _ in range(rng.integers(1, 6)):
            data[int(rng.integers(0, len(data)))] ^= 1 << int(rng.integers(0, 8))
    return bytes(data)


@contextmanager
def quick(what: Callable[[], str]) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < SLOWEST, f"hangs: {what()}"


def refused_or_right(run: Callable[[], object], what: Callable[[], str]) -> object:
    """``run()``'s result, or None where it refuses in one clear line. Anything else fails, with the case that did it."""
    with quick(what):
        try:
            return run()
        except MinidsError as error:
            text = str(error)
            assert text.strip() and "\n" not in text, f"not one line: {text!r} for {what()}"
            assert len(text) < 2000, f"a line of {len(text)} characters for {what()}"
            return None
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error} for {what()}") from error
