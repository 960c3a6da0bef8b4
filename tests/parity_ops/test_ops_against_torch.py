"""Every operation, forward and backward, against PyTorch's autograd on an independent formulation in PyTorch.

float64, relative error at most 1e-10. The right-hand sides use PyTorch's own functions where it has them (rms_norm, silu,
cross_entropy, scaled_dot_product_attention, topk) and plain indexing where it has none.
"""

import numpy as np
import pytest
import support
import torch
import torch.nn.functional as F

from minids.ops import (
    attention,
    balance_loss,
    combine,
    cross_entropy,
    dispatch,
    embedding,
    grouped_feed_forward,
    linear,
    mtp_combine,
    rmsnorm,
    rope,
    routed_experts,
    router,
    sigmoid,
    swiglu,
    yarn,
)

pytestmark = pytest.mark.parity

RNG = np.random.default_rng(0)
TOLERANCE = 1e-10


def compare(ours, backward, theirs, *inputs):
    """``ours(*inputs)`` → (y, saved), ``theirs`` → y in PyTorch. Compares y, and every gradient for a random cotangent."""
    y, saved = ours(*inputs)
    tensors = [torch.tensor(x, requires_grad=True) for x in inputs]
    want = theirs(*tensors)
    support.assert_close(y, want.detach().numpy(), TOLERANCE, "forward")
    dy = RNG.standard_normal(np.shape(y))
    want.backward(torch.tensor(dy))
    gradients = backward(dy, saved)
    for i, (got, tensor) in enumerate(zip(gradients if isinstance(gradients, tuple) else (gradients,), tensors, strict=True)):
        support.assert_close(got, tensor.grad.numpy(), TOLERANCE, f"gradient of input {i}")


def normal(*shape):
    return RNG.standard_normal(shape)


def test_linear():
    compare(linear.forward, linear.backward, F.linear, normal(2, 3, 5), normal(4, 5), normal(4))


def test_embedding():
    tokens = RNG.integers(0, 7, (2, 9))
    compare(
        lambda w: embedding.forward(tokens, w), embedding.backward, lambda w: F.embedding(torch.tensor(tokens), w), normal(7, 3)
    )


def test_rmsnorm():
    compare(
        lambda x, g: rmsnorm.forward(x, g, 1e-3),
        rmsnorm.backward,
        lambda x, g: F.rms_norm(x, (5,), g, 1e-3),
        normal(2, 3, 5),
        normal(5),
    )


def test_sigmoid_and_swiglu():
    compare(sigmoid.forward, sigmoid.backward, torch.sigmoid, 3 * normal(4, 5))
    compare(swiglu.forward, swiglu.backward, lambda p, q: F.silu(p) * q, 3 * normal(4, 5), normal(4, 5))


@pytest.mark.parametrize("interleave", [True, False], ids=["interleaved", "half-split"])
def test_rope(interleave):
    frequencies = yarn.yarn_frequencies(6, 100.0, 4.0, 64)
    cos, sin = yarn.rotation_table(frequencies, np.array([3, 4, 90]), amplitude=1.2)
    turns = 1.2 * torch.exp(1j * torch.tensor([3, 4, 90])[:, None] * torch.tensor(frequencies))  # (T, d_r/2)

    def theirs(x):
        pairs = torch.stack([x[..., 0::2], x[..., 1::2]] if interleave else [x[..., :3], x[..., 3:]], -1)
        turned = torch.view_as_real(torch.view_as_complex(pairs) * turns[:, None])
        return turned.flatten(-2) if interleave else turned.transpose(-1, -2).flatten(-2)

    compare(lambda x: rope.forward(x, cos, sin, interleave), rope.backward, theirs, normal(2, 3, 2, 6))


