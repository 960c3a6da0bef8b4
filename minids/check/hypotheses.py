"""What may have gone wrong with an array, each guess tried on the numbers themselves.

A hypothesis is a small function: it repairs the array as its mistake would be repaired, looks whether that makes it right, and
answers with the sentence that tells the learner, or with None. Of the tables at the end the first answer is given, so that the
special comes before the general. A notebook adds its own with ``HYPOTHESES.insert(0, mine)``.
"""

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np

from minids.check.case import Array, Case, relative_error

Hypothesis = Callable[[Case], "str | None"]


def gradient_of_another(case: Case) -> str | None:
    twins = (name for name, want in case.others.items() if np.any(np.nan_to_num(want)) and case.same(case.got, want))
    name = next(twins, None)
    return f"this is what {name} should be: are they returned in another order?" if name else None


def zero_everywhere(case: Case) -> str | None:
    why = "no gradient arrives. Is something detached, or never added?" if case.is_gradient else "is the result ever written?"
    return None if np.any(case.got) else f"it is zero everywhere: {why}"


def should_be_zero(case: Case) -> str | None:
    zero = np.all(np.abs(case.want[case.known]) <= np.max(case.noise, initial=0.0))
    return "it should be zero everywhere: nothing depends on this here." if zero else None


def sign_flipped(case: Case) -> str | None:
    return "the sign is flipped: minus yours is right." if case.same(-case.got) else None


def constant_factor(case: Case) -> str | None:
    """One factor, fitted by least squares, repairs all: an averaged sum is off by a size, a forgotten 1/√d_h by a root."""
    got, want = case.got[case.known], case.want[case.known]
    factor = float(got @ want) / (float(got @ got) or math.nan)
    if not math.isfinite(factor) or factor == 0 or abs(factor - 1) < 1e-3 or not case.same(factor * case.got):
        return None
    sign = " and has the wrong sign" if factor < 0 else ""
    small, times = abs(factor) > 1, max(abs(factor), 1 / abs(factor))
    return f"your {case.name} is {times:#.4g}× too {'small' if small else 'large'}{sign}{_meaning_of(case, times, small)}"


def _meaning_of(case: Case, times: float, small: bool) -> str:
    for number, is_root in ((round(times), False), (round(times * times), True)):
        exact = math.sqrt(number) if is_root else number
        if number < 2 or abs(times - exact) > 1e-4 * times:
            continue
        meaning, over = next(case.meanings(number), (None, None))
        if meaning and is_root:
            why = f"is a scale 1/√{number} {'applied once too often' if small else 'missing'}?"
            return f"; that is the square root of {number}, and {number} is {meaning}: {why}"
        if meaning and small:
            return f"; {number} is {meaning}: was it averaged over {over} instead of summed, or is only one of them counted?"
        if meaning:
            return f"; {number} is {meaning}: was it summed over {over} instead of averaged, or added once for each?"
    if abs(times - 2) < 1e-3:
        return ": is one of two equal parts missing?" if small else ": is something added twice?"
    return "."


def transposed(case: Case) -> str | None:
    axes = range(case.got.ndim - 1, -1, -1)
    for second, first in itertools.combinations(axes, 2):
        if case.got.shape[first] == case.got.shape[second] > 1 and case.same(case.got.swapaxes(first, second)):
            return f"it is transposed: right after swapping axes {first} and {second}."
    return None


def permuted_last_axis(case: Case) -> str | None:
    """RoPE's two layouts: pairs side by side (interleaved), or all first components before all second ones (half-split)."""
    width = case.got.shape[-1] if case.got.ndim else 0
    if width < 4 or width % 2:
        return None
    split = np.concatenate([np.arange(0, width, 2), np.arange(1, width, 2)])
    layouts = ["interleaved (pairs side by side)", "half-split"]
    for order, (yours, expected) in ((split, layouts), (np.argsort(split), layouts[::-1])):
        if case.same(case.got[..., order]):
            return f"right after re-ordering the last axis: yours is {yours}, expected is {expected}."
    return None


def reversed_or_shifted(case: Case) -> str | None:
    for axis in range(case.got.ndim):
        if case.got.shape[axis] < 3:
            continue
        if case.same(np.flip(case.got, axis)):
            return f"{case.axis_name(axis)} runs backwards: right after flipping it."
        inner = np.arange(case.got.shape[axis] - 1)
        for mine, right, direction in ((inner + 1, inner, "later"), (inner, inner + 1, "earlier")):
            aligned = case.part(axis, right)
            if np.any(aligned.got) and aligned.same(np.take(case.got, mine, axis)):
                return f"off by one along {case.axis_name(axis)}: every entry stands one index {direction} than it should."
    return None


