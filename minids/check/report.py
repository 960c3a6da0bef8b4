"""What a check found, in sentences, and the guard around functions that a learner wrote."""

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from minids.check.case import Array, Case, at, precision
from minids.check.hypotheses import HYPOTHESES, IN_PART, LOOSE, SHAPE_HYPOTHESES, Hypothesis, location
from minids.check.nested import is_float, is_whole
from minids.terminal import say


@dataclass(frozen=True)
class Finding:
    what: str  # the array or function it is about: "dk", "y.weights", "backward"
    wrong: str
    cause: str = ""  # the likely one, as far as the numbers tell


@dataclass(frozen=True)
class Report:
    """The outcome of a check: true when all is right; ``str(report)`` says in words what is not."""

    subject: str  # "gradient of attention"
    checked: Mapping[str, float]  # array → its worst relative error; inf where it could not be measured
    findings: tuple[Finding, ...]
    tolerance: float
    notes: tuple[str, ...] = ()  # what is worth knowing but not wrong
    exception: Exception | None = None  # what the checked function raised, if it did

    def __bool__(self) -> bool:
        return bool(self.checked) and not self.findings

    @property
    def worst(self) -> float:
        return max(self.checked.values(), default=float("inf"))

    def __str__(self) -> str:
        if self:
            error = f"worst relative error {self.worst:.1e} (allowed {self.tolerance:.0e})" if self.tolerance else "equal"
            lines = [f"✓ {self.subject}: {', '.join(self.checked)} right; {error}"]
        else:
            wrong = {finding.what for finding in self.findings}
            right = [name for name, error in self.checked.items() if name not in wrong and error <= self.tolerance]
            lines = [f"✗ {self.subject}" + (f" ({', '.join(right)} right)" if right else "")]
            for finding in self.findings or (Finding("nothing", "was compared."),):
                lines.append(f"  {finding.what}: {finding.wrong}")
                if finding.cause:
                    lines.append(f"      likely cause: {finding.cause}")
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])

    __repr__ = __str__

    def raise_if_wrong(self) -> None:
        if not self:
            raise AssertionError(str(self)) from self.exception


def ok(*reports: Report) -> None:
    """Print the reports: "✓ …", or the explanation. For the last line of a notebook's exercise."""
    for report in reports:
        say(report)


def in_place(what: str, path: str) -> Finding:
    return Finding(what, f"changes its input {path} in place.", "+=, *= or out= on an argument? Work on a copy.")


def not_deterministic(what: str) -> Finding:
    text = "is not deterministic: called twice on the same inputs it gives two results."
    return Finding(what, text, "a random number, or state kept from call to call?")


class Broken(Exception):
    """The check cannot go on; carries what is to be reported."""

    def __init__(self, finding: Finding, exception: Exception | None = None):
        super().__init__(finding.wrong)
        self.finding, self.exception = finding, exception


def call(what: str, function: Callable, *arguments: Any, **keywords: Any) -> Any:
    """``function(...)``, silent about overflow; whatever it raises becomes a ``Broken`` with one readable line."""
    try:
        with np.errstate(all="ignore"):
            return function(*arguments, **keywords)
    except Exception as exception:
        raise Broken(Finding(what, _raised(exception)), exception) from exception


def _raised(exception: Exception) -> str:
    """The exception and its innermost line outside of this package and NumPy, where no learner looks for a mistake."""
    message = (str(exception).strip() or "no message").splitlines()[0][:300]
    machinery = {Path(__file__).parent, Path(np.__file__).parent}
    frames = [f for f in traceback.extract_tb(exception.__traceback__) if machinery.isdisjoint(Path(f.filename).parents)]
    if not frames:
        return f"raised {type(exception).__name__}: {message} (it could not be called like this)"
    frame = frames[-1]
    place = f"{Path(frame.filename).name}, line {frame.lineno}, in {frame.name}" + (f": {frame.line}" if frame.line else "")
    return f"raised {type(exception).__name__}: {message} ({place})"


def name_of(function: Callable) -> str:
    """The function, with its module where the name alone ("forward") says nothing."""
    name, module = getattr(function, "__name__", type(function).__name__), getattr(function, "__module__", None) or "__main__"
    if name == "forward" and module != "__main__":
        return f"{module.rpartition('.')[2]}.forward"
    return "your function" if name in ("forward", "<lambda>") else name


