"""Numerical derivatives: what a gradient is checked against.

With outputs y and a fixed cotangent dy the number s = Σ y·dy is differentiated by central differences,

    D(h) = Σ dy · (y(x + h) − y(x − h)) / 2h  =  s' + c h² + O(h⁴),

and two steps are combined so that the h² term cancels (Richardson): (4 D(h/2) − D(h)) / 3. The truncation left is of order h⁴
and the round-off of order ε/h, so the step ε^(1/5), about 7e-4 of the argument's scale in float64, balances them near 1e-12.
Subtracting the outputs before summing lets every output that does not move cancel exactly.

Where D(h) and D(h/2) disagree the function bends too sharply for the step (a peaked softmax): steps 16 and 256 times smaller
are tried, and the estimate whose two steps agree best is kept. The gradient under test has no say in this.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from minids.check.case import Array, at, precision
from minids.check.nested import is_float, leaves
from minids.check.report import Broken, Finding

STEPS_AGREE = 1e-5  # D(h) and D(h/2) this close leave a truncation near the square of it


class Slope(NamedTuple):
    value: float
    noise: float  # round-off the value carries
    spread: float  # |D(h) − D(h/2)|


class Differences:
    """Derivatives of Σ y·dy at one point.

    run: evaluates the function on ``arrays``, which are moved in place and put back.
    outputs: what it gave at this point; the integer ones must stay as they are. cotangent: dy of every float output.
    step: the first h tried, or None for one that follows the scale of the argument, up to a scale of 1.
    """

    def __init__(self, run: Callable, arrays: dict[str, Array], outputs, cotangent: list[Array], step: float | None):
        self.run, self.arrays, self.step = run, arrays, step
        self.rough: dict[str, str] = {}  # argument → its first element where no step gives a steady slope
        pairs = [(path, np.asarray(leaf)) for path, leaf in leaves(outputs) if leaf is not None]
        self.paths = [path for path, _ in pairs]
        self.choices = [array.copy() if not is_float(array) else None for _, array in pairs]
        self.unit = max(precision(array.dtype) for _, array in pairs if is_float(array))
        self.cotangent = np.concatenate([np.ravel(dy) for dy in cotangent])
        self.magnitude = np.abs(self.cotangent)

    def element(self, name: str, index: int) -> Slope:
        """The derivative by one element of an argument, given by its flat index."""
        one = self.arrays[name].reshape(-1)[index : index + 1]
        where = f"{name}{at(np.unravel_index(index, self.arrays[name].shape))}"
        return self._slope(one, np.ones(1), self._start_step(name, abs(float(one[0]))), where)

    def direction(self, name: str, unit_vector: Array) -> Slope:
        """The derivative along a direction in the space of one argument: it sees every element at once."""
        return self._slope(self.arrays[name], unit_vector, self._start_step(name, 0.0), name)

    def _start_step(self, name: str, size: float) -> float:
        if self.step is not None:
            return self.step
        spread = float(np.sqrt(np.mean(np.square(self.arrays[name])))) or 1.0
        return self.unit**0.2 * min(1.0, max(size, spread))

    def _slope(self, moved: Array, direction: Array, step: float, where: str) -> Slope:
        best, start = Slope(np.nan, np.inf, np.nan), moved.copy()
        for _ in range(3):
            coarse, coarse_noise = self._central(moved, start, direction, step, where)
            fine, fine_noise = self._central(moved, start, direction, step / 2, where)
            noise = (4 * fine_noise + coarse_noise) / 3
            slope = Slope((4 * fine - coarse) / 3, noise, abs(coarse - fine))
            best = best if best.spread <= slope.spread else slope  # so written, NaN is replaced
            if best.spread <= STEPS_AGREE * abs(fine) + noise:
                return best
            step /= 16
        if not np.isfinite(best.value):
            raise Broken(Finding("forward", f"gives NaN or inf when {where} is moved by {step * 16:.1e}."))
        if best.spread > 1e-3 * abs(best.value) + best.noise:
            self.rough.setdefault(where.partition("[")[0], where)
        return best

    def _central(self, moved: Array, start: Array, direction: Array, step: float, where: str) -> tuple[float, float]:
        """D(step), and the round-off of D: a few ε of every output that moved, over the step."""
        moved[...] = start + step * direction
        high, up = moved.flat[0], self._outputs(where, step)
        moved[...] = start - step * direction
        low, down = moved.flat[0], self._outputs(where, step)
        moved[...] = start
        width = float(high - low) if moved.size == 1 else 2 * step  # of one element, what it really moved by
        value = float(self.cotangent @ (up - down)) / width
        noise = 16 * self.unit * float(self.magnitude @ (np.abs(up) * (up != down))) / width
        return value, noise

    def _outputs(self, where: str, step: float) -> Array:
        """All float outputs in one fresh vector. An integer output that changed is a choice that flipped: no derivative."""
        floats = []
        results = [leaf for _, leaf in leaves(self.run()) if leaf is not None]
        for path, choice, result in zip(self.paths, self.choices, results, strict=True):
            if choice is None:
                floats.append(np.array(result, np.float64).reshape(-1))
            elif not np.array_equal(choice, np.asarray(result)):
                kind = path[2:] if path.startswith("y.") else "experts"  # what an output without a name most likely is
                text = f"the integer output {path} changed when {where} was moved by {step:.1e}: the choice of {kind} flipped; "
                cause = "two scores are nearly equal; pass the choice with frozen=, or use other inputs."
                raise Broken(Finding("forward", text + "freeze it.", cause))
        return np.concatenate(floats)
