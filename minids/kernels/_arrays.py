"""What every kernel asks of its arrays: one floating-point type, C order, and sizes that agree.

A kernel looks no index up: what it is given decides where it reads. So the functions before the kernels compare shapes.
"""

import numpy as np

Array = np.ndarray

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def common_float(*arrays: Array) -> np.dtype:
    """The type that all ``arrays`` are brought to. Kernels exist in float32 and float64."""
    dtype = arrays[0].dtype
    if any(array.dtype != dtype for array in arrays):
        dtype = np.result_type(*arrays)
    if dtype not in _FLOATS:
        raise TypeError(f"kernels compute in float32 or float64, got {dtype}")
    return dtype


def expect(name: str, array: Array, shape: tuple[int, ...]) -> None:
    """ValueError unless ``array`` has that shape."""
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")


def rows_of(x: Array, dtype: np.dtype) -> Array:
    """x (..., d) → (N, d) in C order; a view where that is possible."""
    return np.ascontiguousarray(x, dtype).reshape(-1, x.shape[-1])