def as_array(what: str, value: object) -> Array:
    """The value as an array of numbers or truth values; a ``Broken`` for anything else."""
    if value is None:
        raise Broken(Finding(what, "is None, where an array was expected.", "is a return missing?"))
    array = call(what, np.asarray, value)
    if array.dtype == object and array.size and all(isinstance(number, Real) for number in array.flat):
        array = array.astype(np.float64)  # a Fraction is a number too
    if not (is_float(array) or is_whole(array)):
        raise Broken(Finding(what, f"is {type(value).__name__} of {array.dtype}, where an array of numbers was expected."))
    return array


def not_finite(case: Case) -> Finding | None:
    """NaN and inf where a finite number belongs."""
    bad = ~np.isfinite(case.got) & np.isfinite(case.want)
    if not bad.any():
        return None
    kinds = "NaN" if np.isnan(case.got[bad]).all() else "inf" if np.isinf(case.got[bad]).all() else "NaN and inf"
    where, _ = location(Case(case.name, np.where(bad, 1.0, 0.0), np.zeros_like(case.want), 0.5, hints=case.hints))
    first = at(np.argwhere(bad)[0])
    text = f"{kinds} in {bad.sum()} of {bad.size} entries{first and ', first at ' + first}{'; ' + where if where else '.'}"
    return Finding(
        case.name,
        text,
        "0/0, the logarithm of 0, the root of a negative number, an overflow of exp, or a row masked everywhere?",
    )


def judge(case: Case, expected: str) -> tuple[float, Finding | None]:
    """The worst error of an array, and what to say when it is beyond the tolerance; ``expected`` is the word for ``want``."""
    if case.got.shape != case.want.shape:
        text = f"has shape {case.got.shape}, expected {case.want.shape}."
        return np.inf, Finding(case.name, text, _first(SHAPE_HYPOTHESES, case))
    if finding := not_finite(case):
        return np.inf, finding
    errors, wrong, worst = case.errors, case.wrong, float(case.errors.max(initial=0.0))
    if not wrong.any():
        return worst, None
    # Of entries that are about equally wrong (all of them, under a constant factor) the one that is furthest off reads best.
    furthest = np.where(errors >= 0.99 * worst, np.abs(case.got - case.want), -1.0)
    index = np.unravel_index(np.argmax(furthest), errors.shape)
    mine, right = float(case.got[index]) + 0.0, float(case.want[index]) + 0.0  # + 0.0 turns −0 into 0
    ratio = f" ({mine / right:.3g}×)" if mine and right and np.isfinite(mine / right) else ""
    place, probed = at(index) and f" at {at(index)}", "" if case.known.all() else " probed"
    digits = 6 if case.tolerance else 15  # whole numbers are shown whole
    text = (
        f"relative error {worst:.2g} (allowed {case.tolerance:.0e}); "
        f"{wrong.sum()} of {case.known.sum()}{probed} entries are wrong; "
        f"worst{place}: yours {mine:.{digits}g}, {expected} {right:.{digits}g}{ratio}."
    )
    return worst, Finding(case.name, text, _cause(case))


def _cause(case: Case) -> str:
    """One repair of the whole array; else where it is wrong, with a repair of that part or a loose one of the whole."""
    with np.errstate(all="ignore"):
        if cause := _first(HYPOTHESES, case):
            return cause
        where, part = location(case)
        cause = _first(IN_PART, part) if part is not None else ""
        cause = f"there, {cause}" if cause else _first(LOOSE, case)
    return f"{where} {cause[0].upper()}{cause[1:]}" if where and cause else where or cause or "none of the usual ones fits."


def _first(table: list[Hypothesis], case: Case) -> str:
    if not np.isfinite(case.got).all():
        return ""
    return next(filter(None, (hypothesis(case) for hypothesis in table)), "")


def differs(one: Array, two: Array) -> bool:
    """Whether two runs of the same function disagree by more than the order of a sum can explain."""
    if one.shape != two.shape or one.dtype != two.dtype:
        return True
    if not is_float(one):
        return not np.array_equal(one, two)
    with np.errstate(all="ignore"):
        first, second = one.astype(np.float64), two.astype(np.float64)
        finite = first[np.isfinite(first)]
        allowed = 64 * precision(one.dtype) * np.abs(finite).max(initial=0.0)
        return not np.allclose(first, second, rtol=0.0, atol=allowed, equal_nan=True)
