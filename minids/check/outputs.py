"""A function beside its reference, an array beside the array it should be."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from minids.check.case import Array, Case, precision
from minids.check.nested import changed, copied, is_float, is_plain_tuple, is_whole, leaves
from minids.check.report import Broken, Finding, Report, as_array, call, differs, in_place, judge, name_of, not_deterministic
from minids.errors import refuse


def tolerance_for(*arrays: Array) -> float:
    """What two results may differ by, by the coarsest of their types: float64 1e-9, float32 1e-5, float16 and bfloat16 3e-2."""
    coarsest = max((precision(array.dtype) for array in arrays if is_float(array)), default=0.0)
    for limit, tolerance in ((1e-15, 1e-9), (1e-6, 1e-5), (1e-2, 3e-2)):
        if coarsest <= limit:
            return tolerance
    return 0.2  # float8 has 3 bits or 2 after the point


def close(got, want, *, name: str = "y", tolerance: float | None = None, hints: Mapping[str, int] | None = None) -> Report:
    """Compare one array with what it should be.

    Floating-point arrays are compared by the relative error of ``minids.check.case``, to the tolerance of the coarser type;
    integers and truth values must be equal. Round-off of the type (32 ε of the largest entry, a third of the tolerance at most)
    counts as none. ``got`` is whatever the learner made: None, a string or a wrong shape give a report, not an exception.
    """
    _check_tolerance(tolerance)
    try:
        error, finding, used, notes = _compare(name, as_array(name, got), _reference(name, want), tolerance, hints or {}, {})
    except Broken as broken:
        used = tolerance if tolerance is not None else tolerance_for(np.asarray(want))
        return Report(name, {name: np.inf}, (broken.finding,), used, (), broken.exception)
    return Report(name, {name: error}, (finding,) if finding else (), used, notes)


def against(
    reference,
    candidate,
    *inputs,
    tolerance: float | None = None,
    hints: Mapping[str, int] | None = None,
    usual: Mapping[str, Callable] | None = None,
) -> Report:
    """Compare a learner's function with the reference, on the given inputs: the arguments; or one list of argument sets, each a
    tuple, or a dict of keyword arguments.

    Outputs may be nested; they are compared one by one, in order, under the reference's names. Where the reference returns
    ``(y, saved)`` with ``saved`` a named tuple called Saved, only y is compared; the candidate may return y or (y, anything).
    The candidate must be deterministic, leave its inputs alone and not raise. Errors of the reference are raised. ``usual``
    holds wrong answers, each behind the sentence that names it: a candidate that gives the same to all inputs is told so.
    """
    _check_tolerance(tolerance)
    first = inputs[0] if len(inputs) == 1 else None
    sets = first if isinstance(first, list) and first and all(isinstance(x, (tuple, dict)) for x in first) else [inputs]
    subject = f"{name_of(candidate)} against {name_of(reference)}"
    checked: dict[str, float] = {}
    notes: dict[str, None] = {}  # in order, each once
    findings: list[Finding] = []
    wrong_sets, exception, used = [], None, tolerance or 0.0
    for number, arguments in enumerate(sets, start=1):
        found: list[Finding] = []
        try:
            for name, error, finding, limit, remarks in _compare_calls(reference, candidate, arguments, tolerance, hints or {}):
                checked[name] = max(checked.get(name, 0.0), error)
                used = max(used, limit)
                notes.update(dict.fromkeys(remarks))
                found += [finding] if finding else []
        except Broken as broken:
            found.append(broken.finding)
            exception = exception or broken.exception
        if found:
            wrong_sets.append(number)
            findings = findings or found
    if findings and (cause := _usual_cause(usual or {}, candidate, sets, tolerance)):
        findings = [replace(findings[0], cause=cause), *findings[1:]]
    if wrong_sets and len(sets) > 1:
        listed = ("set " if len(wrong_sets) == 1 else "sets ") + ", ".join(map(str, wrong_sets))
        notes[f"wrong for input {listed} of {len(sets)}; what is said is about set {wrong_sets[0]}."] = None
    return Report(subject, checked, tuple(findings), used, tuple(notes), exception)


def _usual_cause(usual: Mapping[str, Callable], candidate, sets, tolerance: float | None) -> str:
    """The sentence of the wrong answer that the candidate gives to all inputs; "" where it is none of them."""
    for cause, wrong in usual.items():
        try:
            compared = [one for arguments in sets for one in _compare_calls(wrong, candidate, arguments, tolerance, {})]
        except Broken:
            continue
        if all(finding is None for _, _, finding, _, _ in compared):
            return cause
    return ""


def _check_tolerance(tolerance: float | None) -> None:
    if tolerance is not None and not 0 <= tolerance < np.inf:
        raise refuse("tolerance", tolerance, "must be a finite number of at least 0")


def _compare_calls(reference, candidate, arguments, tolerance, hints):
    """Yields (name, error, finding, tolerance, notes) for every output of one input set."""
    positional, keywords = ((), arguments) if isinstance(arguments, dict) else (tuple(arguments), {})
    ours = copied((positional, keywords))
    with np.errstate(all="ignore"):
        want = reference(*ours[0], **ours[1])
    theirs, fresh = copied((positional, keywords)), copied((positional, keywords))
    got = copied(call(name_of(candidate), candidate, *theirs[0], **theirs[1]))
    if path := changed((positional, keywords), theirs):  # "[0][2]" is the third argument, "[1]['x']" the keyword x
        yield "inputs", np.inf, in_place(name_of(candidate), path[3:]), 0.0, ()
    again = call(name_of(candidate), candidate, *fresh[0], **fresh[1])

    if is_plain_tuple(want) and len(want) == 2 and type(want[1]).__name__ == "Saved":
        want = want[0]
        got, again = ((x[0] if is_plain_tuple(x) and len(x) == 2 else x) for x in (got, again))
    if not isinstance(want, (tuple, list, dict)):  # (y, None): a forward pass that saves nothing
        got, again = (x[0] if is_plain_tuple(x) and len(x) == 2 and x[1] is None else x for x in (got, again))
        # One array is expected: a list, of lists perhaps, is one too.
        got, again = (call(name_of(candidate), np.asarray, x) if isinstance(x, list) else x for x in (got, again))
    right, mine, second = list(leaves(want)), list(leaves(got)), list(leaves(again))
    if len(right) != len(mine):
        if is_plain_tuple(got) and not isinstance(want, (tuple, list, dict)):
            text = f"returns a tuple of {len(got)} where one array is expected."
            raise Broken(Finding(name_of(candidate), text, "a forward returns (result, saved): was its [0] forgotten?"))
        expected = ", ".join(path for path, _ in right)
        raise Broken(Finding(name_of(candidate), f"returns {len(mine)} where {len(right)} arrays are expected: {expected}."))
    inputs = [*enumerate(positional), *keywords.items()]
    arrays = {f"input {k}": x.astype(np.float64) for k, x in inputs if isinstance(x, np.ndarray) and is_float(x)}
    for (name, expected), (_, value), (_, repeated) in zip(right, mine, second, strict=False):
        array = as_array(name, value)
        if repeated is None or differs(array, as_array(name, repeated)):
            yield name, np.inf, not_deterministic(name), 0.0, ()
        else:
            others = {
                other: np.asarray(x).astype(np.float64) for other, x in right if other != name and (is_float(x) or is_whole(x))
            }
            yield name, *_compare(name, array, _reference(name, expected), tolerance, hints, arrays, others)


def _compare(
    name, got: Array, want: Array, tolerance, hints, arrays, others=None
) -> tuple[float, Finding | None, float, tuple[str, ...]]:
    """Worst error, finding, the tolerance that was used, notes."""
    if is_whole(got) != is_whole(want) and got.ndim == want.ndim == 0:  # one number: 384 is 384.0
        got, want = got.astype(np.float64), want.astype(np.float64)
    if is_whole(got) != is_whole(want):
        text = f"has type {got.dtype}, expected {want.dtype}."
        return np.inf, Finding(name, text, "an integer division, a cast, or the wrong one of two outputs?"), 0.0, ()
    if is_whole(got):
        error, finding = judge(
            Case(name, got.astype(np.float64), want.astype(np.float64), 0.0, hints=hints, others=others or {}), "expected"
        )
        if finding and got.shape == want.shape and got.ndim and np.array_equal(np.sort(got, axis=-1), np.sort(want, axis=-1)):
            cause = "the right numbers in another order along the last axis."
            if got.ndim > 1:
                cause = f"{cause} If they are chosen experts: by score, best first, ties to the lowest index."
            finding = Finding(name, finding.wrong, cause)
        return error, finding, 0.0, ()
    used = tolerance if tolerance is not None else tolerance_for(got, want)
    unit = max(precision(got.dtype), precision(want.dtype))
    want64 = want.astype(np.float64)
    noise = min(32 * unit, used / 3) * np.abs(want64[np.isfinite(want64)]).max(initial=0.0)
    error, finding = judge(
        Case(name, got.astype(np.float64), want64, used, noise, False, arrays, others or {}, hints), "expected"
    )
    coarse = precision(got.dtype) > precision(want.dtype)
    notes = (f"{name} is {got.dtype}, expected {want.dtype}: compared to {used:.0e}.",) if coarse else ()
    return error, finding, used, notes


def _reference(name: str, value) -> Array:
    array = np.asarray(value)
    if not (is_float(array) or is_whole(array)):
        raise refuse(name, type(value).__name__, "the reference must be an array of numbers")
    if is_float(array) and np.isnan(array.astype(np.float64)).any():
        raise refuse(name, "NaN", "the reference itself holds NaN, which nothing equals; choose other inputs")
    return array
