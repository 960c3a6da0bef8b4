"""The tensor core's sum, compiled: see ``minids/ops/fp8_accumulation.py`` for the arithmetic. Where scales are powers of two,
products of quantised numbers are exact in float32, and sums of 33 numbers of 14 bits always are, in any order: float32 is
enough where ``ops`` takes float64."""

import numpy as np

from minids.kernels._arrays import Array
from minids.kernels._bits import bits_of_float, exponent, power_of_two
from minids.kernels._jit import kernel
from minids.ops import fp8_accumulation as original
from minids.ops.fp8_accumulation import GROUP, Accumulator

_WIDTH = 128  # outputs at a time: their five scratch rows fit into the first-level cache
_LOWEST = np.int32(-100)  # exponent of what counts as 0: units and their inverses stay normal numbers


def matmul(a: Array, b: Array, accumulator: Accumulator | None = None) -> Array:
    """a (M, K), b (K, N) → a b (M, N), in the type of a."""
    if accumulator is None:
        return a @ b
    if a.dtype != np.float32:
        return original.matmul(a, b, accumulator)
    bits, interval = accumulator
    if a.shape[1] % 2:  # the kernel takes products in pairs: the last one's companion is 0
        a, b = np.pad(a, ((0, 0), (0, 1))), np.pad(b, ((0, 1), (0, 0)))
    out = np.empty((a.shape[0], b.shape[1]), np.float32)
    limited(np.ascontiguousarray(a), np.ascontiguousarray(b, np.float32), bits, interval or 1 << 40, GROUP, out)
    return out


@kernel
def limited(a, b, bits, interval, group, out):
    """a (M, K), b (K, N), K even → out (M, N)."""
    width, kept = min(_WIDTH, b.shape[1]), np.int32(bits - 1)
    total, running = np.empty(width, np.float32), np.empty(width, np.float32)
    unit, inverse = np.empty(width, np.float32), np.empty(width, np.float32)
    largest = np.empty(width, np.int32)
    for start in range(0, b.shape[1], width):
        count = min(width, b.shape[1] - start)
        for m in range(a.shape[0]):
            total[:] = np.float32(0)
            running[:] = np.float32(0)
            for k in range(0, a.shape[1], group):
                stop = min(k + group, a.shape[1])
                # The largest of the 32 products and the sum. As integers, magnitudes compare like numbers.
                for n in range(count):
                    largest[n] = bits_of_float(abs(running[n]))
                for i in range(k, stop, 2):
                    f0, f1, r0, r1 = a[m, i], a[m, i + 1], b[i, start : start + count], b[i + 1, start : start + count]
                    for n in range(count):
                        largest[n] = max(largest[n], max(bits_of_float(abs(f0 * r0[n])), bits_of_float(abs(f1 * r1[n]))))
                for n in range(count):
                    e = max((largest[n] >> np.int32(23)) - np.int32(127), _LOWEST)
                    unit[n], inverse[n] = power_of_two(e - kept), power_of_two(kept - e)
                    running[n] = np.trunc(running[n] * inverse[n])
                # Every product cut to the unit and added, exactly. Two at a time halve the loads of the sum.
                for i in range(k, stop, 2):
                    f0, f1, r0, r1 = a[m, i], a[m, i + 1], b[i, start : start + count], b[i + 1, start : start + count]
                    for n in range(count):
                        running[n] += np.trunc(f0 * r0[n] * inverse[n]) + np.trunc(f1 * r1[n] * inverse[n])
                # 33 numbers of 14 bits may add up to more than 14: cut again.
                for n in range(count):
                    e = max(exponent(abs(running[n])) - kept, np.int32(0))
                    running[n] = np.trunc(running[n] * power_of_two(-e)) * power_of_two(e) * unit[n]
                if stop % interval == 0:  # promotion: to an FP32 register, and begin again at 0
                    for n in range(count):
                        total[n] += running[n]
                        running[n] = np.float32(0)
            for n in range(count):
                out[m, start + n] = total[n] + running[n]
