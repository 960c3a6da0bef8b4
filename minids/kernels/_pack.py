"""Packing: pieces of the operands of a product, copied to where a tile reads them one after the other.

A transposed operand is turned in squares of 16 bytes, 4 × 4 numbers or 2 × 2: four reads, eight shuffles, four writes for 16
numbers, where one by one they take sixteen reads and sixteen writes.
"""

from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from minids.kernels._jit import part
from minids.kernels._tile import TALLEST, WIDTH, ask

SQUARE = 16  # bytes: the vector that every processor has
PANEL = 2 * WIDTH  # bytes of a row of a panel


@intrinsic
def bytes_of(context, zero):
    """Of a number of ``zero``'s type."""
    size = zero.bitwidth // 8

    def build(context, builder, signature, arguments):
        return ir.IntType(64)(size)

    return types.int64(zero), build


@intrinsic
def read(context, zero, address):
    """The number of ``zero``'s type at ``address``."""

    def build(context, builder, signature, arguments):
        return builder.load(builder.inttoptr(arguments[1], context.get_value_type(signature.args[0]).as_pointer()))

    return zero(zero, types.int64), build


@intrinsic
def write(context, value, address):
    """``value`` to ``address``."""

    def build(context, builder, signature, arguments):
        builder.store(arguments[0], builder.inttoptr(arguments[1], context.get_value_type(signature.args[0]).as_pointer()))
        return context.get_dummy_value()

    return types.void(value, types.int64), build


@intrinsic
def fetch(context, address):
    """``ask`` for the line of memory at ``address``."""

    def build(context, builder, signature, arguments):
        ask(builder, arguments[0])
        return context.get_dummy_value()

    return types.void(types.int64), build


def copier(numbers: Callable[[int], int]) -> Callable:
    """An intrinsic ``(zero, source, to)``: copies ``numbers(bytes of one)`` adjacent numbers."""

    @intrinsic
    def copied(context, zero, source, to):
        size = zero.bitwidth // 8

        def build(context, builder, signature, arguments):
            vector = ir.VectorType(context.get_value_type(signature.args[0]), numbers(size))
            found = builder.load(builder.inttoptr(arguments[1], vector.as_pointer()))
            found.align = size  # no more than an array promises
            builder.store(found, builder.inttoptr(arguments[2], vector.as_pointer())).align = size
            return context.get_dummy_value()

        return types.void(zero, types.int64, types.int64), build

    return copied


copy_register = copier(lambda size: WIDTH // size)
copy_tall = copier(lambda size: TALLEST)


@intrinsic
def turn_square(context, zero, source, row, to, to_row):
    """The square of numbers at ``source``, ``row`` bytes from one row to the next, to ``to``: rows become columns."""
    size = zero.bitwidth // 8
    side = SQUARE // size

    def build(context, builder, signature, arguments):
        _, source, row, to, to_row = arguments
        vector = ir.VectorType(context.get_value_type(signature.args[0]), side)

        def place(address, step, i):
            return builder.inttoptr(builder.add(address, builder.mul(step, ir.IntType(64)(i))), vector.as_pointer())

        def halves(x, y):
            """The numbers of x and y by turns: the first halves of both, then the second."""
            for first in (0, side // 2):
                order = [place for i in range(first, first + side // 2) for place in (i, side + i)]
                yield builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(ir.IntType(32), side), order))

        rows = [builder.load(place(source, row, i)) for i in range(side)]
        for found in rows:
            found.align = size
        for _ in range(
            side.bit_length() - 1
        ):  # by turns with the row half a square further on, once for 2 × 2, twice for 4 × 4
            rows = [each for x, y in zip(rows[: side // 2], rows[side // 2 :], strict=True) for each in halves(x, y)]
        for i, found in enumerate(rows):
            builder.store(found, place(to, to_row, i)).align = size
        return context.get_dummy_value()

    return types.void(zero, *[types.int64] * 4), build


@part
def pack_panel(zero, b, b_step, b_column, depth, columns, width, to):
    """A panel of b, ``width`` bytes a row and row by row, with zeros behind its columns."""
    size = bytes_of(zero)
    done = 0  # columns
    if b_column == size and columns * size == width:
        for p in range(depth):
            for x in range(0, width, WIDTH):
                copy_register(zero, b + p * b_step + x, to + p * width + x)
        done = columns
    elif b_step == size:
        side = SQUARE // size
        done = columns - columns % side
        turn(zero, b, b_column, done, depth, to, width)
    for p in range(depth):
        for x in range(done, columns):
            write(read(zero, b + p * b_step + x * b_column), to + p * width + x * size)
        for x in range(columns, width // size):
            write(zero, to + p * width + x * size)


@part
def pack_rows(zero, a, a_row, a_step, rows, depth, to):
    """Rows of a, tile by tile: for every p the numbers of a tile's rows side by side. The last tile may have fewer."""
    size = bytes_of(zero)
    tall, side = TALLEST * size, SQUARE // size
    whole = rows - rows % TALLEST
    if a_row == size:
        for p in range(depth):  # along a, so that it comes as it lies
            for i in range(0, whole, TALLEST):
                copy_tall(zero, a + p * a_step + i * size, to + i * depth * size + p * tall)
    else:
        squares = TALLEST - TALLEST % side if a_step == size else 0
        for i in range(0, whole, TALLEST):
            source, target = a + i * a_row, to + i * depth * size
            turn(zero, source, a_row, squares, depth, target, tall)
            for p in range(depth):
                for r in range(squares, TALLEST):
                    write(read(zero, source + r * a_row + p * a_step), target + r * size + p * tall)
    for i in range(whole, rows):
        source, target = a + i * a_row, to + whole * depth * size + (i - whole) * size
        for p in range(depth):
            write(read(zero, source + p * a_step), target + p * tall)


@part
def turn(zero, source, row, rows, columns, to, to_row):
    """``rows`` × ``columns`` numbers, rows as many as squares have, to columns × rows."""
    size = bytes_of(zero)
    side = SQUARE // size
    whole = columns - columns % side
    for r in range(0, rows, side):
        for x in range(0, whole, side):
            turn_square(zero, source + r * row + x * size, row, to + x * to_row + r * size, to_row)
    for x in range(whole, columns):
        for r in range(rows):
            write(read(zero, source + r * row + x * size), to + x * to_row + r * size)
