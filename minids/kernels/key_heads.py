"""Key heads of MLA, compiled: see ``minids/ops/key_heads.py`` for the equations. One pass forward and one backward, in which
the shared key's gradient is added up over the heads."""

import numpy as np

from minids.kernels._arrays import Array, common_float, expect
from minids.kernels._jit import kernel
from minids.ops.key_heads import Saved


def forward(kv: Array, k_rope: Array, d_nope: int) -> tuple[tuple[Array, Array], Saved]:
    """kv (B, T, H, d_nope + d_v), a head's [k_nope ; v], and k_rope (B, T, 1, d_r), turned → k (B, T, H, d_nope + d_r) and
    v (B, T, H, d_v), which is a view of kv."""
    dtype, d_r = common_float(kv, k_rope), k_rope.shape[-1]
    expect("k_rope", k_rope, (*kv.shape[:2], 1, d_r))
    if not 0 <= d_nope <= kv.shape[-1]:
        raise ValueError(f"d_nope = {d_nope}: a head's keys and values are {kv.shape[-1]} numbers")
    kv, k_rope = np.ascontiguousarray(kv, dtype), np.ascontiguousarray(k_rope, dtype)
    k = np.empty((*kv.shape[:3], d_nope + d_r), dtype)
    join(_by_token(kv), k_rope.reshape(kv.shape[0] * kv.shape[1], d_r), _by_token(k))
    return (k, kv[..., d_nope:]), Saved(d_nope)


def backward(dk: Array, dv: Array, saved: Saved) -> tuple[Array, Array]:
    """dk (B, T, H, d_nope + d_r), dv (B, T, H, d_v) → d_kv (B, T, H, d_nope + d_v), d_k_rope (B, T, 1, d_r)."""
    dtype, (d_nope,) = common_float(dk, dv), saved
    expect("dv", dv, (*dk.shape[:3], dv.shape[-1]))
    dk, dv = np.ascontiguousarray(dk, dtype), np.ascontiguousarray(dv, dtype)
    d_kv = np.empty((*dk.shape[:3], d_nope + dv.shape[-1]), dtype)
    d_k_rope = np.zeros((*dk.shape[:2], 1, dk.shape[-1] - d_nope), dtype)
    separate(_by_token(dk), _by_token(dv), _by_token(d_kv), d_k_rope.reshape(dk.shape[0] * dk.shape[1], d_k_rope.shape[-1]))
    return d_kv, d_k_rope


def _by_token(x: Array) -> Array:
    """(B, T, H, size) → (N, H, size)."""
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


@kernel
def join(kv, k_rope, k):
    """kv (N, H, d_nope + d_v), k_rope (N, d_r) → k (N, H, d_nope + d_r)."""
    split = k.shape[2] - k_rope.shape[1]
    for n in range(k.shape[0]):
        shared = k_rope[n]
        for h in range(k.shape[1]):
            own, target = kv[n, h], k[n, h]
            for i in range(split):
                target[i] = own[i]
            for i in range(shared.size):
                target[split + i] = shared[i]


@kernel
def separate(dk, dv, d_kv, d_k_rope):
    """dk (N, H, d_nope + d_r), dv (N, H, d_v) → d_kv (N, H, d_nope + d_v); adds to d_k_rope (N, d_r)."""
    split = dk.shape[2] - d_k_rope.shape[1]
    for n in range(dk.shape[0]):
        shared = d_k_rope[n]
        for h in range(dk.shape[1]):
            of_key, of_value, target = dk[n, h], dv[n, h], d_kv[n, h]
            for i in range(split):
                target[i] = of_key[i]
            for i in range(of_value.size):
                target[split + i] = of_value[i]
            for i in range(shared.size):
                shared[i] += of_key[split + i]
