"""Muon against PyTorch's own, over some steps. PyTorch rounds the iteration to bfloat16; without that the two agree closely."""

import numpy as np
import pytest
import torch
from support import assert_close

from minids.ops import muon

pytestmark = pytest.mark.parity

SHAPES = [(12, 12), (6, 20), (20, 6)]


def both(shape, dtype, steps=4):
    rng = np.random.default_rng(sum(shape))
    value, momentum = rng.normal(size=shape).astype(dtype), np.zeros(shape, dtype)
    start = value.copy()
    parameter = torch.nn.Parameter(torch.tensor(value))
    theirs = torch.optim.Muon([parameter], lr=0.05, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for g in rng.normal(size=(steps, *shape)).astype(dtype):
        muon.update([value], [g], [momentum], 0.05, 0.95, 0.1)
        parameter.grad = torch.tensor(g)
        theirs.step()
    return value - start, parameter.detach().numpy() - start


@pytest.mark.parametrize("shape", SHAPES)
def test_without_rounding_the_steps_are_equal(shape, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda self: self.clone())
    assert_close(*both(shape, np.float64), 1e-10)


@pytest.mark.parametrize("shape", SHAPES)
def test_as_it_comes_they_differ_by_the_rounding_only(shape):
    ours, theirs = both(shape, np.float32)
    assert np.linalg.norm(ours - theirs) < 0.02 * np.linalg.norm(theirs)
