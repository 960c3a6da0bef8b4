"""Settings that every test shares."""

import os

import numpy as np
import pytest
from hypothesis import settings

from minids.backend import VARIABLE, use_backend

# Compiling and loading take time that a deadline would blame on the test; a fixed order makes every run the same run.
settings.register_profile("minids", deadline=None, derandomize=True)
settings.load_profile("minids")


@pytest.fixture(autouse=True)
def fresh_generator(request):
    """A module's ``RNG`` starts anew for each test: it draws the same numbers alone, in any order and in parallel."""
    if isinstance(getattr(request.module, "RNG", None), np.random.Generator):
        request.module.RNG = np.random.default_rng(0)


@pytest.fixture
def reference_backend():
    """NumPy serves all operations, or what MINIDS_BACKEND asks for: the proofs of layers and model run on both."""
    with use_backend(os.environ.get(VARIABLE, "numpy")):
        yield
