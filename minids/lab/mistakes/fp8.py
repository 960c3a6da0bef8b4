"""Mistakes of FP8 training, each as a wrong line that can be put into this package: see ``minids/lab/mistakes/__init__.py``.

A small model learns with any of them, its gradients are not zero and its shapes are right. What shows
them is a comparison to the bit with another implementation of the formats, or with the three products written out tile by tile.
"""

import numpy as np

from minids.backend import op
from minids.lab.mistakes import Mistake, Replace
from minids.layers.fp8 import Fp8Linear, scheme_of
from minids.layers.moe import MoE
from minids.ops import float8, fp8_accumulation, fp8_linear, quantise
from minids.ops.float8 import E4M3
from minids.ops.fp8_linear import Scheme

# The formats.


def halves_rounded_away_from_zero(replace: Replace) -> None:
    """What lies in the middle between two numbers always gets the larger size: rounding adds to every sum it enters."""
    right = float8.encode
    above = 1 + 2.0**-40  # moves a half, and nothing else that float32 can hold
    replace(float8, encode=lambda y, format=E4M3: right(np.asarray(y, np.float64) * above, format))


def overflow_instead_of_saturation(replace: Replace) -> None:
    """What rounds to more than the largest number becomes NaN, or infinity where the format has it: a library's cast."""
    right = float8.encode

    def wrong(y, format=E4M3):
        codes = right(y, format)
        half_a_step = (format.values[format.last] - format.values[format.last - 1]) / 2
        return np.where(np.abs(y) >= format.largest + half_a_step, codes + 1, codes).astype(format.dtype)

    replace(float8, encode=wrong)


def subnormals_flushed_to_zero(replace: Replace) -> None:
    """Numbers below the smallest normal one become 0: E4M3 loses three of its eighteen powers of two."""
    right = float8.encode

    def wrong(y, format=E4M3):
        return right(np.where(np.abs(y) < format.smallest_normal, np.copysign(0, y), y).astype(np.asarray(y).dtype), format)

    replace(float8, encode=wrong)


# Scales and tiles.


def scale_of_the_tensor_in_every_tile(replace: Replace) -> None:
    """Every tile gets the scale that the largest number of the whole matrix needs: one outlier spoils them all."""
    right = quantise.tile_scales

    def wrong(x, tile, format, power_of_two):
        scales = right(x, tile, format, power_of_two)
        return np.full_like(scales, scales.max(initial=0))

    replace(quantise, tile_scales=wrong)


def power_of_two_scales_rounded_down(replace: Replace) -> None:
    """UE8M0 takes the power of two below: up to half of a tile's range is cut off at 448."""
    right = float8.encode_scale

    def wrong(scale, up=True):
        codes = right(scale, up)
        return np.where(float8.decode_scale(codes) > scale, codes - 1, codes).astype(np.uint8) if up else codes

    replace(float8, encode_scale=wrong)


def scales_forgotten_in_the_weight_gradient(replace: Replace) -> None:
    """dW is computed from the codes of x without their scales: too large by a factor that Adam divides by again."""
    right = fp8_linear.backward

    def wrong(dy, saved, by=fp8_linear.PLAIN):
        bare = saved.x._replace(scales=np.ones_like(saved.x.scales))
        return right(dy, saved._replace(x=bare), by)

    replace(fp8_linear, backward=wrong)


def weight_gradient_in_the_tiles_of_the_forward_pass(replace: Replace) -> None:
    """The product that sums over tokens takes tiles of 1 × 128 again: a scale cannot be taken out of that sum."""
    replace(Scheme, column=property(lambda self: self.row))


# Accumulation and what stays in full precision.


def promotion_forgotten(replace: Replace) -> None:
    """The tensor core's short sum runs to the end of K: it never reaches an FP32 register."""
    right = fp8_accumulation.matmul

    def wrong(a, b, accumulator=None):
        return right(a, b, accumulator and accumulator._replace(interval=None))

    replace(fp8_accumulation, matmul=wrong)


def attention_output_in_e4m3(replace: Replace) -> None:
    """The linear after attention takes its input in E4M3 like all others, not in E5M6."""
    replace(Scheme, after_attention=lambda self: self)


def router_in_fp8(replace: Replace) -> None:
    """The router's linear map is quantised as well: near ties between experts are decided by rounding."""
    init = MoE.__init__

    def wrong_init(self, config, parameters, name):
        init(self, config, parameters, name)
        scheme = scheme_of(config)
        if scheme is not None:
            weight = self.gate.weight
            self.gate = Fp8Linear(parameters, f"{name}.gate", *weight.shape, False, scheme, weight)

    replace(MoE, __init__=wrong_init)


def master_weights_in_fp8(replace: Replace) -> None:
    """Weights are stored as they are multiplied, in FP8: an update below half a step of the format is lost, time and again."""
    right = Fp8Linear.forward

    def wrong(self, x):
        self.weight.value[...] = op.quantise.rounded(self.weight.value, self.scheme.block)
        return right(self, x)

    replace(Fp8Linear, forward=wrong)


IN_FP8: list[Mistake] = [
    halves_rounded_away_from_zero, overflow_instead_of_saturation, subnormals_flushed_to_zero,
    scale_of_the_tensor_in_every_tile, power_of_two_scales_rounded_down, scales_forgotten_in_the_weight_gradient,
    weight_gradient_in_the_tiles_of_the_forward_pass, promotion_forgotten, attention_output_in_e4m3, router_in_fp8,
    master_weights_in_fp8,
]  # fmt: skip
"""Of training with ``precision = "fp8"``."""
