"""What each operation is given when its kernel is measured: arrays of the shapes that a training step has."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from minids.lab.bench.sizes import Size
from minids.layers.positions import rotary, softmax_scale
from minids.ops import dispatch, router


class Operation(NamedTuple):
    """One at one size. ``forward(module)`` returns what ``backward(module, that)`` wants."""

    forward: Callable[[Any], Any]
    backward: Callable[[Any, Any], Any] | None
    flops: float  # of its products, forward and backward together; 0 where memory is the limit
    bytes: int  # what goes in and comes out, each read or written once, forward and backward together


def operations(size: Size) -> dict[str, Operation]:
    """Every operation that has a compiled twin and that a training step without extra losses calls, and ``linear``."""
    c, rng, n = size.config, np.random.default_rng(0), size.tokens
    d, heads, width = c.hidden_size, c.num_attention_heads, c.moe_intermediate_size

    def normal(*shape):
        return rng.standard_normal(shape, dtype=np.float32)

    x, table = normal(n, d), rotary(c, np.arange(size.length), np.float32)
    logits, targets = normal(n, c.vocab_size), rng.integers(0, c.vocab_size, n)
    routing = router.forward(normal(n, c.n_routed_experts), None, c.num_experts_per_tok, c.n_group, c.topk_group)[0]
    plan = dispatch.plan(routing.chosen, c.n_routed_experts)
    rows = normal(plan.place.size, d)
    experts = [normal(c.n_routed_experts, *shape) / 16 for shape in ((width, d), (width, d), (d, width))]
    q, k = (normal(size.batch, size.length, heads, c.qk_head_dim) for _ in range(2))
    v = normal(size.batch, size.length, heads, c.v_head_dim)
    kv = normal(size.batch, size.length, heads, c.qk_nope_head_dim + c.v_head_dim)
    pairs = size.batch * heads * size.length * (size.length + 1) / 2
    gates = np.ascontiguousarray(routing.gates, np.float32)
    choose = (None, c.num_experts_per_tok, c.n_group, c.topk_group)
    return {
        # dy is another array than x: NumPy would notice dyᵀ x = xᵀ x and form half of it.
        "linear": _operation((x, normal(d, d)), (normal(n, d),), flops=6 * n * d * d, into=(np.zeros((d, d), np.float32),)),
        "rmsnorm": _operation((x, normal(d)), (x,)),
        "rope": _operation((q[..., c.qk_nope_head_dim :], *table), (q[..., c.qk_nope_head_dim :],)),
        "query_heads": _operation((q, *table), (q,)),
        "key_heads": _operation((kv, k[:, :, :1, c.qk_nope_head_dim :], c.qk_nope_head_dim), (k, v)),
        "attention": _operation((q, k, v, softmax_scale(c)), (v,), flops=6 * pairs * (c.qk_head_dim + c.v_head_dim)),
        "swiglu": _operation(
            (normal(n, c.intermediate_size), normal(n, c.intermediate_size)), (normal(n, c.intermediate_size),)
        ),
        "router": _operation((normal(n, c.n_routed_experts), *choose), (gates, None)),
        "dispatch": _operation((x, plan), (rows,)),
        "grouped_feed_forward": _operation(
            (rows, plan.starts, *experts), (rows,), flops=18 * len(rows) * d * width, into=tuple(map(np.zeros_like, experts))
        ),
        "combine": _operation((rows, gates, plan), (x,)),
        "routed_experts": _operation(
            (x, gates, plan, *experts), (x,), flops=18 * len(rows) * d * width, into=tuple(map(np.zeros_like, experts))
        ),
        "embedding": _operation((targets, normal(c.vocab_size, d)), (x,)),
        "cross_entropy": _operation((logits, targets), (1.0,)),
        "adamw": _adamw(normal(1_600_000)),
    }


def _operation(inputs: tuple, d_outputs: tuple, flops: float = 0.0, into: tuple = ()) -> Operation:
    """forward reads the inputs and writes the output; backward reads its gradient and the inputs and writes their gradients.

    Those of weights are added to the arrays of ``into``, where the layers have it so.
    """
    size_in, size_out = _bytes(inputs), _bytes(d_outputs)

    def backward(module, saved):
        return module.backward_into(*d_outputs, saved, *into) if into else module.backward(*d_outputs, saved)

    return Operation(lambda module: module.forward(*inputs)[1], backward, flops, 3 * size_in + 2 * size_out)


def _adamw(values: np.ndarray) -> Operation:
    grads, m, v = (np.zeros_like(values) for _ in range(3))

    def update(module):
        module.update(values, grads, m, v, 1e-3, 0.9, 0.95, 1e-8, 0.1, 10, 1.0)

    return Operation(update, None, 0.0, 7 * values.nbytes)  # values, grads, m, v in; values, m, v out


def _bytes(arrays: tuple) -> int:
    return sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))
