"""Key heads: a part for each head, and one key that all of them share."""

import numpy as np

from minids.ops import key_heads

RNG = np.random.default_rng(0)


def some():
    return RNG.standard_normal((2, 3, 4, 5 + 2)), RNG.standard_normal((2, 3, 1, 3))  # d_nope 5, d_v 2, d_r 3


def test_every_head_has_its_own_part_and_the_shared_key():
    kv, k_rope = some()
    (k, v), _ = key_heads.forward(kv, k_rope, 5)
    for h in range(4):
        np.testing.assert_array_equal(k[:, :, h], np.concatenate([kv[:, :, h, :5], k_rope[:, :, 0]], axis=-1))
    np.testing.assert_array_equal(v, kv[..., 5:])


def test_the_shared_key_gets_the_sum_of_all_heads_gradients():
    kv, k_rope = some()
    (k, v), saved = key_heads.forward(kv, k_rope, 5)
    dk, dv = RNG.standard_normal(k.shape), RNG.standard_normal(v.shape)
    d_kv, d_k_rope = key_heads.backward(dk, dv, saved)
    np.testing.assert_allclose(d_k_rope[:, :, 0], sum(dk[:, :, h, 5:] for h in range(4)), rtol=1e-12)
    np.testing.assert_array_equal(d_kv, np.concatenate([dk[..., :5], dv], axis=-1))
    # A linear map's backward pass is its transpose: ⟨dy, f(x)⟩ = ⟨f'(dy), x⟩.
    np.testing.assert_allclose((dk * k).sum() + (dv * v).sum(), (d_kv * kv).sum() + (d_k_rope * k_rope).sum(), rtol=1e-12)
