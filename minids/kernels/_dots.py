"""A few vectors times a few rows of a matrix, sums in registers: the innermost loop of ``_gemv``, in LLVM's own language.

    y[r, o] = Σ_i w[o, i] x[r, i]         for ``outs`` rows of w and ``rows`` vectors x

Every sum has a register of its own, whose lanes add up every 16th product (AVX-512, float32) in the order of i; then the lanes
are added in halves, and what is left of i one by one. A sum is formed by the same additions whatever is computed beside it: a
token gets the same bits alone and in company. Each number that is read of w serves all vectors, so that memory is what limits a
few of them, and not the core; and memory is asked in advance, because it is read faster than a core by itself would ask.
"""

from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minids.kernels._tile import FUSED, WIDTH, ask, call_of

AHEAD = 8
"""Rows of w."""


def dots(outs: int, rows: int) -> Callable:
    """An intrinsic for kernels: ``(zero, w, w_row, x, x_row, size, y, y_row, times)``.

    ``zero`` is of the numbers' type; all others are integers. w, x, y are addresses, from a row to the next it is w_row, x_row,
    y_row bytes, and the numbers of a row are adjacent: ``size`` bytes of them in w and x. ``times``, at least once: for the
    next ``outs`` rows of w and numbers of y.
    """
    cells = [(o, r) for o in range(outs) for r in range(rows)]

    def body(function, size):
        lanes, integer = WIDTH // size, ir.IntType(64)
        number = ir.FloatType() if size == 4 else ir.DoubleType()
        vector = ir.VectorType(number, lanes)
        builder = ir.IRBuilder(function.append_basic_block())
        w, w_row, x, x_row, length, y, y_row, times = function.args

        def multiply_add(a, b, c):
            if not FUSED:
                return builder.fadd(builder.fmul(a, b), c)
            name = f"llvm.fma.v{lanes}f{8 * size}" if a.type == vector else f"llvm.fma.f{8 * size}"
            kind = ir.FunctionType(a.type, [a.type] * 3)
            return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [a, b, c])

        def read(address, kind):
            found = builder.load(builder.inttoptr(address, kind.as_pointer()))
            found.align = size  # no more than an array promises
            return found

        def rows_from(base, step, count):
            return [builder.add(base, builder.mul(step, integer(i))) for i in range(count)]

        def run(kind, start, stop, step, sums):
            """Adds the products from byte ``start`` to ``stop``, ``kind`` by ``kind``, to the sums."""
            before, loop, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
            builder.cbranch(builder.icmp_signed("<", start, stop), loop, after)
            builder.position_at_end(loop)
            i, grown = builder.phi(integer), {cell: builder.phi(kind) for cell in cells}
            i.add_incoming(start, before)
            xs = [read(builder.add(base, i), kind) for base in of_x]
            larger = {}
            for o in range(outs):
                at = builder.add(of_w[o], i)
                if kind == vector:  # what comes from far is asked for in advance, into the second-level cache
                    ask(builder, builder.add(at, ahead), near=2)
                one = read(at, kind)
                for r in range(rows):
                    larger[o, r] = multiply_add(one, xs[r], grown[o, r])
            following = builder.add(i, integer(step))
            i.add_incoming(following, loop)
            for cell in cells:
                grown[cell].add_incoming(sums[cell], before)
                grown[cell].add_incoming(larger[cell], loop)
            builder.cbranch(builder.icmp_signed("<", following, stop), loop, after)
            builder.position_at_end(after)
            found = {cell: builder.phi(kind) for cell in cells}
            for cell in cells:
                found[cell].add_incoming(sums[cell], before)
                found[cell].add_incoming(larger[cell], loop)
            return found

        def sum_of_lanes(found):
            count = lanes
            while count > 1:
                count //= 2
                halves = [
                    builder.shuffle_vector(
                        found, found, ir.Constant(ir.VectorType(ir.IntType(32), count), list(range(first, first + count)))
                    )
                    for first in (0, count)
                ]
                found = builder.fadd(*halves)
            return builder.extract_element(found, ir.IntType(32)(0))

        ahead = builder.mul(w_row, integer(AHEAD))
        of_x, before, again = rows_from(x, x_row, rows), builder.block, builder.append_basic_block()
        builder.branch(again)
        builder.position_at_end(again)
        at_w, at_y, done = (builder.phi(integer) for _ in range(3))
        of_w = rows_from(at_w, w_row, outs)
        whole = builder.and_(length, integer(-WIDTH))
        vectors = run(vector, integer(0), whole, WIDTH, dict.fromkeys(cells, ir.Constant(vector, [0.0] * lanes)))
        totals = run(number, whole, length, size, {cell: sum_of_lanes(vectors[cell]) for cell in cells})
        for r, at in enumerate(rows_from(at_y, y_row, rows)):
            for o in range(outs):
                place = builder.inttoptr(builder.add(at, integer(o * size)), number.as_pointer())
                builder.store(totals[o, r], place)
        steps = (at_w, w, builder.mul(w_row, integer(outs))), (at_y, y, integer(outs * size)), (done, integer(0), integer(1))
        for value, start, step in steps:
            value.add_incoming(start, before)
            following = builder.add(value, step)
            value.add_incoming(following, builder.block)
        after = builder.append_basic_block()
        builder.cbranch(builder.icmp_signed("<", following, times), again, after)
        builder.position_at_end(after)
        builder.ret_void()

    @intrinsic
    def in_registers(context, zero, w, w_row, x, x_row, size, y, y_row, times):
        return types.void(zero, *[types.int64] * 8), call_of(f"minids_dots_{outs}_{rows}", body)

    return in_registers
