"""A model in FP8 decodes from its cache what it computes in one pass: a token's tiles do not depend on its neighbours."""

import numpy as np
import pytest
from support import TINY, build

from minids.backend import use_backend
from minids.inference.decoder import Decoder

TOKENS = np.random.default_rng(0).integers(0, TINY.vocab_size, (2, 9))
MODEL = build(TINY.replace(precision="fp8"))  # float64: the last digits, in which the passes differ, decide no rounding here


def decoded(cache, absorb):
    decoder = Decoder(MODEL, cache, len(TOKENS), absorb)
    return np.concatenate([decoder.read(TOKENS[:, i : i + 1]) for i in range(TOKENS.shape[1])], axis=1)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("cache", ["latent", "full"])
def test_token_by_token_equals_one_pass(cache, backend):
    with use_backend(backend):
        want = MODEL.logits(TOKENS)
        got = MODEL.head.forward(decoded(cache, absorb=False))[0]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-8 * np.abs(want).max())


def test_absorbed_up_projections_are_not_quantised_so_it_differs_by_rounding():
    """Absorbed, W^UK and W^UV belong to the attention operator, which stays in full precision."""
    naive, absorbed = decoded("latent", False), decoded("latent", True)
    error = np.linalg.norm(absorbed - naive) / np.linalg.norm(naive)
    assert 1e-4 < error < 0.2, f"{error:.3f}"


def test_the_compiled_step_which_multiplies_in_full_precision_leaves_such_models_to_the_layers():
    with use_backend("numba"):
        assert Decoder(build(TINY)).step is not None and Decoder(MODEL).step is None
