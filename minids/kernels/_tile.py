"""A tile of a matrix product that stays in registers: the innermost loop of ``_product``, written in LLVM's own language.

A core multiplies and adds one or two whole vector registers in every cycle, if the numbers are there. Memory cannot bring
them so fast: from the first-level cache come two registers a cycle at best, and a sum that waits for its own last addition
waits four cycles. So a piece of the result, ``rows`` × ``vectors`` registers, is kept in registers while k runs:

    c[r, :] += a[r, p] · b[p, :]        for all r < rows, for p = 0, 1, … k − 1

For one p that reads ``vectors`` registers of b and ``rows`` single numbers of a, each spread over a whole register, and feeds
rows · vectors multiply-adds. With 12 × 2 of AVX-512's 32 registers that is 24 operations for 14 reads, and 24 sums that do not
wait for each other; two more registers hold b, one the number of a, five are left. AVX2 has 16 registers: 6 × 2. Wider and
flatter tiles read more of a per operation, narrower and taller ones more of b.

Numba's loops cannot say "these 24 numbers stay in registers", and LLVM does not find it out, hence the intrinsic. Every element
is one chain of additions in the order of p, so that it has the same bits in every tile, whatever is computed beside it.
"""

import platform
from collections.abc import Callable

import llvmlite.binding as llvm
import numba.core.config
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LINE = 64  # bytes of a line of the caches
_NEAR = 3  # rows whose addresses are formed from one: base, base + row, base + 2 · row


def features() -> frozenset[str]:
    """What the processor that is compiled for can do, in LLVM's words: the user's choice for Numba, or the host's."""
    chosen = numba.core.config.CPU_FEATURES  # type: ignore[attr-defined]
    if numba.core.config.CPU_NAME is not None and chosen is None:  # type: ignore[attr-defined]
        return frozenset()  # a named processor: what it has is LLVM's secret
    flags = llvm.get_host_cpu_features().flatten() if chosen is None else chosen
    return frozenset(flag[1:] for flag in flags.split(",") if flag.startswith("+"))


def shape(machine: str, can: frozenset[str]) -> tuple[int, int, bool]:
    """(bytes of a vector register, rows of the tallest tile, whether it multiplies and adds at once) of such a processor."""
    if "avx512f" in can:
        return 64, 12, True
    if "fma" in can and "avx2" in can:
        return 32, 6, True
    if machine.startswith(("aarch64", "arm64")):
        return 16, 12, True
    return 16, 6, False


WIDTH, TALLEST, FUSED = shape(platform.machine().lower(), features())


def ask(builder: ir.IRBuilder, address, written: int = 0, near: int = 3) -> None:
    """Ask for the line of memory at ``address``, to be read or written, into the nearest cache (3) or the second (2): nobody
    waits for it, and it may be anywhere."""
    anywhere, word = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [anywhere, word, word, word])
    prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(prefetch, [builder.inttoptr(address, anywhere), word(written), word(near), word(1)])


def call_of(name: str, body: Callable) -> Callable:
    """What an intrinsic of a number and integers builds: a call with the integers of a function that is in the module once.
    ``body(function, bytes of the number)`` writes it. Its loops and those around the call are not to be mixed."""

    def build(context, builder, signature, arguments):
        size = 4 if signature.args[0] == types.float32 else 8
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * (len(arguments) - 1))
        function = cgutils.get_or_insert_function(builder.module, kind, f"{name}_{size}")
        if function.is_declaration:
            function.linkage = "linkonce_odr"
            function.attributes.add("noinline")
            function.attributes.add("nounwind")
            body(function, size)
        builder.call(function, arguments[1:])
        return context.get_dummy_value()

    return build