@pytest.mark.parametrize(
    ("queries", "keys", "heads", "kv_heads", "d_qk", "d_v"),
    [(1, 1, 1, 1, 2, 3), (5, 5, 4, 4, 3, 2), (4, 4, 6, 2, 3, 5), (4, 4, 4, 1, 3, 3), (2, 5, 4, 2, 3, 4)],
)
def test_attention(queries, keys, heads, kv_heads, d_qk, d_v):
    mask = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)

    def theirs(q, k, v):
        group = heads // kv_heads
        q, k, v = (x.transpose(1, 2) for x in (q, k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.4).transpose(1, 2)

    arrays = normal(2, queries, heads, d_qk), normal(2, keys, kv_heads, d_qk), normal(2, keys, kv_heads, d_v)
    compare(lambda *x: attention.forward(*x, 0.4), attention.backward, theirs, *arrays)


@pytest.mark.parametrize(
    ("scoring", "method", "normalise"),
    [
        ("sigmoid", "noaux_tc", True),
        ("sigmoid", "noaux_tc", False),
        ("softmax", "group_limited_greedy", False),
        ("softmax", "greedy", True),
    ],
)
def test_router(scoring, method, normalise):
    """Both outputs that carry a gradient, the gates and the scores, joined into one; PyTorch makes its own choice."""
    logits, bias = normal(7, 12), RNG.normal(0, 0.2, 12).astype(np.float32)
    bias = bias if method == "noaux_tc" else None
    groups, kept = (1, 1) if method == "greedy" else (4, 2)

    def ours(logits):
        routing, saved = router.forward(logits, bias, 3, groups, kept, scoring, method, normalise, 2.5)
        order = np.argsort(routing.chosen, axis=-1)  # by index: the order of a top-k is a convention
        return np.concatenate([np.take_along_axis(routing.gates, order, -1), routing.scores], -1), (saved, order)

    def backward(dy, saved):
        saved, order = saved
        d_gates = np.take_along_axis(dy[:, :3], np.argsort(order, axis=-1), axis=-1)
        return router.backward(d_gates, dy[:, 3:], saved)

    def theirs(logits):
        s = torch.sigmoid(logits) if scoring == "sigmoid" else torch.softmax(logits, -1)
        biased = s.detach() + (torch.tensor(bias) if bias is not None else 0)
        grouped = biased.view(7, groups, -1)
        score = grouped.topk(2, -1)[0].sum(-1) if method == "noaux_tc" else grouped.amax(-1)
        mask = torch.zeros(7, groups).scatter(1, score.topk(kept, -1)[1], 1.0).repeat_interleave(12 // groups, 1)
        chosen = biased.masked_fill(mask == 0, -torch.inf).topk(3, -1)[1].sort(-1)[0]
        gates = s.gather(1, chosen)
        gates = gates / gates.sum(-1, keepdim=True) if normalise else gates
        return torch.cat([2.5 * gates, s], -1)

    compare(ours, backward, theirs, logits)


def test_dispatch_experts_and_combine():
    """The way of the tokens through the experts as one function: no sorting in PyTorch, one expert after another."""
    chosen = np.argsort(-RNG.random((6, 5)), axis=-1)[:, :2]
    chosen[chosen == 3] = 4  # expert 3 is unused
    chosen[chosen[:, 0] == chosen[:, 1], 1] = 0
    plan = dispatch.plan(chosen, 5)

    def ours(x, gates, *weights):
        rows, saved_dispatch = dispatch.forward(x, plan)
        rows, saved_experts = grouped_feed_forward.forward(rows, plan.starts, *weights)
        y, saved_combine = combine.forward(rows, gates, plan)
        return y, (saved_dispatch, saved_experts, saved_combine)

    def backward(dy, saved):
        d_rows, d_gates = combine.backward(dy, saved[2])
        d_rows, *d_weights = grouped_feed_forward.backward(d_rows, saved[1])
        return (dispatch.backward(d_rows, saved[0]), d_gates, *d_weights)

    def at_once(x, gates, *weights):
        return routed_experts.forward(x, gates, plan, *weights)

    def theirs(x, gates, w_gate, w_up, w_down):
        per_expert = torch.stack([(F.silu(x @ w_gate[e].T) * (x @ w_up[e].T)) @ w_down[e].T for e in range(5)], 1)
        weight = torch.zeros(6, 5, dtype=x.dtype).scatter_add(1, torch.tensor(chosen), gates)
        return (weight[..., None] * per_expert).sum(1)

    inputs = normal(6, 3), normal(6, 2), normal(5, 4, 3), normal(5, 4, 3), normal(5, 3, 4)
    compare(ours, backward, theirs, *inputs)
    compare(at_once, routed_experts.backward, theirs, *inputs)


def test_balance_loss():
    chosen = np.argsort(-RNG.random((8, 6)), axis=-1)[:, :2]
    onehot = F.one_hot(torch.tensor(chosen), 6).sum(1).double()

    def theirs(scores):
        share = (scores / scores.sum(-1, keepdim=True)).view(2, 4, 6).mean(1)
        load = onehot.view(2, 4, 6).mean(1) * 6 / 2
        return (load * share).sum(-1).mean()

    compare(lambda s: balance_loss.forward(s, chosen, 4), balance_loss.backward, theirs, RNG.uniform(0.1, 1, (8, 6)))


@pytest.mark.parametrize("divisor", [None, 9])
def test_cross_entropy(divisor):
    targets = np.array([1, -100, 0, 4, -100, 2])

    def theirs(logits):
        total = F.cross_entropy(logits, torch.tensor(targets), ignore_index=-100, reduction="sum")
        return total / (divisor or 4)

    compare(lambda x: cross_entropy.forward(x, targets, divisor), cross_entropy.backward, theirs, 3 * normal(6, 5))


def test_mtp_combine():
    def theirs(embedding, hidden, enorm, hnorm, eh_proj):
        both = [F.rms_norm(embedding, (4,), enorm, 1e-3), F.rms_norm(hidden, (4,), hnorm, 1e-3)]
        return torch.cat(both, -1) @ eh_proj.T

    arrays = normal(2, 3, 4), normal(2, 3, 4), normal(4), normal(4), normal(4, 8)
    compare(lambda *x: mtp_combine.forward(*x, 1e-3), mtp_combine.backward, theirs, *arrays)
