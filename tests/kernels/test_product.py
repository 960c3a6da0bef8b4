"""Products inside kernels: every size of edge, every order of the operands, both precisions; and no byte outside is touched."""

import itertools
import threading

import numpy as np
import pytest

from minids.kernels._jit import kernel
from minids.kernels._product import DEPTH, Products, before, product, products
from minids.kernels._tile import TALLEST, WIDTH, shape

DTYPES = (np.float32, np.float64)


@kernel
def multiplied(a, b, out, add, by):
    product(a, b, out, add, by)


def ours(dtype) -> Products:
    return products(np.dtype(dtype))._replace(blas=0)


def drawn(rng, shape, dtype, order):
    """A matrix whose rows ("C") or columns ("F") are adjacent, every second of both ("S"), or backwards in memory ("B")."""
    m, n = shape
    if order == "S":
        return rng.standard_normal((2 * m, 2 * n)).astype(dtype)[::2, ::2]
    if order == "B":
        return rng.standard_normal((m, n)).astype(dtype)[::-1, ::-1]
    return np.asarray(rng.standard_normal((m, n)).astype(dtype), order=order)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("orders", ["CC", "CF", "FC", "FF", "SC", "CS", "SS", "BB"])
def test_products_of_every_order_of_operands(orders, dtype):
    rng = np.random.default_rng(0)
    for m, k, n in ((1, 1, 1), (5, 7, 3), (64, 48, 33), (25, 3, 66), (12, 64, 32), (13, DEPTH + 5, 17)):
        a, b = drawn(rng, (m, k), dtype, orders[0]), drawn(rng, (k, n), dtype, orders[1])
        for add in (False, True):
            out = rng.standard_normal((m, n)).astype(dtype)
            right = a.astype(np.float64) @ b.astype(np.float64) + (out if add else 0)
            multiplied(a, b, out, add, ours(dtype))
            bound = 4 * np.sqrt(k) * np.finfo(dtype).eps * (1 + np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64))
            assert (np.abs(out - right) <= bound).all(), f"({m}, {k}) times ({k}, {n}), add={add}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_number_of_rows_and_columns_about_a_tile(dtype):
    """Whole numbers, so that every sum is exact."""
    rng = np.random.default_rng(1)
    lanes = WIDTH // np.dtype(dtype).itemsize
    for m, n in itertools.product(range(2 * TALLEST + 2), (0, 1, lanes - 1, lanes, lanes + 1, 2 * lanes, 3 * lanes + 1)):
        a, b = rng.integers(-9, 9, (m, 5)).astype(dtype), rng.integers(-9, 9, (5, n)).astype(dtype)
        out = np.empty((m, n), dtype)
        multiplied(a, b, out, False, ours(dtype))
        assert np.array_equal(out, a @ b), f"{m} rows, {n} columns"


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_element_has_the_same_bits_wherever_it_is_computed(dtype):
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((41, 300)).astype(dtype), rng.standard_normal((300, 71)).astype(dtype)
    whole = np.empty((41, 71), dtype)
    multiplied(a, b, whole, False, ours(dtype))
    for rows, columns in ((slice(3, 4), slice(5, 6)), (slice(0, 7), slice(31, 64)), (slice(20, 41), slice(70, 71))):
        for turned in (False, True):
            right = np.asarray(b[:, columns], order="F" if turned else "C")
            part = np.empty((rows.stop - rows.start, columns.stop - columns.start), dtype)
            multiplied(a[rows], right, part, False, ours(dtype))
            assert np.array_equal(part, whole[rows, columns])


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_outside_the_result_is_written_and_nothing_outside_the_operands_counts(dtype):
    rng = np.random.default_rng(3)
    for m, k, n in ((1, 2, 3), (7, 9, 31), (13, 17, 33), (24, 8, 15)):
        around = [np.full((rows + 2, columns + 2), np.nan, dtype) for rows, columns in ((m, k), (k, n), (m, n))]
        a, b, out = (whole[1:-1, 1:-1] for whole in around)
        a[:], b[:] = rng.integers(-9, 9, (m, k)), rng.integers(-9, 9, (k, n))
        multiplied(a, b, out, False, ours(dtype))
        assert np.array_equal(out, a @ b)
        around[2][1:-1, 1:-1] = np.nan
        assert np.isnan(around[2]).all(), "something beside the result was written"


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_infinity_are_what_they_are_in_numpy(dtype):
    a, b = np.ones((14, 6), dtype), np.ones((6, 40), dtype)
    a[3, 2], a[5, 1], b[4, 39] = np.nan, np.inf, -np.inf
    a[8, 4] = 0  # 0 · −inf
    out = np.empty((14, 40), dtype)
    multiplied(a, b, out, False, ours(dtype))
    with np.errstate(invalid="ignore"):
        assert np.array_equal(out, a @ b, equal_nan=True)


@kernel
def multiplied_before(a, b, out, by, then):
    product(a, b, out, False, before(then, by))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [0, 1, 5000])
def test_what_comes_next_is_asked_for_and_changes_nothing(size, dtype):
    """Also where it is shorter than what one tile asks for; and a transposed b, whose next panel is asked for meanwhile."""
    rng = np.random.default_rng(5)
    for m, k, n in ((25, 300, 130), (2, 9, 33), (200, 64, 70)):
        a, b, then = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((n, k)).astype(dtype), np.ones(size, dtype)
        alone, out = np.empty((m, n), dtype), np.empty((m, n), dtype)
        multiplied(a, b.T, alone, False, ours(dtype))
        multiplied_before(a, b.T, out, ours(dtype), then)
        assert np.array_equal(out, alone) and (then == 1).all()


def test_a_product_over_nothing_is_zero_or_what_was_there():
    out = np.full((3, 40), 7, np.float32)
    multiplied(np.empty((3, 0), np.float32), np.empty((0, 40), np.float32), out, True, ours(np.float32))
    assert (out == 7).all()
    multiplied(np.empty((3, 0), np.float32), np.empty((0, 40), np.float32), out, False, ours(np.float32))
    assert (out == 0).all()


def test_tiles_fit_into_the_registers_of_their_processor():
    registers = {64: 32, 32: 16, 16: 32}
    for machine, can in (("x86_64", {"avx512f", "avx2", "fma"}), ("x86_64", {"avx2", "fma"}), ("aarch64", {"neon"})):
        width, rows, fused = shape(machine, frozenset(can))
        assert fused and 2 * rows + 3 <= registers[width]
    assert shape("x86_64", frozenset({"sse2"})) == (16, 6, False)


def test_products_of_several_threads_do_not_share_their_scratch():
    """A panel that is packed is a thread's own until the product is done."""
    by, stop = ours(np.float32), threading.Barrier(4)
    wrong = []

    def work(seed):
        rng = np.random.default_rng(seed)
        a, b = rng.integers(-9, 9, (48, 128)).astype(np.float32), rng.integers(-9, 9, (48, 128)).astype(np.float32)
        right, out = a @ b.T, np.empty((48, 48), np.float32)
        stop.wait()
        for _ in range(4000):
            multiplied(a, b.T, out, False, by)
            if not np.array_equal(out, right):
                wrong.append(seed)
                return

    multiplied(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32).T, np.empty((2, 2), np.float32), False, by)
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, f"{len(wrong)} of 4 threads had a wrong product"
