"""Numbers through which two threads tell each other how far they are: elements of an int64 array, read and written atomically.

``tell`` releases and ``told`` acquires: who has been told a number also sees everything that was written before it was told.
``swap`` is ordered with everything: of two threads that each swap one number and then look at the other's, at least one sees
the other's new number.

A number that is often written has a cache line and its neighbour to itself, hence the distance ``APART``: else the two cores
would take the line from each other for nothing.
"""

from __future__ import annotations

import platform
import sys

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

APART = 16  # elements, 128 bytes


def told(board, place):
    """board[place]."""
    return board[place]


def tell(board, place, number):
    """board[place] = number."""
    board[place] = number


def swap(board, place, number):
    """board[place] = number; what it was."""
    before = board[place]
    board[place] = number
    return before


def rest():
    """Let a core that only waits do so at leisure."""


def give_way():
    """Offer the core to another thread: to one that is waited for and has none, perhaps."""


def _address(context, builder, signature, args):
    array = context.make_array(signature.args[0])(context, builder, args[0])
    return cgutils.gep_inbounds(builder, array.data, args[1])


@intrinsic
def _load(typing_context, board, place):
    def generate(context, builder, signature, args):
        return builder.load_atomic(_address(context, builder, signature, args), "acquire", 8, typ=ir.IntType(64))

    return types.int64(board, types.intp), generate


@intrinsic
def _store(typing_context, board, place, number):
    def generate(context, builder, signature, args):
        builder.store_atomic(args[2], _address(context, builder, signature, args), "release", 8)
        return context.get_dummy_value()

    return types.void(board, types.intp, types.int64), generate


@intrinsic
def _exchange(typing_context, board, place, number):
    def generate(context, builder, signature, args):
        return builder.atomic_rmw("xchg", _address(context, builder, signature, args), args[2], "seq_cst")

    return types.int64(board, types.intp, types.int64), generate


_X86, _ARM = platform.machine() in ("x86_64", "AMD64", "i686"), platform.machine() in ("aarch64", "arm64")


@intrinsic
def _rest(typing_context):
    def generate(context, builder, signature, args):
        void, number = ir.VoidType(), ir.IntType(32)
        if _X86:
            pause = cgutils.get_or_insert_function(builder.module, ir.FunctionType(void, []), "llvm.x86.sse2.pause")
            builder.call(pause, [])
        elif _ARM:
            hint = cgutils.get_or_insert_function(builder.module, ir.FunctionType(void, [number]), "llvm.aarch64.hint")
            builder.call(hint, [number(1)])  # 1: yield
        return context.get_dummy_value()

    return types.void(), generate


@overload(told)
def _told(board, place):
    return lambda board, place: _load(board, place)


@overload(tell)
def _tell(board, place, number):
    return lambda board, place, number: _store(board, place, number)


@overload(swap)
def _swap(board, place, number):
    return lambda board, place, number: _exchange(board, place, number)


@overload(rest)
def _resting():
    return lambda: _rest()


_sched_yield = types.ExternalFunction("sched_yield", types.int32())  # of the C library; Windows has none


@overload(give_way)
def _giving_way():
    if sys.platform == "win32":
        return lambda: _rest()

    def give_way():
        _sched_yield()

    return give_way
