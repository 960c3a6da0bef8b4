"""A decoding step, compiled whole: a few new tokens through all blocks in one call.

At batch 1 a layer is two dozen small products, which Python takes longer to call than to compute. This step computes what
``minids/inference/decoder.py`` writes out with the layers, on the model's flat array of weights itself: nothing is copied.
Rows are tokens: of one sequence in order (guesses to be checked), of several sequences (a batch), or both.
"""

from typing import NamedTuple

import numpy as np

from minids.kernels._exp import exp
from minids.kernels._gemv import feed_forward, project
from minids.kernels._jit import kernel
from minids.kernels._rows import largest
from minids.kernels.router import score, select, weigh

# Columns of the table of places: where each matrix of a block begins in the flat weights; −1 where there is none.
INPUT_NORM, Q_A, Q_A_BIAS, Q_NORM, Q_B, KV_A, KV_A_BIAS, KV_NORM, KV_B, OUT, OUT_BIAS, FFN_NORM = range(12)
ROUTER, GATE, UP, DOWN, SHARED_GATE, SHARED_UP, SHARED_DOWN = range(12, 19)
BIAS = 19  # and of a block with experts the row of its routing bias in ``biases``


class Sizes(NamedTuple):
    """What a step must know of the configuration, in numbers."""

    d: int
    heads: int
    d_q: int  # d_c', 0 without query latent
    d_c: int
    d_nope: int
    d_rope: int
    d_v: int
    pair_step: int  # pair i of a rotary part is (i · pair_step, i · pair_step + pair_apart)
    pair_apart: int
    dense_width: int
    width: int  # of one expert
    shared_width: int
    experts: int
    top_k: int
    grouping: int  # how groups are scored, as in ``minids/kernels/router.py``
    n_group: int
    topk_group: int
    softmax: int  # scores of the router: 1 softmax, 0 sigmoid
    normalise: int
    gate_scale: float
    scale: float  # of the attention logits
    eps: float
    latent_eps: float


@kernel
def norm(x, weights, gain, size, eps, y):
    """y[r] = x[r] / rms(x[r]) · g over the first ``size`` columns; y may be x."""
    number = weights.dtype.type
    g = weights[gain : gain + size]
    for r in range(x.shape[0]):
        source, target = x[r], y[r]
        total = number(0)
        for i in range(size):
            total += source[i] * source[i]
        factor = number(1) / np.sqrt(total / number(size) + number(eps))
        for i in range(size):
            target[i] = source[i] * factor * g[i]


@kernel
def turn(part, cos, sin, step, apart):
    """RoPE on one rotary part (d_r,), in place, by the angles of one position, (d_r/2,) each."""
    for i in range(cos.size):
        first, second = part[i * step], part[i * step + apart]
        part[i * step] = first * cos[i] - second * sin[i]
        part[i * step + apart] = first * sin[i] + second * cos[i]


@kernel
def add_bias(x, weights, bias, size):
    """x[r] += b over the first ``size`` columns, where there is a bias."""
    if bias >= 0:
        for r in range(x.shape[0]):
            for i in range(size):
                x[r, i] += weights[bias + i]


@kernel
def attend(q, latents, time, width, d_c, probs, context):
    """One token: q (H, d_c + d_r), absorbed and scaled, over ``time`` latents of ``width`` = d_c + d_r → context (H, d_c).
    ``latents`` is flat; ``probs`` (H, ≥ time) is room for the weights."""
    heads, number = q.shape[0], q.dtype.type
    project(q, heads, latents, 0, time, width, probs)  # z_hj = q_h · [c_j | k_j]
    for h in range(heads):
        row = probs[h, :time]
        peak, total = largest(row), number(0)
        for t in range(time):
            row[t] = exp(row[t] - peak)
        for t in range(time):
            total += row[t]
        for t in range(time):
            row[t] /= total
    # context_h = Σ_j p_hj c_j: 64 latents stay in the nearest cache for all heads; four are added for one load of a context.
    context[:, :] = number(0)
    whole = time - time % 4
    for start in range(0, whole, 64):
        for h in range(heads):
            row, p = context[h], probs[h]
            for t in range(start, min(start + 64, whole), 4):
                at = t * width
                c0, c1 = latents[at : at + d_c], latents[at + width : at + width + d_c]
                c2, c3 = latents[at + 2 * width : at + 2 * width + d_c], latents[at + 3 * width : at + 3 * width + d_c]
                p0, p1, p2, p3 = p[t], p[t + 1], p[t + 2], p[t + 3]
                for i in range(d_c):
                    row[i] += p0 * c0[i] + p1 * c1[i] + p2 * c2[i] + p3 * c3[i]
    for t in range(whole, time):
        c0 = latents[t * width : t * width + d_c]
        for h in range(heads):
            row, p0 = context[h], probs[h, t]
            for i in range(d_c):
                row[i] += p0 * c0[i]


