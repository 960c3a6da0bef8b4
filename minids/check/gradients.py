"""A backward pass beside central differences of its forward pass."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from minids.check.case import Array, Case, at, precision, relative_error
from minids.check.differences import Differences
from minids.check.nested import changed, copied, is_float, is_plain_tuple, leaves, rebuild
from minids.check.report import Broken, Finding, Report, as_array, call, differs, in_place, judge, name_of, not_deterministic
from minids.errors import refuse

PROBE_ALL = 256  # elements: an argument this small is probed element by element
PROBE_SOME = 128  # of a larger one, and along DIRECTIONS random directions, which see the others
DIRECTIONS = 4
EXPLAIN_ALL = 2048  # an argument found wrong is probed whole up to this size, so that the cause can be looked for


def gradient(
    forward: Callable,
    backward: Callable,
    inputs: Mapping[str, object],
    *,
    wrt: Sequence[str] | None = None,
    dy=None,
    seed: int = 0,
    eps: float | None = None,
    tolerance: float = 1e-7,
    samples: int | None = None,
    frozen: Mapping[str, object] | Callable | None = None,
    hints: Mapping[str, int] | None = None,
    usual: Mapping[str, Callable] | None = None,
) -> Report:
    """Check a backward pass against central differences of its forward pass, in float64.

    forward(*inputs) returns (y, saved), or y alone: then ``backward`` gets the tuple of the inputs as ``saved``. y is an array
    or a nesting of arrays. backward(dy, saved) returns the gradient of every float input in order (or of those in ``wrt``); dy
    has the form of y, with None for integer outputs.

    inputs: name → value, in the order of forward's arguments (keyword-only ones go by name). Float arrays become float64 and
        are differentiated, those in ``wrt`` if given; all else (integers, flags, an ε, configs) is passed through.
    dy: the cotangent, in the form of y; standard normal from ``seed`` if None.
    eps: the first step of the differences; if None, about 7e-4 of the argument's scale, and at most 7e-4.
    tolerance: largest relative error allowed (``minids.check.case``). 1e-7 is right, 1e-4 is a mistake.
    samples: random elements of an argument to probe; if None, all up to 256, 128 of a larger one. Four directions see the rest.
    frozen: keyword arguments of forward that hold a discrete choice fixed while it is probed, {"experts": …}, or a function
        that makes them from the unfrozen y, which the frozen one must equal.
    hints: names of sizes for the wording: {"n_heads": 4} gives "4 is the number of heads".
    usual: wrong backward passes, each behind the sentence that names its mistake: one with the same gradients is told so.
    """
    values, floats = _checked_inputs(inputs)
    if samples is not None and samples < 1:
        raise refuse("samples", samples, "must be at least 1, or None")
    if eps is not None and not eps > 0:
        raise refuse("eps", eps, "must be above 0, or None")
    if not tolerance > 0:
        raise refuse("tolerance", tolerance, "must be above 0: central differences are good to about 1e-10")
    wanted = list(floats if wrt is None else [wrt] if isinstance(wrt, str) else wrt)
    for name in wanted:
        if name not in floats:
            raise refuse("wrt", name, f"must be among the float arrays of inputs: {', '.join(floats)}")
    trial = _Trial(forward, backward, values, floats, wanted, hints or {}, tolerance)
    exception = None
    try:
        trial.run_twice(dy, seed)
        trial.compare(frozen, eps, samples, seed)
    except Broken as broken:
        trial.findings.append(broken.finding)
        exception = broken.exception
    if trial.findings and trial.gradients and (cause := trial.usual_cause(usual or {})):
        trial.findings[0] = replace(trial.findings[0], cause=cause)
    subject = f"gradient of {name_of(forward)}"
    return Report(subject, trial.checked, tuple(trial.findings), tolerance, tuple(trial.notes), exception)


def _checked_inputs(inputs) -> tuple[dict[str, object], list[str]]:
    if not isinstance(inputs, Mapping):
        raise refuse("inputs", type(inputs).__name__, "must be a dict of name → array, in the order of forward's arguments")
    values = {}
    for name, value in inputs.items():
        is_array = isinstance(value, np.ndarray) and is_float(value)
        values[name] = np.array(value, np.float64, order="C") if is_array else copied(value)
        if is_array and not np.isfinite(values[name]).all():
            raise refuse(f"inputs[{name!r}]", "NaN or inf", "must be finite to be differentiated")
    floats = [name for name, value in values.items() if isinstance(value, np.ndarray) and is_float(value)]
    if not floats:
        raise refuse("inputs", list(inputs), "holds no float array, so there is nothing to differentiate")
    return values, floats


class _Trial:
    """One check under way: what was run, what was found so far."""

    def __init__(self, forward, backward, values, floats, wanted, hints, tolerance):
        self.forward, self.backward, self.values = forward, backward, values
        self.floats, self.wanted, self.hints, self.tolerance = floats, wanted, hints, tolerance
        self.by_name = _keyword_only(forward)
        self.findings, self.notes, self.checked, self.mutates = [], [], {}, False
        self.gradients: dict[str, Array] = {}  # none, until backward has given as many as it should

    def evaluate(self, values: Mapping[str, object], **frozen):
        """forward's (y, saved); ``saved`` is the tuple of inputs where forward returns y alone."""
        positional = [value for name, value in values.items() if name not in self.by_name]
        keywords = {name: value for name, value in values.items() if name in self.by_name}
        result = call("forward", self.forward, *positional, **keywords, **frozen)
        if not is_plain_tuple(result):
            return result, tuple(values.values())
        if len(result) != 2:
            text = f"returned a tuple of {len(result)}; expected y or (y, saved), several outputs together: ((a, b), saved)."
            raise Broken(Finding("forward", text))
        return result

    def run_twice(self, dy, seed: int) -> None:
        """Forward and backward, each twice on fresh copies: side effects and chance show before anything is measured."""
        given = copied(self.values)
        y, saved = self.evaluate(given)
        if (path := changed(self.values, given)) is not None:
            self.mutates = True
            self.findings.append(in_place("forward", path))
        self._sound_outputs([(path, as_array(path, leaf)) for path, leaf in leaves(y) if leaf is not None])
        self.y = copied(y)

        given_again = copied(self.values)
        y_again, saved_again = self.evaluate(given_again)
        if _differ(self.y, y_again):
            raise Broken(not_deterministic("forward"))

        self.dy = _cotangent(self.y, dy, seed)
        self.gradients = self._backward(saved, given)
        if _differ(self.gradients, self._backward(saved_again, given_again)):
            text = "is not deterministic: run twice from the start it gives two results."
            raise Broken(Finding("backward", text, "a random number, or a gradient added into an array kept between calls?"))
        third = self._backward(saved, copied(self.values), fresh=False)
        if not self.findings and _differ(self.gradients, third):
            self.notes.append("backward changes what forward saved: a second call with the same `saved` gives another result.")

    def _backward(self, saved, given, fresh: bool = True) -> dict[str, Array]:
        """The gradients by input name, copied; ``given`` are the arrays forward was called with."""
        before, dy = copied(given), copied(self.dy)
        result = call("backward", self.backward, dy, saved)
        alone = isinstance(result, list) and len(self.floats) == 1 and len(result) != 1  # nested lists: one array
        returned = list(result) if isinstance(result, (tuple, list)) and not alone else [result]
        if fresh:
            if changed(self.dy, dy) is not None:
                self._found("backward", "changes dy in place.", "+=, *= or out= on dy? Its owner still needs it.")
            if (path := changed(before, given)) is not None:
                self._found("backward", f"changes the input {path} in place.", "`saved` holds the inputs themselves.")
        if len(returned) not in (len(self.floats), len(self.wanted)):
            returned = [gradient for gradient in returned if gradient is not None]  # of integers there is none
        names = self.floats if len(returned) == len(self.floats) else self.wanted
        if len(returned) != len(names):
            text = f"returned {len(returned)} where {len(self.floats)} gradients are expected: of {', '.join(self.floats)}."
            raise Broken(Finding("backward", text))
        pairs = zip(names, returned, strict=True)
        return {name: np.array(as_array(_d(name), value)) for name, value in pairs if name in self.wanted}

    def usual_cause(self, usual: Mapping[str, Callable]) -> str:
        """The sentence of the wrong backward pass that gives these gradients; "" where it is none of them."""
        for cause, wrong in usual.items():
            twin = _Trial(self.forward, wrong, self.values, self.floats, self.wanted, self.hints, self.tolerance)
            twin.dy, given = self.dy, copied(self.values)
            try:
                theirs = twin._backward(self.evaluate(given)[1], given)
            except Broken:
                continue
            if all(_alike(mine, theirs[name], self.tolerance) for name, mine in self.gradients.items()):
                return cause
        return ""

    def _found(self, what: str, wrong: str, cause: str = "") -> None:
        finding = Finding(what, wrong, cause)
        if finding not in self.findings:
            self.findings.append(finding)

    def _sound_outputs(self, outputs) -> None:
        floats = [(path, array) for path, array in outputs if is_float(array)]
        if not floats:
            raise Broken(Finding("forward", "returned no array of floats, so there is nothing to differentiate."))
        for path, array in floats:
            bad = np.argwhere(~np.isfinite(array.astype(np.float64)))
            if len(bad):
                raise Broken(Finding("forward", f"gives NaN or inf at {path}{at(bad[0])}: nothing can be differentiated."))
            if precision(array.dtype) > self.tolerance:
                text = f"{path} is {array.dtype} for float64 inputs: too coarse for a tolerance of {self.tolerance:.0e}."
                self._found("forward", text, "a cast inside forward?")

    def compare(self, frozen, eps: float | None, samples: int | None, seed: int) -> None:
        keywords = dict((frozen(self.y) if callable(frozen) else frozen) or {})
        frozen_y, _ = self.evaluate(copied(self.values), **keywords)
        for (path, free), (_, held) in zip(leaves(self.y), leaves(frozen_y), strict=False):
            if free is not None and differs(np.asarray(free), np.asarray(held)):
                text = f"gives another {path} with {', '.join(keywords)} frozen than without, before anything is moved."
                raise Broken(Finding("forward", text, "does it use what is frozen as it would use its own choice?"))
        values = copied(self.values)

        def run():
            # One that writes into its inputs gets a new copy each time, so that the rest can still be checked.
            return self.evaluate(copied(values) if self.mutates else values, **keywords)[0]

        probe = Differences(run, values, self.y, [leaf for _, leaf in leaves(self.dy) if leaf is not None], eps)
        generators = np.random.default_rng(seed).spawn(len(self.wanted))
        probed = [self._probed(probe, *pair, samples) for pair in zip(self.wanted, generators, strict=True)]
        wants = {case.name: case.want for case, _ in probed}
        for name, (case, astray) in zip(self.wanted, probed, strict=True):
            others = {other: want for other, want in wants.items() if other != case.name}
            self._judge(name, replace(case, others=others), astray, probe.rough.get(name))

    def _probed(self, probe: Differences, name: str, generator, samples: int | None) -> tuple[Case, float]:
        """The gradient beside the numerical one, as far as probed, and the worst error along random directions."""
        got, x = self.gradients[name].astype(np.float64), self.values[name]
        want, noise = np.full(x.shape, np.nan), np.zeros(x.shape)

        def measure(indices) -> None:
            for index in indices:
                slope = probe.element(name, int(index))
                want.flat[index], noise.flat[index] = slope.value, slope.noise

        count = samples if samples is not None else x.size if x.size <= PROBE_ALL else PROBE_SOME
        order = generator.permutation(x.size)
        measure(np.sort(order[:count]))
        outputs = [*leaves(self.y), *leaves(self.dy, "dy")]  # a forgotten factor or term may be an input, an output, or dy
        named = {name: self.values[name] for name in self.floats}
        named |= {path: np.asarray(leaf, np.float64) for path, leaf in outputs if leaf is not None and is_float(leaf)}
        case = Case(_d(name), got, want, self.tolerance, noise, True, named, {}, self.hints)
        comparable = got.shape == x.shape and bool(np.isfinite(got).all())
        astray = self._error_along_directions(probe, name, case, generator) if comparable and count < x.size else 0.0
        if count < x.size <= EXPLAIN_ALL and (not comparable or astray > self.tolerance or case.wrong.any()):
            measure(np.sort(order[count:]))
        return case, astray

    def _error_along_directions(self, probe: Differences, name: str, case: Case, generator) -> float:
        worst, typical = 0.0, float(np.sqrt(np.mean(np.square(case.want[case.known]))))
        for _ in range(DIRECTIONS):
            direction = generator.choice([-1.0, 1.0], size=case.got.shape) / np.sqrt(case.got.size)
            numerical, noise, _ = probe.direction(name, direction)
            analytic = float(np.sum(case.got * direction))
            size = max(abs(analytic), abs(numerical), typical, noise / self.tolerance)
            worst = max(worst, abs(analytic - numerical) / size if size else 0.0)
        return worst

    def _judge(self, name: str, case: Case, astray: float, rough: str | None) -> None:
        dtype = self.gradients[name].dtype
        if dtype.kind in "iub" or precision(dtype) > self.tolerance:
            self._found(case.name, f"is {dtype}, expected float64 like its input.", "a cast, or an array made in that type?")
        error, finding = judge(case, "numerical")
        if finding is None and astray > self.tolerance:
            text = f"right at the {case.known.sum()} elements probed and wrong elsewhere: "
            text += f"relative error {astray:.2g} along a random direction."
            error, finding = astray, Finding(case.name, text, "give a larger samples= to see where.")
        self.checked[case.name] = error
        if finding:
            self.findings.append(finding)
            if rough:
                choice = "if a choice (top-k, max, a comparison) flips there, freeze it."
                self.notes.append(f"forward jumps or has a kink near {rough}: {choice}")
        elif case.known.any() and np.all(np.abs(case.want) <= case.noise, where=case.known):
            self.notes.append(f"{case.name} is zero everywhere here, so this says little; other inputs may tell more.")


