"""One array to judge beside the array it should be: the measure of error, and the words for its sizes.

The error of an entry a that should be n is the relative error of Stanford's CS231n notes, made sound near zero in two ways:

    error = |a − n| / max(|a|, |n|, max|n| / 1000, r / tolerance)

- r is the round-off that n itself carries: no check can see below it, and an exact 0 beside a numerical 1e-14 is right.
- A very small entry is measured against a thousandth of the largest of its array.

NaN and unequal infinities have the error inf.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import SupportsIndex

import numpy as np
from numpy.typing import DTypeLike

Array = np.ndarray

# What the letters of the package's shapes count, for sentences like "4 is the number of heads".
LETTERS = {
    **{"B": "sequences in the batch", "T": "positions", "N": "tokens", "H": "heads", "E": "experts", "K": "chosen experts"},
    **{"V": "vocabulary entries", "L": "layers", "d": "model dimensions", "d_c": "dimensions of the KV latent"},
    **{"d_c'": "dimensions of the query latent", "d_r": "RoPE dimensions", "d_h": "dimensions of a head"},
}


def precision(dtype: DTypeLike) -> float:
    """Spacing of the numbers around 1 in a floating-point type. NumPy does not know bfloat16 and float8: by their size."""
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return float(np.finfo(dtype).eps)
    return 2.0**-7 if dtype.itemsize == 2 else 2.0**-3


def relative_error(got: Array, want: Array, least: Array | float = 0.0) -> Array:
    """The error of every entry, by the formula at the head of this module; ``least`` is r / tolerance."""
    with np.errstate(all="ignore"):
        difference = np.abs(got - want)
        finite = np.abs(want[np.isfinite(want)])
        floor = np.maximum(np.max(finite, initial=0.0) / 1000, least)
        error = difference / np.maximum(np.maximum(np.abs(got), np.abs(want)), floor)
    error = np.where(np.isfinite(difference), error, np.inf)
    return np.where(got == want, 0.0, error)


@dataclass(frozen=True)
class Case:
    """``got`` was returned, ``want`` is right. What every hypothesis looks at; all arrays are float64."""

    name: str  # in a sentence: "dk", "y.weights"
    got: Array
    want: Array  # NaN where it is not known: an entry that was not probed
    tolerance: float
    noise: Array | float = 0.0  # r
    is_gradient: bool = False
    arrays: Mapping[str, Array] = field(default_factory=dict)  # the function's inputs and outputs: one may have been forgotten
    others: Mapping[str, Array] = field(default_factory=dict)  # what the other arrays should be: perhaps two were swapped
    hints: Mapping[str, int] = field(default_factory=dict)  # names of sizes, for the wording: {"n_heads": 4}

    @property
    def known(self) -> Array:
        return ~np.isnan(self.want)

    @property
    def errors(self) -> Array:
        """Error of every known entry, 0 elsewhere. ``got`` must have the shape of ``want``."""
        return np.where(self.known, relative_error(self.got, self.want, self.least), 0.0)

    @property
    def least(self) -> Array | float:
        """r / tolerance, the smallest size that an error is measured against."""
        return self.noise / self.tolerance if self.tolerance else 0.0

    @property
    def wrong(self) -> Array:
        return self.errors > self.tolerance

    def same(self, guess: Array, want: Array | None = None) -> bool:
        """Whether ``guess``, a repaired ``got``, is right where it is known, to ten times the tolerance: a wrong one misses
        by far more."""
        want = self.want if want is None else want
        if guess.shape != want.shape:
            return False
        known = ~np.isnan(want)
        least = self.least if np.shape(self.noise) in ((), want.shape) else 0.0
        error = relative_error(guess, want, least)[known]
        return bool(known.any()) and bool(np.all(error <= max(10 * self.tolerance, 1e-6)))

    def part(self, axis: int, indices: Array) -> Case:
        """The same case, only some indices of one axis."""
        noise = np.take(self.noise, indices, axis) if np.shape(self.noise) == self.want.shape else self.noise
        got, want = np.take(self.got, indices, axis), np.take(self.want, indices, axis)
        return replace(self, got=got, want=want, noise=noise, others={})

    @property
    def sizes(self) -> set[int]:
        """All lengths in play: those with a name, those of every axis."""
        arrays = (self.want, *self.arrays.values())
        return {n for n in (*self.hints.values(), *(n for array in arrays for n in array.shape)) if n > 1}

    def is_ambiguous(self, number: int) -> bool:
        """Whether more than one size, product or quotient of two sizes is this number.

        A size with one name that the array itself does not have, the heads in the gradient of a shared key, is taken for it.
        """
        sizes = self.sizes
        named = sum(value == number for value in self.hints.values())
        if named == 1 and number not in self.want.shape:
            return False
        if number == 2:
            return True  # two halves, two terms, a pair: twos are everywhere
        tokens = {array.size // array.shape[-1] for array in self.arrays.values() if array.ndim > 2 and array.size}
        products = number not in tokens and any(number % n == 0 and number // n in sizes for n in sizes)
        return max(named, 1) + products + any(number * n in sizes for n in sizes) > 1

    def meanings(self, size: int) -> Iterator[tuple[str, str]]:
        """What a number may be, most telling first: ("the number of heads", "the heads")."""
        for name, value in self.hints.items():
            if value == size:
                yield f"the number of {counted(name)}", f"the {counted(name)}"
        for name, array in {self.name: self.want, **self.arrays}.items():
            for axis, length in enumerate(array.shape):
                if length == size:
                    yield f"the size of axis {axis} of {name}", "that axis"
        for name, array in self.arrays.items():
            if array.ndim > 2 and array.size == size * array.shape[-1]:
                yield f"the number of tokens in {name}, all its axes but the last", "the tokens"

    def axis_name(self, axis: int) -> str:
        length = self.want.shape[axis]
        named = next((counted(name) for name, value in self.hints.items() if value == length), None)
        return f"axis {axis}" + (f" (the {named})" if named else "")


def counted(name: str) -> str:
    """What a size counts, in words: "n_heads" and "H" are both "heads"."""
    return LETTERS.get(name, name.removeprefix("num_").removeprefix("n_").replace("_", " "))


def at(index: Sequence[SupportsIndex] | Array) -> str:
    """An index as it is written: "[1, 2]"; a single number has none."""
    return "[" + ", ".join(str(int(i)) for i in index) + "]" if len(index) else ""
