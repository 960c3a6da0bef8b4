"""Symptoms of the mistakes of the FP8 wing; see ``symptoms.py``."""

import functools

import numpy as np

from minids.lab.mistakes.stamp import STAMP, Array, Measured, build
from minids.ops import float8, fp8_accumulation, fp8_linear, quantise

SMALL = STAMP.replace(precision="fp8", fp8_tile=4, num_nextn_predict_layers=0)
"""The stamp in FP8."""


def halves() -> Measured:
    """Whole numbers from 16, where E4M3 has every second one: what each becomes, minus what it was."""
    y = np.arange(16.0, 34.0)
    return y, float8.rounded(y) - y


def large() -> Measured:
    """Numbers around the largest, 448."""
    y = np.linspace(300, 620, 120)
    return y, float8.rounded(y)


def tiny() -> Measured:
    """Numbers around the smallest normal one, 2⁻⁶."""
    y = np.geomspace(2.0**-11, 2.0**-4, 200)
    return y, float8.rounded(y)


def outlier() -> Measured:
    """Error of all other numbers of a matrix when one number grows, in per cent."""
    sizes = 10.0 ** np.arange(0, 7)
    x, off = np.random.default_rng(1).normal(size=(8, 256)).astype(np.float32), []
    for size in sizes:
        x[0, 0] = size
        off.append(100 * np.abs(quantise.rounded(x, (1, 32)) - x)[1:].mean() / np.abs(x[1:]).mean())
    return sizes, np.array(off)


def largest_of_a_tile() -> Measured:
    """A tile's largest number after quantisation with a power-of-two scale, over what it was."""
    sizes = np.geomspace(1, 16, 200)
    tiles = np.zeros((len(sizes), 4), np.float32)
    tiles[:, 0] = sizes
    return sizes, quantise.rounded(tiles, (1, 4), power_of_two=True)[:, 0] / sizes


@functools.cache
def _operands() -> tuple[Array, Array, Array]:
    """x (N, in), w (out, in), dy (N, out); tokens differ in size, as they do in a network."""
    source = np.random.default_rng(2)
    loud = np.exp(source.normal(size=(256, 1)))  # (N, 1)
    x = (loud * source.normal(size=(256, 128))).astype(np.float32)
    w = (0.05 * source.normal(size=(64, 128))).astype(np.float32)
    return x, w, (1e-3 * source.normal(size=(256, 64))).astype(np.float32)


def weight_gradient() -> Measured:
    """Some entries of dW in FP8 against the exact ones."""
    x, w, dy = _operands()
    _, d_weight, _ = fp8_linear.backward(dy, fp8_linear.forward(x, w)[1])
    return (dy.T @ x).ravel()[::90], d_weight.ravel()[::90]


def long_sums() -> Measured:
    """Largest relative error of products of positive numbers, by the length of the sum, in per cent."""
    lengths, off = 2 ** np.arange(7, 13), []
    for K in lengths:
        a, b = np.random.default_rng(3).random((2, 8, K)).astype(np.float32)
        truth = a.astype(np.float64) @ b.T.astype(np.float64)
        off.append(100 * np.abs(fp8_accumulation.matmul(a, b.T, fp8_accumulation.PROMOTED) / truth - 1).max())
    return lengths, np.array(off)


def after_attention() -> Measured:
    """Errors of the input of the linear behind attention, sorted, in per cent."""
    recipe, x = fp8_linear.FINE.after_attention(), _operands()[0]
    left = quantise.rounded(x, recipe.row, recipe.inputs, recipe.round_inputs)
    off = 100 * np.sort(np.abs(left / x - 1).ravel())[::64]
    return np.linspace(0, 100, len(off)), off


def ties() -> Measured:
    """How often the better of two experts loses, when its logit is larger by a gap, in per cent."""
    gaps = np.geomspace(1e-4, 1, 9)
    gate, lost = build(SMALL.replace(fp8_tile=16), dtype=np.float32).moe_layers[0].gate, []
    states = np.random.default_rng(4).normal(size=(200, 12)).astype(np.float32)
    weight, direction = gate.weight.value, states / (states**2).sum(axis=1, keepdims=True)
    for gap in gaps:
        weight[1] = weight[0] = weight[2]
        wins = 0
        for state, step in zip(states, direction, strict=True):
            weight[1] = weight[0] + gap * step  # logit of expert 1 = that of expert 0 + gap
            logits = gate.forward(state[None])[0]
            wins += logits[0, 1] > logits[0, 0]
        lost.append(100 - wins / 2)
    return gaps, np.array(lost)


def small_updates() -> Measured:
    """A weight that is made larger by a thousandth of its first value, again and again; over its first value."""
    layer = build(SMALL, dtype=np.float32).blocks[0].attention.q_a_proj
    weight, grown, state = layer.weight.value, [1.0], np.ones((1, 12), np.float32)
    start = weight[0, 0]
    for _ in range(60):
        layer.forward(state)
        weight[0, 0] += start / 1000
        grown.append(weight[0, 0] / start)
    return np.arange(61), np.array(grown)
