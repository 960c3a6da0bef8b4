"""Notebook 10: the checks of its exercises, outliers planted in a matrix, sums with few bits, and short runs of training."""

from collections.abc import Callable

import numpy as np

from minids import check
from minids.check import Report
from minids.config import ModelConfig, TrainConfig
from minids.lab.analysis.operands import Operand, operands
from minids.model import DeepSeekV3
from minids.ops import float8, fp8_accumulation, quantise
from minids.ops.fp8_accumulation import Accumulator
from minids.training.optimizer import AdamW

Array = np.ndarray


# Exercise 1.


def check_to_e4m3(to_e4m3: Callable) -> Report:
    """Numbers of all sizes, ties, both ends, and what lies beyond."""
    rng = np.random.default_rng(0)
    ends = [0.0, 17.0, 19.0, 448.0, 1e9, -500.0, 2.0**-10]
    numbers = np.concatenate([rng.normal(size=500) * 10.0 ** rng.uniform(-4, 3, 500), ends])
    usual = {"it cuts off towards zero, where it should round to the nearest.": cut_off}
    return check.against(float8.rounded, to_e4m3, numbers, usual=usual)


def cut_off(y: Array) -> Array:
    """Wrong: the next number of the format towards zero."""
    size = np.minimum(np.abs(y), 448)
    step = 2.0 ** np.maximum(np.frexp(size)[1] - 4, -9)
    return np.sign(y) * np.floor(size / step) * step


# Outliers.


class Planted:
    """A matrix (N, d) of ordinary numbers in which a few, at ``spots``, are replaced by outliers of one size."""

    spots = (np.array([5, 30, 50]), np.array([40, 300, 450]))  # rows, columns

    def __init__(self, matrix: Array):
        self.matrix = matrix
        self.ordinary = np.ones(matrix.shape, bool)
        self.ordinary[self.spots] = False

    def of(self, size: float) -> Array:
        """The matrix with outliers of this size."""
        planted = self.matrix.copy()
        planted[self.spots] = size
        return planted

    def error(self, size: float, shape: tuple[int, int] | None) -> float:
        """Relative error of all other numbers, with a scale for each tile of a shape: rms of what is lost over rms of all."""
        planted = self.of(size)
        off = (quantise.rounded(planted, shape) - planted)[self.ordinary]
        return float(np.sqrt(np.sum(off**2) / np.sum(planted[self.ordinary] ** 2)))


def linears(model: DeepSeekV3, tokens: Array) -> list[Operand]:
    """What the linear layers of a model multiply in a step on tokens (B, T), the head's left out."""
    return [o for o in operands(model, tokens[:, :-1], tokens[:, 1:]) if not o.layer.endswith("head.weight")]


def outlying(found: list[Operand], most: int = 3) -> list[Operand]:
    """Those that stand out most, and the router's that does."""
    routers = [o for o in found if o.layer.endswith("gate.weight")]
    others = [o for o in found if not o.layer.endswith("gate.weight")]
    return [*sorted(others, key=lambda o: -o.outlier)[:most], max(routers, key=lambda o: o.outlier)]


# Exercise 2.


def check_in_tiles(in_tiles: Callable) -> Report:
    """Wide and narrow tiles, numbers below the least maximum, and nothing but zeros."""
    x = np.random.default_rng(0).normal(size=(64, 512)).astype(np.float32)
    tiny = x * np.float32(1e-6)  # every tile is below the least maximum
    sets = [(x, 128), (x, 32), (tiny, 32), (np.zeros((2, 8), np.float32), 4)]
    usual = {"it takes one scale for a whole row, where every tile has its own.": row_by_row}
    return check.against(of_the_package, in_tiles, sets, usual=usual)


def row_by_row(x: Array, width: int) -> Array:
    """Wrong: tiles as wide as the matrix."""
    return quantise.rounded(x, (1, x.shape[1]))


def of_the_package(x: Array, width: int) -> Array:
    """The same from ops/quantise.py."""
    return quantise.rounded(x, (1, width))


# Exercise 3.


def check_scaled_product(scaled_product: Callable) -> Report:
    """Scales applied to the sum of a block, beside scales applied to every number."""
    rng = np.random.default_rng(0)
    codes = [float8.rounded(rng.normal(size=(rows, 48)) * 100) for rows in (5, 4)]
    scales = [rng.uniform(0.1, 2, (rows, 3)) for rows in (5, 4)]
    return check.against(scaled_before, scaled_product, codes[0], scales[0], codes[1], scales[1], 16, tolerance=1e-8)


def scaled_before(cx: Array, sx: Array, cw: Array, sw: Array, width: int) -> Array:
    """Scales applied to every number before multiplying."""
    return (cx * np.repeat(sx, width, axis=1)) @ (cw * np.repeat(sw, width, axis=1)).T


# Sums with few bits.

NUMBERS = {
    "numbers between 0 and 1": np.random.Generator.random,
    "numbers of both signs": np.random.Generator.standard_normal,
}
"""What is multiplied: how a generator draws an array of a shape."""


def error_of_sums(numbers: Callable, length: int, accumulator: Accumulator, rows: int = 16) -> float:
    """What sums lose: largest error of a product of matrices (rows, length) of ``numbers`` in E4M3, over its largest entry."""
    rng = np.random.default_rng(0)
    a, b = (quantise.rounded(numbers(rng, (rows, length)).astype(np.float32), (1, 128), power_of_two=True) for _ in range(2))
    exact = a.astype(np.float64) @ b.T.astype(np.float64)
    return float(np.abs(fp8_accumulation.matmul(a, b.T, accumulator) - exact).max() / np.abs(exact).max())


# Training.

TOY = ModelConfig.preset("tiny").replace(
    vocab_size=128, hidden_size=32, num_hidden_layers=2, intermediate_size=64,
    q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16,
    n_routed_experts=8, num_experts_per_tok=2, moe_intermediate_size=32,
    num_nextn_predict_layers=0, bos_token_id=None, eos_token_id=None, initializer_range=0.02,
)  # fmt: skip
"""A model of 8 experts that learns one sentence in some seconds."""

WORDS = "the cat sat on the mat and the dog sat on the cat then the rat ate the hat "


def trained(config: ModelConfig, nudge: float = 0.0, steps: int = 90) -> Array:
    """Loss of every step, on the same batches for every config. ``nudge`` makes all weights larger by that share."""
    text = np.frombuffer((WORDS * 40).encode(), np.uint8).astype(np.int64)
    model, source, losses = DeepSeekV3(config, seed=0), np.random.default_rng(1), []
    model.parameters.values *= 1 + nudge
    optimizer = AdamW(model.parameters, TrainConfig(steps=steps))  # master weights in float32
    for _ in range(steps):
        windows = text[source.integers(0, len(text) - 49, 4)[:, None] + np.arange(49)]
        model.parameters.zero_grads()
        losses.append(model.forward_backward(windows[:, :-1], windows[:, 1:]).main)
        optimizer.step(3e-3)
    return np.array(losses)
