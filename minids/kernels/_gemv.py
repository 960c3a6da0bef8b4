"""Products of a few vectors with matrices out of one flat array of weights: what a decoding step is made of.

What counts is how fast weights come in: a matrix is read once, from its first number to its last, against up to four vectors at
a time (``_dots``), and what was read is in the nearest cache for the others.
"""

from numba.extending import overload

from minids.kernels._dots import dots
from minids.kernels._exp import sigmoid
from minids.kernels._jit import FLOAT_RULES, kernel
from minids.kernels._pack import bytes_of

PAIR = 2
"""Rows of a matrix that are read together against several vectors. One is read alone: memory brings two half as fast."""
dots_1, dots_2, dots_4 = dots(1, 1), dots(PAIR, 2), dots(PAIR, 4)


def project(x, rows, weights, start, n_out, n_in, y):
    """y[r] = W x[r] for r < rows; x (R, ≥ n_in), y (R, ≥ n_out), W (n_out, n_in) at ``start`` of the flat weights."""
    y[:rows, :n_out] = x[:rows, :n_in] @ weights[start : start + n_out * n_in].reshape(n_out, n_in).T


@overload(project, jit_options={"fastmath": FLOAT_RULES})
def _project(x, rows, weights, start, n_out, n_in, y):
    def on_arrays(x, rows, weights, start, n_out, n_in, y):
        zero, size = weights.dtype.type(0), weights.itemsize
        multiply(
            zero,
            weights.ctypes.data + start * size,
            n_out,
            n_in,
            x.ctypes.data,
            x.strides[0],
            rows,
            y.ctypes.data,
            y.strides[0],
        )

    return on_arrays


@kernel
def multiply(zero, w, n_out, n_in, x, x_row, rows, y, y_row):
    """y (rows, n_out) = x Wᵀ by addresses and bytes; ``zero`` says which numbers."""
    size = bytes_of(zero)
    row, pairs = n_in * size, n_out // PAIR
    if rows == 1 and n_out:
        dots_1(zero, w, row, x, x_row, row, y, y_row, n_out)
        return
    alone = rows == 2 or rows == 4  # then all of W is one call's
    together = pairs if alone else 1
    for o in range(0, pairs * PAIR, PAIR * max(1, together)):
        at_w, at_y, r = w + o * row, y + o * size, 0
        while r + 4 <= rows:
            dots_4(zero, at_w, row, x + r * x_row, x_row, row, at_y + r * y_row, y_row, together)
            r += 4
        if r + 2 <= rows:
            dots_2(zero, at_w, row, x + r * x_row, x_row, row, at_y + r * y_row, y_row, together)
            r += 2
        if r < rows:
            dots_1(zero, at_w, row, x + r * x_row, x_row, row, at_y + r * y_row, y_row, PAIR)
    for o in range(pairs * PAIR, n_out):
        for r in range(rows):
            dots_1(zero, w + o * row, row, x + r * x_row, x_row, row, y + o * size + r * y_row, y_row, 1)


def gated(a, b, factor):
    """f · silu(a) · b."""
    return a * sigmoid(a) * b * factor


# In this order: where arrays lie close to each other LLVM takes numbers one by one, and the last digits must not depend on it.
@overload(gated, jit_options={"fastmath": {"contract"}})
def _gated(a, b, factor):
    return lambda a, b, factor: a * sigmoid(a) * b * factor


@kernel
def feed_forward(x, members, factors, weights, gate, up, down, width, n_in, scratch, y):
    """y[m] += f · W_down ( silu(W_gate x[m]) · W_up x[m] ) for every m of ``members`` with its f of ``factors``.
    W_gate and W_up (width, n_in), W_down (n_in, width) at ``gate``, ``up``, ``down``; scratch (4, ≥ members, ≥ width, n_in)."""
    count = members.size
    inputs, hidden, of_up, outputs = scratch[0, :count], scratch[1, :count], scratch[2, :count], scratch[3, :count]
    for j in range(count):
        inputs[j, :n_in] = x[members[j]]
    project(inputs, count, weights, gate, width, n_in, hidden)
    project(inputs, count, weights, up, width, n_in, of_up)
    for j in range(count):
        factor, a, b = factors[j], hidden[j], of_up[j]
        for o in range(width):
            a[o] = gated(a[o], b[o], factor)  # the gate's weight here: fewer numbers than behind W_down
    project(hidden, count, weights, down, n_in, width, outputs)
    for j in range(count):
        total, one = y[members[j]], outputs[j]
        for i in range(n_in):
            total[i] += one[i]
