"""Delayed scaling: a tensor's FP8 scale from its largest magnitudes in earlier steps (V3 section 3.3.2 on its alternatives).

    s = max_{i = 1 … 16} amax_{t−i} / 448        amax_t = max |x| over the whole tensor, kept for the steps to come

Online scaling, V3's choice, looks at the tensor itself first. The delayed one needs no second pass over the numbers, and pays:
what grows past all its earlier sizes is cut off at 448 s. Before the first step there is no history, and the tensor's own
maximum serves. In the literature it goes with one scale per tensor, as here; all experts of a layer share theirs.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray
STEPS = 16  # that a maximum is remembered


class Amaxes:
    """Of the tensors of one layer, by their role in it: maxima of earlier steps, and those of the step that is being made."""

    def __init__(self, past: dict[str, Array] | None = None):
        """``past``: role → (STEPS,), shared by the copies of a layer that several threads use; 0 where there was no step."""
        self.past: dict[str, Array] = {} if past is None else past
        self.seen: dict[str, float] = {}

    def sharing(self) -> Amaxes:
        """For another thread: the same past, and what is seen apart."""
        return Amaxes(self.past)

    def of(self, role: str, x: Array) -> float:
        """The maximum that x (…) is scaled by; its own is remembered."""
        own = float(np.abs(x).max(initial=0))
        self.seen[role] = float(np.maximum(self.seen.get(role, 0.0), own))  # of a NaN too: the run has to notice
        past = float(self.past[role].max()) if role in self.past else 0.0
        return past if past > 0 else own

    def end_step(self, seen: list[dict[str, float]]) -> None:
        """Add the step's maxima over all threads to the past."""
        for role in sorted(set().union(*seen)):
            kept = self.past.setdefault(role, np.zeros(STEPS, np.float32))
            kept[1:] = kept[:-1].copy()
            kept[0] = max(each.get(role, 0.0) for each in seen)
