"""Products of a few vectors with matrices out of one flat array of weights: what a decoding step is made of.

What counts is how fast weights come in: a matrix is read once, from its first number to its last, each row against every vector
(four rows at a time came half as fast). The sums of one vector are formed by the same instructions however many there are: a
token gets the same bits alone and in company, and speculative decoding the same text.
"""

from minids.kernels._exp import sigmoid
from minids.kernels._jit import kernel


@kernel
def project(x, rows, weights, start, n_out, n_in, y):
    """y[r] = W x[r] for r < rows; x (R, ≥ n_in), y (R, ≥ n_out), W (n_out, n_in) at ``start`` of the flat weights."""
    for o in range(n_out):
        w = weights[start + o * n_in : start + (o + 1) * n_in]
        for r in range(rows):
            row, total = x[r], weights.dtype.type(0)  # w is in the cache for the second vector and all after it
            for i in range(n_in):
                total += w[i] * row[i]
            y[r, o] = total


@kernel
def add_projected(x, members, weights, start, n_out, n_in, y):
    """y[m] += W x[j] for the j-th m of ``members``; x (≥ len(members), ≥ n_in), y (R, n_out)."""
    for o in range(n_out):
        w = weights[start + o * n_in : start + (o + 1) * n_in]
        for j in range(members.size):
            row, total = x[j], weights.dtype.type(0)
            for i in range(n_in):
                total += w[i] * row[i]
            y[members[j], o] += total


@kernel
def feed_forward(x, members, factors, weights, gate, up, down, width, n_in, hidden, y):
    """y[m] += f · W_down ( silu(W_gate x[m]) · W_up x[m] ) for every m of ``members`` with its f of ``factors``.
    W_gate and W_up (width, n_in), W_down (n_in, width) at ``gate``, ``up``, ``down``, scratch hidden (≥ members, ≥ width)."""
    for o in range(width):
        w, v = weights[gate + o * n_in : gate + (o + 1) * n_in], weights[up + o * n_in : up + (o + 1) * n_in]
        for j in range(members.size):
            row, a, b = x[members[j]], weights.dtype.type(0), weights.dtype.type(0)
            for i in range(n_in):
                a += w[i] * row[i]
                b += v[i] * row[i]
            hidden[j, o] = a * sigmoid(a) * b * factors[j]  # the gate's weight here: fewer numbers than behind W_down
    add_projected(hidden, members, weights, down, n_in, width, y)
