"""What may have gone wrong with an array, each guess tried on the numbers themselves.

A hypothesis is a small function: it repairs the array as its mistake would be repaired, looks whether that makes it right, and
answers with the sentence that tells the learner, or with None. Of the tables at the end the first answer is given, so that the
special comes before the general. A notebook adds its own with ``HYPOTHESES.insert(0, mine)``.

A sentence is true or is not said. What the numbers show (a factor, a shift, a place) is stated; a reason is named only where
they leave one: a factor is that of a size only if no other size, product or quotient of sizes gives it.
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
    return f"this is what {name} should be: are the two swapped, or is one returned twice?" if name else None


def zero_everywhere(case: Case) -> str | None:
    if case.got.size == 1 and not case.is_gradient:
        return None  # one number may well be 0
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
    if np.count_nonzero(want) < 2:
        return None  # some factor always turns one number into another
    factor = float(got @ want) / (float(got @ got) or math.nan)
    if not math.isfinite(factor) or factor == 0 or abs(factor - 1) < 1e-3 or not case.same(factor * case.got):
        return None
    for name, array in case.arrays.items():  # a scalar, as dy of a loss
        if array.size == 1 and abs(factor - array.item()) <= 1e-6 * abs(factor):
            return f"right after multiplying by {name}: is that factor missing?"
    sign = " and has the wrong sign" if factor < 0 else ""
    small, times = abs(factor) > 1, max(abs(factor), 1 / abs(factor))
    return f"your {case.name} is {times:#.4g}× too {'small' if small else 'large'}{sign}{_meaning_of(case, times, small)}"


def _meaning_of(case: Case, times: float, small: bool) -> str:
    """The size that a factor is, in words; "." where it is none, or may be more than one."""
    for number, is_root in ((round(times), False), (round(times * times), True)):
        exact = math.sqrt(number) if is_root else number
        if number < 2 or abs(times - exact) > 1e-4 * times:
            continue
        if is_root and number not in case.sizes:
            return "."
        meaning, over = next(case.meanings(number), (None, None))
        if meaning is None or (not is_root and case.is_ambiguous(number)):
            return "."
        if is_root:
            why = f"is a scale 1/√{number} {'applied once too often' if small else 'missing'}?"
            return f"; that is the square root of {number}, and {number} is {meaning}: {why}"
        if small:
            return f"; {number} is {meaning}: was it averaged over {over} instead of summed, or is only one of them counted?"
        return f"; {number} is {meaning}: was it summed over {over} instead of averaged, or added once for each?"
    return "."


def constant_offset(case: Case) -> str | None:
    """One number taken off every entry repairs all; of a gradient see ``missing_mean_term``."""
    got, want = case.got[case.known], case.want[case.known]
    if case.is_gradient or np.unique(want).size < 3:
        return None  # of two numbers many stories are true
    offset = float(np.mean(got - want))
    if not math.isfinite(offset) or not case.same(case.got - offset):
        return None
    size, words = f"{abs(offset):#.4g}", ("large", "subtracted") if offset > 0 else ("small", "added")
    return f"every entry is too {words[0]} by the same {size}: is a number, a mean or a bias, not {words[1]}?"


def step_with_wrong_sign(case: Case) -> str | None:
    """What is added to an input, as an update adds to a parameter, has the wrong sign or size."""
    for name, start in case.arrays.items():
        if start.shape != case.got.shape or not case.known.all():
            continue
        moved, right = case.got - start, case.want - start
        if min(np.count_nonzero(np.abs(x) > 1e-4 * np.abs(case.want).max()) for x in (moved, right)) < 2:
            continue  # nothing to speak of is added
        factor = float(moved.ravel() @ right.ravel()) / (float(moved.ravel() @ moved.ravel()) or math.nan)
        if not math.isfinite(factor) or factor == 0 or abs(factor - 1) < 1e-3 or not case.same(start + factor * moved):
            continue
        if abs(factor + 1) < 1e-4:
            return f"what you add to {name} has the wrong sign."
        return (
            f"what you add to {name} is {max(abs(factor), 1 / abs(factor)):#.4g}× too {'small' if abs(factor) > 1 else 'large'}"
            + (" and has the wrong sign." if factor < 0 else ".")
        )
    return None


def missing_term(case: Case) -> str | None:
    """One of the arrays is left out of a sum, as a forgotten residual is, or stands in it once too often."""
    for name, array in case.arrays.items():
        if array.shape == case.got.shape and np.count_nonzero(array) > 1:
            if case.same(case.got + array):
                return f"right after adding {name}: is it left out of the sum?"
            if case.same(case.got - array):
                return f"right after subtracting {name}: does it stand in the sum once too often?"
    return None


def only_the_diagonal(case: Case) -> str | None:
    """Softmax's Jacobian is diag(p) − p pᵀ; p_i (1 − p_i) is its diagonal alone."""
    same = [(n, a) for n, a in case.arrays.items() if a.shape == case.got.shape and a.ndim]
    for (_, p), (what, dp) in itertools.permutations(same, 2):
        is_distribution = np.all(p >= 0) and np.allclose(p.sum(axis=-1), 1)
        if is_distribution and case.same(p * (1 - p) * dp, np.where(case.known, case.got, np.nan)):
            return (
                f"this is only the diagonal of the softmax's Jacobian, p_i (1 − p_i) times {what}: "
                "each p_i depends on every score, so −p_i p_j belongs to it for j ≠ i."
            )
    return None