@kernel
def entries(x, normed, weights, place, s, positions, sequences, cos, sin, latent):
    """norm(x) of x (R, d) into ``normed``, and the rows' [c_kv | k_rope] into the layer's latent (B, capacity, d_c + d_r)."""
    rows, width = x.shape[0], s.d_c + s.d_rope
    norm(x, weights, place[INPUT_NORM], s.d, s.eps, normed)
    made = np.empty((rows, width), x.dtype)
    project(normed, rows, weights, place[KV_A], width, s.d, made)
    add_bias(made, weights, place[KV_A_BIAS], width)
    norm(made, weights, place[KV_NORM], s.d_c, s.latent_eps, made)  # c_kv alone: the positional part has no norm
    for r in range(rows):
        at = positions[r]
        turn(made[r, s.d_c :], cos[at], sin[at], s.pair_step, s.pair_apart)
        entry = latent[sequences[r], at]
        for i in range(width):
            entry[i] = made[r, i]


@kernel
def attention(x, normed, weights, place, s, positions, sequences, cos, sin, latent):
    """Adds attention(norm(x)) to x (R, d), after ``entries``: each row attends to what is cached up to its position."""
    rows, number, width, d_head = x.shape[0], x.dtype.type, s.d_c + s.d_rope, s.d_nope + s.d_rope
    q = np.empty((rows, s.heads * d_head), x.dtype)
    if s.d_q > 0:
        c_q = np.empty((rows, s.d_q), x.dtype)
        project(normed, rows, weights, place[Q_A], s.d_q, s.d, c_q)
        add_bias(c_q, weights, place[Q_A_BIAS], s.d_q)
        norm(c_q, weights, place[Q_NORM], s.d_q, s.latent_eps, c_q)
        project(c_q, rows, weights, place[Q_B], s.heads * d_head, s.d_q, q)
    else:
        project(normed, rows, weights, place[Q_B], s.heads * d_head, s.d, q)
    longest = positions.max() + 1
    absorbed, context = np.empty((s.heads, width), x.dtype), np.empty((s.heads, s.d_c), x.dtype)
    probs, outputs = np.empty((s.heads, longest), x.dtype), np.empty((rows, s.heads * s.d_v), x.dtype)
    scale = number(s.scale)
    for r in range(rows):
        at = positions[r]
        for h in range(s.heads):
            head, q_latent = q[r, h * d_head : (h + 1) * d_head], absorbed[h]
            up = place[KV_B] + h * (s.d_nope + s.d_v) * s.d_c  # W^UK_h (d_nope, d_c), then W^UV_h (d_v, d_c)
            # q_nope · (W^UK c_j) = (W^UKᵀ q_nope) · c_j: the query is led into the latent's space, row by row of W^UK.
            for i in range(s.d_c):
                q_latent[i] = number(0)
            for n in range(s.d_nope):
                v, w = head[n] * scale, weights[up + n * s.d_c : up + (n + 1) * s.d_c]
                for i in range(s.d_c):
                    q_latent[i] += v * w[i]
            turn(head[s.d_nope :], cos[at], sin[at], s.pair_step, s.pair_apart)
            for i in range(s.d_rope):
                q_latent[s.d_c + i] = head[s.d_nope + i] * scale
        attend(absorbed, latent[sequences[r]].reshape(-1), at + 1, width, s.d_c, probs, context)
        for h in range(s.heads):  # Σ_j p_j (W^UV c_j) = W^UV (Σ_j p_j c_j): one product for the whole context
            up = place[KV_B] + (h * (s.d_nope + s.d_v) + s.d_nope) * s.d_c
            output = outputs[r, h * s.d_v : (h + 1) * s.d_v].reshape((1, s.d_v))
            project(context[h : h + 1], 1, weights, up, s.d_v, s.d_c, output)
    attended = np.empty((rows, s.d), x.dtype)
    project(outputs, rows, weights, place[OUT], s.d, s.heads * s.d_v, attended)
    x += attended
    add_bias(x, weights, place[OUT_BIAS], s.d)


