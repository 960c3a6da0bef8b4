"""Notebook 8: the gradient that the second loss adds."""

import numpy as np
import pytest

from minids.lab import notebook
from minids.lab.lessons import mtp


def test_the_second_gradient_grows_with_its_weight():
    model = notebook.model(np.float64)
    read = notebook.read(model)
    names = ["lm_head.weight", "model.layers.1.mlp.gate.weight"]
    half, whole = (
        mtp.second_gradients(model, read.tokens[:, :-1], read.tokens[:, 1:], names, weight) for weight in (0.15, 0.3)
    )
    for name in names:
        assert whole[name] == pytest.approx(2 * half[name], rel=1e-6) and whole[name] > 0