def gain_forgotten(case: Case) -> str | None:
    """RMSNorm's dx is rstd (u − n mean(u n)) with u = dy · gain; with dy in place of u no factor repairs it."""
    if not case.is_gradient or case.got.ndim == 0:
        return None
    rows = [(n, a) for n, a in case.arrays.items() if a.shape == case.got.shape]
    gains = [(n, a) for n, a in case.arrays.items() if a.shape == case.got.shape[-1:]]
    for (_, x), (_, dy) in itertools.permutations(rows, 2):
        for name, gain in gains:
            if _is_multiple(case, case.got, _across(x, dy)) and _is_multiple(case, case.want, _across(x, dy * gain)):
                return f"{name} is forgotten: what goes back through the norm is u = dy · {name}, in both of its terms."
    return None


def _across(x: Array, u: Array) -> Array:
    """The part of every row of u that is at right angles to the row of x."""
    return u - x * np.sum(u * x, axis=-1, keepdims=True) / np.sum(x * x, axis=-1, keepdims=True)


def _is_multiple(case: Case, array: Array, base: Array) -> bool:
    """Whether every row is a multiple of the base's row, to 1e-4 of its largest entry: an ε makes that much."""
    row, known = np.where(case.known, base, 0.0), np.where(case.known, array, 0.0)
    times = np.sum(row * known, axis=-1, keepdims=True) / np.sum(row * row, axis=-1, keepdims=True)
    return bool(np.all(np.abs(known - times * row) <= 1e-4 * np.abs(known).max(initial=0.0)))


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
            if np.unique(aligned.want).size > 2 and aligned.same(np.take(case.got, mine, axis)):
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
        got, want = (first + 1j * second for first, second in (halves(case.got), halves(case.want)))
        if case.same(np.abs(got), np.abs(want)):
            text = f"every pair {layout} of the last axis has the right length and the wrong angle, as in RoPE: "
            for array in case.arrays.values():
                if array.shape == case.got.shape:
                    first, second = halves(array)
                    back = first - 1j * second  # divides the pair's own angle out
                    if case.same((got * back).imag, -(want * back).imag):
                        why = "the gradient turns by minus the angle." if case.is_gradient else "the sine has the wrong sign."
                        return f"{text}it is turned the other way; {why}"
            return f"{text}look at positions and frequencies."
    return None