def missing_multiplier(case: Case) -> str | None:
    with np.errstate(all="ignore"):
        for name, array in case.arrays.items():
            lengths = zip(reversed(array.shape), reversed(case.got.shape), strict=False)
            if array.size < 2 or array.ndim > case.got.ndim or any(one not in (1, other) for one, other in lengths):
                continue  # it is not broadcast to the shape of the result
            if case.same(case.got * array):
                return f"right after multiplying by {name}: is that factor missing?"
            if case.same(case.got / array):
                return f"right after dividing by {name}: is that factor applied once too often?"
    return None


def turned_pairs(case: Case) -> str | None:
    """RoPE keeps the length of every pair and changes its angle, forward and backward."""
    width = case.got.shape[-1] if case.got.ndim else 0
    if width < 2 or width % 2:
        return None
    for layout, halves in (
        ("(2i, 2i+1)", lambda x: (x[..., ::2], x[..., 1::2])),
        (f"(i, i+{width // 2})", lambda x: (x[..., : width // 2], x[..., width // 2 :])),
    ):
        if case.same(np.hypot(*halves(case.got)), np.hypot(*halves(case.want))):
            direction = "the gradient turns by minus the angle." if case.is_gradient else "look at positions and frequencies."
            return f"every pair {layout} of the last axis has the right length and the wrong angle, as in RoPE: {direction}"
    return None


def missing_mean_term(case: Case) -> str | None:
    """Softmax and the norms subtract a (weighted) mean over the last axis in the backward pass: dz = p (dp − Σ p dp),
    dx = rstd (u − n mean(u n)). Without it each row is off by a constant, or by a multiple of p or of x."""
    if case.got.ndim == 0 or case.known.sum(axis=-1).min(initial=3) < 3:
        return None  # one or two known entries of a row fit any term
    tail = "is the term missing that subtracts the mean over the last axis, as in softmax and RMSNorm backward?"
    bases = {"an additive constant": np.ones_like(case.got)} | {f"a multiple of {n}": a for n, a in case.arrays.items()}
    for what, basis in bases.items():
        if basis.shape == case.got.shape and case.same(case.got + _row_fit(case, basis)):
            return f"each row of the last axis is off by {what}: {tail}"
    return None


def factor_per_row(case: Case) -> str | None:
    """One factor per row or per column. Only where two known entries share it, else anything would fit."""
    if case.got.ndim < 2:
        return None
    got, want = np.where(case.known, case.got, 0.0), np.nan_to_num(case.want)
    for axis, what, which in (
        (-1, "row (along the last axis)", "a normaliser of the row (rstd, the sum of the softmax) is missing or misplaced"),
        (tuple(range(case.got.ndim - 1)), "column (index of the last axis)", "a gain per column is missing or misplaced"),
    ):
        known = case.known.sum(axis=axis)
        if known.min() < 2:
            continue
        with np.errstate(all="ignore"):
            factor = np.sum(got * want, axis=axis, keepdims=True) / np.sum(got * got, axis=axis, keepdims=True)
        if np.isfinite(factor).all() and case.same(case.got * factor):
            return f"every {what} is right up to a factor of its own, {factor.min():.3g} to {factor.max():.3g}: {which}."
    return None


def nearly_right(case: Case) -> str | None:
    """Small against the largest entry. Asked early: what is off by so little fits many other stories by chance."""
    want = np.abs(case.want[case.known & np.isfinite(case.want)])
    difference = np.abs(case.got - case.want)[case.known]
    if case.tolerance > 0 and difference.max(initial=0.0) <= 1e-4 * want.max(initial=0.0):
        return "nearly right: float32 somewhere inside, a slightly different constant (an ε, a scale), or a small term missing?"
    return None


def _sums(array: Array) -> Iterator[tuple[tuple[int, ...], Array]]:
    """The sums over every choice of axes, with those axes kept or not."""
    for count in range(1, array.ndim + 1):
        for axes in itertools.combinations(range(array.ndim), count):
            for keepdims in (False, True):
                yield axes, array.sum(axis=axes, keepdims=keepdims)


def missing_sum(case: Case) -> str | None:
    """An input that was broadcast gets the sum over the axes it was spread along."""
    for axes, total in _sums(case.got):
        if case.same(total):
            found = [(n, next(case.meanings(n), None)) for n in (case.got.shape[axis] for axis in axes)]
            sizes = "; ".join(f"{n}, {meaning[0]}" if meaning else f"of size {n}" for n, meaning in found)
            which = f"{'axis' if len(axes) == 1 else 'axes'} {', '.join(map(str, axes))}"
            return f"right after summing over {which} ({sizes}): the sum over what it was broadcast along is missing."
    return None


def summed_too_much(case: Case) -> str | None:
    for axes, total in _sums(case.want) if case.known.all() else ():
        if total.shape == case.got.shape and np.all(relative_error(case.got, total) <= max(10 * case.tolerance, 1e-6)):
            return f"it is the right one summed over axis {', '.join(map(str, axes))}: leave that sum out."
    return None


def axes_reordered(case: Case) -> str | None:
    orders = itertools.permutations(range(case.got.ndim)) if case.got.ndim == case.want.ndim <= 5 else ()
    order = next((order for order in orders if case.same(case.got.transpose(order))), None)
    return f"it is transposed: right after .transpose{order}." if order else None


def only_reshaped(case: Case) -> str | None:
    fits = case.got.size == case.want.size and case.same(case.got.reshape(case.want.shape))
    return f"the numbers are right: it only wants .reshape{case.want.shape}." if fits else None


def location(case: Case) -> tuple[str, Case | None]:
    """Where the wrong entries lie, and the case cut down to there; ("", None) where that tells nothing."""
    wrong, known = case.wrong, case.known
    if case.got.ndim >= 2 and case.got.shape[-1] == case.got.shape[-2] > 2:
        above = np.triu(np.ones(case.got.shape[-2:], bool), 1)
        if not wrong[..., ~above].any() and wrong[..., above].all():
            return "wrong only above the diagonal of the last two axes (where keys are in the future): look at the mask.", None
    shares = []
    for axis in range(case.got.ndim):
        others = tuple(i for i in range(case.got.ndim) if i != axis)
        bad, seen = np.asarray(wrong.any(axis=others)), np.asarray(known.any(axis=others))
        if seen.sum() > 1 and bad.sum() < seen.sum():
            shares.append((bad.sum() / seen.sum(), axis, np.flatnonzero(bad), bad.size))
    if not shares:
        return "", None
    _, axis, indices, length = min(shares, key=lambda share: share[:2])  # the axis that fewest indices are wrong of
    named, first, last = case.axis_name(axis), int(indices[0]), int(indices[-1])
    is_run = last - first + 1 == len(indices) > 1
    if is_run and last == length - 1 and first == 1:
        text = f"right at index 0 of {named} and wrong later: look at offsets and positions."
    elif is_run and last == length - 1:
        text = f"right up to index {first - 1} of {named} and wrong from {first} on: look at offsets, chunks and splits."
    elif is_run and first == 0:
        text = f"wrong up to index {last} of {named} and right from {last + 1} on: look at offsets and splits."
    else:
        shown = ", ".join(str(i) for i in indices[:8]) + (", …" if len(indices) > 8 else "")
        rest = f"right at the other {length - len(indices)} of {length}"
        text = f"wrong only at index {shown} of {named}, {rest}: masked, padded or last ones?"
    return text, case.part(axis, indices)


def _row_fit(case: Case, basis: Array) -> Array:
    """Per row, the multiple of ``basis`` that best explains want − got where it is known (least squares)."""
    missing = np.where(case.known, case.want - case.got, 0.0)
    shown = np.where(case.known, basis, 0.0)
    with np.errstate(all="ignore"):
        multiple = np.sum(missing * shown, axis=-1, keepdims=True) / np.sum(shown * shown, axis=-1, keepdims=True)
    return np.nan_to_num(multiple) * basis


# For an array of the right shape: one repair makes all of it right.
HYPOTHESES: list[Hypothesis] = [
    *(zero_everywhere, should_be_zero, nearly_right, sign_flipped, constant_factor, gradient_of_another),
    *(transposed, permuted_last_axis, reversed_or_shifted, missing_multiplier, missing_mean_term),
]
# For the wrong part of an array that is right elsewhere.
IN_PART: list[Hypothesis] = [zero_everywhere, sign_flipped, constant_factor]
# If none of those fits: repairs with so much freedom that they would also fit the mistakes above.
LOOSE: list[Hypothesis] = [turned_pairs, factor_per_row]
# For an array of the wrong shape.
SHAPE_HYPOTHESES: list[Hypothesis] = [axes_reordered, only_reshaped, missing_sum, gradient_of_another, summed_too_much]