def _alike(one: Array, two: Array, tolerance: float) -> bool:
    return one.shape == two.shape and bool(relative_error(one, two).max(initial=0.0) <= tolerance)


def _differ(one, two) -> bool:
    first, second = ([np.asarray(leaf) for _, leaf in leaves(tree) if leaf is not None] for tree in (one, two))
    return len(first) != len(second) or any(map(differs, first, second))


def _cotangent(y, dy, seed: int):
    """dy in the form of y: standard normal where none is given, None for integers."""
    if dy is None:
        generator = np.random.default_rng(seed)
        draws = [generator.standard_normal(np.shape(x)) if x is not None and is_float(x) else None for _, x in leaves(y)]
        return rebuild(y, iter(draws))
    given, targets = list(leaves(dy, "dy")), [leaf for _, leaf in leaves(y)]
    if len(given) != len(targets):
        raise refuse("dy", f"{len(given)} arrays", f"must have the form of y: {len(targets)}, with None for integer ones")
    wanted = [target is not None and is_float(target) for target in targets]
    for (path, value), target, is_wanted in zip(given, targets, wanted, strict=True):
        if is_wanted and np.shape(value) != np.shape(target):
            raise refuse(path, f"array of shape {np.shape(value)}", f"must have the shape of its output, {np.shape(target)}")
    return rebuild(y, iter([np.array(value, np.float64) if w else None for (_, value), w in zip(given, wanted, strict=True)]))


def _d(name: str) -> str:
    """What the gradient of an input is called: dx, d_gain."""
    return f"d{name}" if len(name) <= 2 else f"d_{name}"


def _keyword_only(function) -> set[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some compiled functions have none
        return set()
    return {parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY}