def missing_mean_term(case: Case) -> str | None:
    """Softmax and the norms subtract a (weighted) mean over the last axis in the backward pass: dz = p (dp − Σ p dp),
    dx = rstd (u − n mean(u n)). Without it each row is off by a constant, or by a multiple of p or of x."""
    if not case.is_gradient or case.got.ndim == 0 or case.known.sum(axis=-1).min(initial=3) < 3:
        return None  # one or two known entries of a row fit any term
    tail = "is the term right that subtracts the mean over the last axis, as in softmax and RMSNorm?"
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
        (
            -1,
            "row (along the last axis)",
            "look at what multiplies a whole row: a normaliser, as rstd or the sum of the softmax",
        ),
        (
            tuple(range(case.got.ndim - 1)),
            "column (index of the last axis)",
            "look at what multiplies a whole column, as a gain does",
        ),
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
        return "nearly right, to 1e-4 of the largest entry: float32 inside, another constant (an ε, a bound), a small term?"
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
    is_run, rest = last - first + 1 == len(indices), f"right at the other {length - len(indices)} of {length}"
    if not is_run or length < 4:  # of three places any choice is a beginning or an end
        shown = ", ".join(str(i) for i in indices[:8]) + (", …" if len(indices) > 8 else "")
        text = f"wrong only at index {shown} of {named}, {rest}."
    elif first == 1 and last == length - 1:
        of_time = "positions" in named if "(" in named else axis == (case.got.ndim > 2)  # (T, d) or (B, T, …)
        text = f"right at index 0 of {named} and wrong later." + (f" {_FIRST}" if of_time else "")
    elif first == last:
        text = f"wrong only at index {first} of {named}, {rest}."
    elif last == length - 1:
        text = f"right up to index {first - 1} of {named} and wrong from {first} on: {_CHANGES}"
    elif first == 0:
        text = f"wrong up to index {last} of {named} and right from {last + 1} on: {_CHANGES}"
    else:
        text = f"wrong only from index {first} to {last} of {named}, {rest}" + (f": {_CHANGES}" if length > 5 else ".")
    return text, case.part(axis, indices)


_CHANGES = "what changes there, a split, a chunk, a mask, padding, a bound?"
_FIRST = (
    "If that axis is time: position 0 has one key and angle 0, so nothing in q, no scale and no angle can show there; "
    "and it has no past, so no cache and no shift can."
)


def _row_fit(case: Case, basis: Array) -> Array:
    """Per row, the multiple of ``basis`` that best explains want − got where it is known (least squares)."""
    missing = np.where(case.known, case.want - case.got, 0.0)
    shown = np.where(case.known, basis, 0.0)
    with np.errstate(all="ignore"):
        multiple = np.sum(missing * shown, axis=-1, keepdims=True) / np.sum(shown * shown, axis=-1, keepdims=True)
    return np.nan_to_num(multiple) * basis


# For an array of the right shape: one repair makes all of it right.
HYPOTHESES: list[Hypothesis] = [
    *(zero_everywhere, should_be_zero, nearly_right, sign_flipped, constant_factor, constant_offset, gradient_of_another),
    *(transposed, permuted_last_axis, reversed_or_shifted, missing_multiplier, missing_term, step_with_wrong_sign),
    *(only_the_diagonal, gain_forgotten, missing_mean_term),
]
# For the wrong part of an array that is right elsewhere.
IN_PART: list[Hypothesis] = [zero_everywhere, sign_flipped, constant_factor]
# If none of those fits: repairs with so much freedom that they would also fit the mistakes above.
LOOSE: list[Hypothesis] = [turned_pairs, factor_per_row]
# For an array of the wrong shape.
SHAPE_HYPOTHESES: list[Hypothesis] = [axes_reordered, only_reshaped, missing_sum, gradient_of_another, summed_too_much]
