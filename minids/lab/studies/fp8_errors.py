"""What quantisation and a short accumulator do to numbers, without training anything.

outliers       error of a quantised matrix by granularity, when a few channels are many times larger than the rest
accumulation   error of a product against the number K of terms, with and without promotion
"""

import numpy as np

from minids.backend import op
from minids.ops.fp8_accumulation import NEVER_PROMOTED, PROMOTED

GRANULARITIES = {"1 × 128": (1, 128), "128 × 128": (128, 128), "per tensor": None}
ACCUMULATORS = {"float32": None, "14 bits, promoted every 128": PROMOTED, "14 bits, never promoted": NEVER_PROMOTED}


def outliers(magnitudes=(1, 10, 100, 1e3, 1e4, 1e5, 1e6), seed: int = 0, shape=(512, 1024), count: int = 3) -> list[dict]:
    """Rows {magnitude, granularity, error, lost}: normal activations, of which ``count`` are ``magnitude`` instead.

    error: √(Σ (x̂ − x)² / Σ x²) over all other elements; lost: share of them that became 0.
    """
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape).astype(np.float32)
    where = rng.choice(x.size, count, replace=False)
    ordinary = np.ones(x.size, bool)
    ordinary[where] = False
    kept, rows = x.reshape(-1)[ordinary].astype(np.float64), []
    for magnitude in magnitudes:
        planted = x.copy()
        planted.reshape(-1)[where] = magnitude
        for name, tile in GRANULARITIES.items():
            got = op.quantise.rounded(planted, tile).reshape(-1)[ordinary].astype(np.float64)
            error = np.sqrt(np.sum((got - kept) ** 2) / np.sum(kept**2))
            lost = np.mean((got == 0) & (kept != 0))
            rows.append({"magnitude": float(magnitude), "granularity": name, "error": float(error), "lost": float(lost)})
    return rows


def accumulation(lengths=(128, 256, 512, 1024, 2048, 4096, 8192), seed: int = 0, size: int = 64) -> list[dict]:
    """Rows {terms, numbers, accumulator, max_relative, of_largest, root_mean} of products of quantised (size, K) and (K, size).

    The reference takes the same quantised numbers in float64. ``numbers`` is "positive" (uniform between 0 and 1: the sum grows
    like K) or "normal" (it grows like √K, and near 0 no relative error means anything). max_relative: largest |error/result|;
    of_largest: largest |error| / largest |result|; root_mean: √(Σ error² / Σ result²).
    """
    rng, rows = np.random.default_rng(seed), []
    for terms in lengths:
        for numbers, draw in (("positive", rng.random), ("normal", rng.standard_normal)):
            a, b = draw((size, terms)).astype(np.float32), draw((terms, size)).astype(np.float32)
            a = op.quantise.rounded(a, (1, 128), power_of_two=True)
            b = op.quantise.rounded(b, (128, 128), power_of_two=True)
            exact = a.astype(np.float64) @ b.astype(np.float64)
            for name, accumulator in ACCUMULATORS.items():
                error = np.abs(op.fp8_accumulation.matmul(a, b, accumulator) - exact)
                row = {"terms": terms, "numbers": numbers, "accumulator": name}
                row["max_relative"] = float((error / np.abs(exact)).max())
                row["of_largest"] = float(error.max() / np.abs(exact).max())
                row["root_mean"] = float(np.sqrt(np.sum(error**2) / np.sum(exact**2)))
                rows.append(row)
    return rows
