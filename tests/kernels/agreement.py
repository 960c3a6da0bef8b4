"""How a compiled operation is compared with the one it mirrors."""

from __future__ import annotations

import importlib
import warnings

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

DTYPES = (np.float32, np.float64)
TOLERANCE = {np.dtype(np.float32): 4e-6, np.dtype(np.float64): 1e-12}  # relative to the largest magnitude of the array

examples = settings(deadline=None, derandomize=True, max_examples=25)
seeds = st.integers(0, 2**31)
dtypes = st.sampled_from(DTYPES)
layouts = st.sampled_from(["C order", "slice of a wider array", "transposed"])


def twins(name: str):
    """The module in ops and the one in kernels."""
    return importlib.import_module(f"minids.ops.{name}"), importlib.import_module(f"minids.kernels.{name}")


def normal(rng: np.random.Generator, shape, dtype, layout: str = "C order") -> np.ndarray:
    """Standard normal numbers in the given memory layout."""
    if layout == "slice of a wider array":
        return rng.standard_normal((*shape[:-1], shape[-1] + 3)).astype(dtype)[..., 2:-1]
    if layout == "transposed":
        return rng.standard_normal(shape[::-1]).astype(dtype).T
    return rng.standard_normal(shape).astype(dtype)


def poison(rng: np.random.Generator, array: np.ndarray, values=(np.nan, np.inf, -np.inf)) -> None:
    """Put one of ``values`` at a random place, in place."""
    array[tuple(int(rng.integers(size)) for size in array.shape)] = rng.choice(values)


def uncompiled(monkeypatch, module) -> None:
    """Let a kernel module run its kernels as the Python functions they were written as."""
    for name, value in list(vars(module).items()):
        if hasattr(value, "py_func"):
            monkeypatch.setattr(module, name, value.py_func)


def assert_same(ours, expected, what: str = "result", floor: float = 1e-3, tolerance: float | None = None) -> None:
    """Equal to rounding, with NaN and the infinities at the same places; tuples and None member by member.

    ``floor``: the magnitude that rounding is measured against where all elements are smaller, because they are differences
    of numbers of that size. ``tolerance``: that of the elements' own type, if not given.
    """
    if expected is None or isinstance(expected, tuple):
        assert (ours is None) == (expected is None), f"{what}: one of the two is None"
        for index, pair in enumerate(zip(ours or (), expected or (), strict=True)):
            assert_same(*pair, f"{what}[{index}]", floor, tolerance)
        return
    ours, expected = np.asarray(ours), np.asarray(expected)
    assert ours.shape == expected.shape, f"{what}: shape {ours.shape}, expected {expected.shape}"
    assert ours.dtype == expected.dtype, f"{what}: type {ours.dtype}, expected {expected.dtype}"
    if expected.dtype.kind in "iub":
        np.testing.assert_array_equal(ours, expected, err_msg=what)
        return
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(expected), err_msg=f"{what}: NaN at other places")
    np.testing.assert_array_equal(ours[~finite], expected[~finite], err_msg=f"{what}: infinities at other places")
    if finite.any():
        error = np.abs(ours[finite] - expected[finite]).max() / max(np.abs(expected[finite]).max(), floor)
        assert error <= (tolerance or TOLERANCE[expected.dtype]), f"{what}: off by {error:.1e} of its largest element"


def assert_twins(name: str, inputs: tuple, d_output: tuple, floor: float = 1e-3) -> None:
    """forward and backward of operation ``name`` agree in both packages. ``d_output`` goes before ``saved``."""
    # A loss comes back as a Python float whatever was computed in.
    computed_in = next(x.dtype for x in inputs if isinstance(x, np.ndarray) and x.dtype.kind == "f")
    results = []
    for module in twins(name):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore", RuntimeWarning)
            y, saved = module.forward(*inputs)
            results.append((y, module.backward(*d_output, saved)))
    (y, dx), (ours_y, ours_dx) = results
    assert_same(ours_y, y, f"{name}.forward", floor, TOLERANCE[computed_in])
    assert_same(ours_dx, dx, f"{name}.backward", floor, TOLERANCE[computed_in])