def tile(rows: int, vectors: int) -> Callable:
    """An intrinsic for kernels: ``(zero, a, a_row, a_step, b, b_step, k, c, c_row, add, soon, later)``.

    ``zero`` is of the numbers' type, float32 or float64; all others are integers. a, b, c are addresses; from a row of a to
    the next it is a_row bytes, from one p to the next a_step in a and b_step in b, from a row of c to the next c_row. Columns
    of b and c are adjacent, as many as ``vectors`` registers hold. ``add``: onto c, else in its place. Nothing outside the
    tile is touched. ``soon`` is where in b the next panel begins: its rows are asked for meanwhile, as a's for the next tile.
    From ``later`` on every second turn asks for a line: what the next product reads is brought into the second cache.
    """
    cells = [(r, v) for r in range(rows) for v in range(vectors)]

    def body(function, size):
        lanes = WIDTH // size
        number = ir.FloatType() if size == 4 else ir.DoubleType()
        vector, integer = ir.VectorType(number, lanes), ir.IntType(64)
        nowhere, first = ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
        builder = ir.IRBuilder(function.append_basic_block())
        a, a_row, a_step, b, b_step, k, c, c_row, add, soon, later = function.args
        fma = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{lanes}f{8 * size}"
        )

        def read(address, kind):
            found = builder.load(builder.inttoptr(address, kind.as_pointer()))
            found.align = size  # no more than an array promises
            return found

        def multiply_add(x, y, z):
            return builder.call(fma, [x, y, z]) if FUSED else builder.fadd(builder.fmul(x, y), z)

        at = c
        for _ in range(rows):
            for v in range(0, vectors * WIDTH, LINE):
                ask(builder, builder.add(at, integer(v)), written=1)
            at = builder.add(at, c_row)

        before, loop, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
        zero = ir.Constant(vector, [0.0] * lanes)
        twice = builder.add(a_row, a_row)
        bases = [a]
        for _ in range(_NEAR, rows, _NEAR):
            bases.append(builder.add(bases[-1], builder.add(twice, a_row)))
        builder.cbranch(builder.icmp_signed(">", k, integer(0)), loop, after)

        builder.position_at_end(loop)

        def carried(kind, start):
            """A value that each turn of the loop hands to the next."""
            value = builder.phi(kind)
            value.add_incoming(start, before)
            return value

        p, at_b = carried(integer, integer(0)), carried(integer, b)
        at_a = [carried(integer, base) for base in bases]
        sums = {cell: carried(vector, zero) for cell in cells}
        of_b = [read(builder.add(at_b, integer(v * WIDTH)), vector) for v in range(vectors)]
        larger = {}
        if rows == TALLEST and WIDTH == 64:
            # A line of the next tile's a, of another row in every turn, and one of the next panel.
            turn = builder.mul(builder.and_(p, integer(LINE // size - 1)), a_row)
            ask(builder, builder.add(builder.add(at_a[0], builder.mul(a_row, integer(rows))), turn))
            ask(builder, builder.add(soon, builder.mul(p, b_step)))
        if rows == TALLEST:
            ask(builder, builder.add(later, builder.mul(builder.lshr(p, integer(1)), integer(LINE))), near=2)
        for r in range(rows):
            base, near = at_a[r // _NEAR], r % _NEAR
            one = read(base if near == 0 else builder.add(base, (a_row, twice)[near - 1]), number)
            spread = builder.shuffle_vector(builder.insert_element(nowhere, one, ir.IntType(32)(0)), nowhere, first)
            for v in range(vectors):
                larger[r, v] = multiply_add(spread, of_b[v], sums[r, v])
        turns = builder.add(p, integer(1))
        p.add_incoming(turns, loop)
        at_b.add_incoming(builder.add(at_b, b_step), loop)
        for value in at_a:
            value.add_incoming(builder.add(value, a_step), loop)
        for cell in cells:
            sums[cell].add_incoming(larger[cell], loop)
        builder.cbranch(builder.icmp_signed("<", turns, k), loop, after)

        builder.position_at_end(after)
        totals = {}
        for cell in cells:
            totals[cell] = carried(vector, zero)
            totals[cell].add_incoming(larger[cell], loop)
        with builder.if_else(builder.icmp_signed("!=", add, integer(0))) as branches:
            for branch, onto in zip(branches, (True, False), strict=True):
                with branch:
                    at = c
                    for r in range(rows):
                        for v in range(vectors):
                            address = builder.add(at, integer(v * WIDTH))
                            total = builder.fadd(read(address, vector), totals[r, v]) if onto else totals[r, v]
                            builder.store(total, builder.inttoptr(address, vector.as_pointer())).align = size
                        at = builder.add(at, c_row)
        builder.ret_void()

    @intrinsic
    def on_registers(context, zero, a, a_row, a_step, b, b_step, k, c, c_row, add, soon, later):
        return types.void(zero, *[types.int64] * 11), call_of(f"minids_tile_{rows}_{vectors}", body)

    return on_registers