@kernel
def route(normed, weights, place, bias, s, chosen, gates):
    """normed (R, d) → the experts of each row and their weights, chosen and gates (R, K). bias (E,): of the choice."""
    rows = normed.shape[0]
    logits, scores = np.empty((rows, s.experts), normed.dtype), np.empty((rows, s.experts), normed.dtype)
    project(normed, rows, weights, place[ROUTER], s.experts, s.d, logits)
    score(logits, s.softmax == 1, scores)
    select(scores, bias, s.grouping, s.n_group, s.topk_group, chosen)
    weigh(scores, chosen, s.normalise == 1, s.gate_scale, gates)


@kernel
def experts(x, normed, weights, place, biases, s, chosen):
    """Adds ffn(norm(x)) to x (R, d): a dense network, or the shared and the chosen experts. chosen (R, K) is told which."""
    rows, one = x.shape[0], x.dtype.type(1)
    norm(x, weights, place[FFN_NORM], s.d, s.eps, normed)
    everyone, ones = np.arange(rows), np.full(rows, one, x.dtype)
    scratch = np.empty((4, rows, max(s.d, s.dense_width, s.width, s.shared_width)), x.dtype)
    if place[ROUTER] < 0:
        feed_forward(normed, everyone, ones, weights, place[GATE], place[UP], place[DOWN], s.dense_width, s.d, scratch, x)
        return
    gates = np.empty((rows, s.top_k), x.dtype)
    route(normed, weights, place, biases[place[BIAS]], s, chosen, gates)
    members, factors, size = np.empty(rows, np.int64), np.empty(rows, x.dtype), s.width * s.d
    for e in range(s.experts):  # an expert's weights are read once, for all rows that chose it
        count = 0
        for r in range(rows):
            for k in range(s.top_k):
                if chosen[r, k] == e:
                    members[count], factors[count] = r, gates[r, k]
                    count += 1
        if count:
            gate, up, down = place[GATE] + e * size, place[UP] + e * size, place[DOWN] + e * size
            feed_forward(normed, members[:count], factors, weights, gate, up, down, s.width, s.d, scratch, x)
    if place[SHARED_GATE] >= 0:
        gate, up, down = place[SHARED_GATE], place[SHARED_UP], place[SHARED_DOWN]
        feed_forward(normed, everyone, ones, weights, gate, up, down, s.shared_width, s.d, scratch, x)


@kernel
def combine(embedding, before, weights, enorm, hnorm, eh_proj, s, x):
    """What an MTP module reads: x = M [norm(embedding) ; norm(before)], (R, d) each."""
    rows = x.shape[0]
    pairs = np.empty((rows, 2, s.d), x.dtype)
    for r in range(rows):
        norm(embedding[r : r + 1], weights, enorm, s.d, s.eps, pairs[r, :1])
        norm(before[r : r + 1], weights, hnorm, s.d, s.eps, pairs[r, 1:])
    project(pairs.reshape((rows, 2 * s.d)), rows, weights, eh_proj, s.d, 2 * s.d, x)


@kernel
def step(x, weights, places, biases, final_norm, s, first, positions, sequences, cos, sin, latent, skip, chosen):
    """x (R, d), in place, through as many blocks as the cache latent (L, B, capacity, d_c + d_r) has layers, from ``first``,
    and the norm after them unless ``final_norm`` is -1. Of the first ``skip`` rows the last block makes only the entry.
    chosen (layers with experts, R, K) is told the experts of each row."""
    normed, last = np.empty_like(x), latent.shape[0] - 1
    for i in range(latent.shape[0]):
        place = places[first + i]
        entries(x, normed, weights, place, s, positions, sequences, cos, sin, latent[i])
        start = skip if i == last else 0
        attention(x[start:], normed[start:], weights, place, s, positions[start:], sequences[start:], cos, sin, latent[i])
        told = chosen[max(0, place[BIAS]), start:]  # a dense block tells nothing
        experts(x[start:], normed[start:], weights, place, biases, s, told)
    if final_norm >= 0:
        norm(x[skip:], weights, final_norm, s.d, s.eps, x[skip:])


@kernel
def logits(x, weights, head, vocabulary, y):
    """y (R, V) = x (R, d) Wᵀ, W (V, d) at ``head`` of the weights."""
    project(x, x.shape[0], weights, head, vocabulary, x.shape[1], y)
