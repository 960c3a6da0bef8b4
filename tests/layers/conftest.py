"""The layers are proved on the plain NumPy operations."""

import pytest


@pytest.fixture(autouse=True)
def _on_the_reference_backend(reference_backend):
    pass
