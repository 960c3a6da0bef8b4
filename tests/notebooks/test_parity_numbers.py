"""The logits of transformers that notebook 12 compares with are those of the golden file, to the last bit."""

from pathlib import Path

import numpy as np

from minids.lab.analysis import known_weights

GOLDEN = Path(__file__).parent.parent / "golden" / "base.npz"


def test_the_notebook_compares_with_the_golden_logits():
    with np.load(GOLDEN) as golden:
        assert known_weights.TRANSFORMERS.tolist() == golden["logits"][-1, -1, :8].tolist()
    ours = known_weights.model().logits(known_weights.tokens())
    np.testing.assert_allclose(ours[-1, -1, :8], known_weights.TRANSFORMERS, rtol=0, atol=1e-9)
