"""The mistakes are put into the NumPy operations, so these must be the ones that run."""

import pytest

from minids.backend import use_backend


@pytest.fixture(autouse=True)
def _numpy():
    with use_backend("numpy"):
        yield
