"""The number types of checkpoints, as NumPy sees their bytes, and how they become float32.

NumPy has no BF16 and no FP8, so those are stored as unsigned integers of the same width and decoded with ``ops/bfloat16`` and
``ops/float8``; "F8_E4M3" is the variant without infinities.

A DeepSeek FP8 matrix W (M, N) comes with one float32 scale per 128 × 128 block, S (⌈M/128⌉, ⌈N/128⌉), ragged at the edges
(DeepSeek-V3 repository, README_WEIGHTS.md). The stored scale multiplies, although it is called ``weight_scale_inv``:

    W_real[i, j] = W[i, j] · S[i // 128, j // 128]

Later releases round scales up to powers of two and keep the exponent alone, in 8 bits: "F8_E8M0", 2^(code − 127), 255 for NaN.
"""

import numpy as np

from minids.ops import bfloat16, float8

Array = np.ndarray

STORED: dict[str, np.dtype] = {  # name in a safetensors header → the NumPy type its bytes are read as
    **{"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")},
    **{"F8_E4M3": np.dtype("u1"), "F8_E5M2": np.dtype("u1"), "U8": np.dtype("u1"), "BOOL": np.dtype("u1")},
    **{"F8_E8M0": np.dtype("u1"), "U64": np.dtype("<u8"), "U32": np.dtype("<u4"), "U16": np.dtype("<u2")},
    **{"I64": np.dtype("<i8"), "I32": np.dtype("<i4"), "I16": np.dtype("<i2"), "I8": np.dtype("i1")},
}
FP8 = {"F8_E4M3": float8.E4M3, "F8_E5M2": float8.E5M2}
POWERS_OF_TWO = np.append(np.ldexp(1.0, np.arange(255) - 127), np.nan)  # (256,) what a code of F8_E8M0 stands for
FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E8M0", *FP8})  # what stands for real numbers


def decode(stored: Array, dtype: str, out: Array) -> None:
    """Write the real numbers that ``stored`` (bytes of type ``dtype``) stands for into ``out``, float32 or float64, same shape.
    Nothing is allocated for float32 except the index array of an FP8 look-up (8 bytes per element), so callers go in pieces."""
    if dtype == "BF16":
        if out.dtype == np.float32:
            np.left_shift(stored, 16, out=out.view(np.uint32), dtype=np.uint32)
        else:
            with np.errstate(invalid="ignore"):  # a signalling NaN is still a NaN
                np.copyto(out, bfloat16.decode(stored))
    elif dtype in FP8 or dtype == "F8_E8M0":
        table = (FP8[dtype].values if dtype in FP8 else POWERS_OF_TWO).astype(out.dtype, copy=False)
        np.take(table, stored, out=out, mode="clip")  # "raise" would fill a second buffer first; no code is out of range
    else:
        with np.errstate(over="ignore", invalid="ignore"):  # beyond float32 is an infinity, as in every other reader
            np.copyto(out, stored, casting="same_kind")


def dequantise(values: Array, scales: Array, block: tuple[int, int], rows: Array | None = None) -> None:
    """Multiply ``values`` (M, N), in place, by the scale of each element's block, one row of blocks at a time. ``scales``
    (⌈M_all/block rows⌉, ⌈N/block columns⌉); ``rows`` (M,) says which rows of the whole matrix these are, if not all."""
    rows = np.arange(len(values)) if rows is None else rows
    for start in range(0, len(rows), block[0]):
        piece = slice(start, start + block[0])
        values[piece] *= np.repeat(scales[rows[piece] // block[0]], block[1], axis=1)[:, : values.shape[1]]
