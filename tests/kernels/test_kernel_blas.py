"""Products made inside a kernel are NumPy's, in every layout that the kernels use, by BLAS and without one."""

import ctypes

import numpy as np
import pytest
from agreement import DTYPES, TOLERANCE, examples, seeds
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from minids.kernels import _blas
from minids.kernels._jit import kernel
from minids.kernels._product import Products, product, products

sizes = st.integers(1, 20)


@kernel
def by_blas(a, b, out, add, blas):
    _blas.gemm(a, b, out, add, blas)


@kernel
def by_size(a, b, out, add, by):
    product(a, b, out, add, by)


def multiply(a, b, out, add, blas):
    """By BLAS where there is an address, else by ours."""
    if blas:
        by_blas(a, b, out, add, blas)
    else:
        by_size(a, b, out, add, products(a.dtype)._replace(blas=0))


@pytest.fixture(scope="module", params=DTYPES)
def blas(request):
    """The address of OpenBLAS's product; 0, and with it ours, where NumPy has another BLAS (Apple's)."""
    dtype = np.dtype(request.param)
    found = _blas.address(dtype)
    libraries = [library["internal_api"] for library in threadpool_info() if library["user_api"] == "blas"]
    assert bool(found) == ("openblas" in libraries), f"there is {libraries}, and the address found is {found}"
    return dtype, found


def laid_out(rng, rows, columns, dtype, layout):
    """Standard normal numbers (rows, columns): in C order, transposed, or columns of a wider array."""
    if layout == "transposed":
        return rng.standard_normal((columns, rows)).astype(dtype).T
    if layout == "columns of a wider array":
        return rng.standard_normal((rows, columns + 5)).astype(dtype)[:, 2:-3]
    return rng.standard_normal((rows, columns)).astype(dtype)


layouts = st.sampled_from(["C order", "transposed", "columns of a wider array"])


@examples
@given(seed=seeds, m=sizes, n=sizes, k=sizes, a_layout=layouts, b_layout=layouts, wide=st.booleans(), add=st.booleans())
def test_is_what_numpy_says(blas, seed, m, n, k, a_layout, b_layout, wide, add):
    dtype, address = blas
    rng = np.random.default_rng(seed)
    a, b = laid_out(rng, m, k, dtype, a_layout), laid_out(rng, k, n, dtype, b_layout)
    whole = rng.standard_normal((m, n + 4)).astype(dtype)
    out = whole[:, 1 : n + 1] if wide else np.ascontiguousarray(whole[:, :n])
    around, expected = whole.copy(), a @ b + (out if add else 0)
    multiply(a, b, out, add, address)
    np.testing.assert_allclose(out, expected, atol=TOLERANCE[dtype] * 30)
    if wide:
        np.testing.assert_array_equal(whole[:, [0, n + 1]], around[:, [0, n + 1]], err_msg="written beside the target")


@pytest.mark.parametrize("add", [False, True])
def test_uncompiled_it_is_the_same_function(add):
    rng = np.random.default_rng(0)
    a, b, out = (rng.standard_normal(shape) for shape in ((3, 4), (4, 5), (3, 5)))
    expected = a @ b + (out if add else 0)
    product(a, b, out, add, Products(0, 0))
    np.testing.assert_allclose(out, expected, rtol=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_was_in_the_target_does_not_matter_unless_added_to(blas, value):
    dtype, address = blas
    out = np.full((2, 2), value, dtype)
    multiply(np.eye(2, dtype=dtype), np.eye(2, dtype=dtype), out, False, address)
    np.testing.assert_array_equal(out, np.eye(2))


def test_a_library_without_the_function_or_that_cannot_be_opened_is_passed_over(monkeypatch):
    libraries = [
        {"user_api": "openmp", "internal_api": "openmp", "filepath": "a"},
        {"user_api": "blas", "internal_api": "mkl", "filepath": "b"},
        {"user_api": "blas", "internal_api": "openblas", "filepath": "c"},
        {"user_api": "blas", "internal_api": "openblas", "filepath": "d"},
    ]
    opened = []

    def open_library(path):
        opened.append(path)
        if path == "c":
            raise OSError
        return object()  # exports nothing

    monkeypatch.setattr(_blas.threadpoolctl, "threadpool_info", lambda: libraries)
    monkeypatch.setattr(ctypes, "CDLL", open_library)
    assert _blas.address.__wrapped__(np.dtype(np.float32)) == 0
    assert opened == ["c", "d"]


def test_small_products_are_ours_and_without_blas_all_are():
    """Where BLAS is said to be at an address with nothing, a product that went there would end the process."""
    rng, ours, dtype = np.random.default_rng(0), products(np.float32).ours, np.float32
    for n, by in ((64, Products(ours, 1)), (64, Products(ours, 0)), (63, Products(ours, 0))):  # there is nothing at address 1
        a, b = rng.standard_normal((24, 16)).astype(dtype), rng.standard_normal((16, n)).astype(dtype)
        out = np.empty((24, n), dtype)
        by_size(a, b, out, False, by)
        np.testing.assert_allclose(out, a @ b, rtol=1e-5, atol=1e-5)
