"""RoPE against complex numbers, in both layouts; its two defining properties."""

import naive
import numpy as np
import pytest
import support
from hypothesis import given
from hypothesis import strategies as st

from minids import check
from minids.ops import rope, yarn

RNG = np.random.default_rng(0)


def table(positions, size=6, amplitude=1.0):
    return yarn.rotation_table(yarn.plain_frequencies(size, 100.0), np.asarray(positions), amplitude)


def by_complex_numbers(x, positions, base, interleave):
    """Each pair as one complex number, times e^(i · position · θ)."""
    size, want = x.shape[-1], np.zeros(x.shape)
    frequencies = [base ** (-2 * i / size) for i in range(size // 2)]
    for b, t, h in np.ndindex(*x.shape[:3]):
        want[b, t, h] = naive.turned(x[b, t, h], positions[t], frequencies, interleave)
    return want


def test_interleaved_pairs_are_neighbours():
    x = RNG.standard_normal((2, 4, 3, 6))
    got = rope.forward(x, *table([0, 1, 5, 11]), interleave=True)[0]
    support.assert_close(got, by_complex_numbers(x, [0, 1, 5, 11], 100.0, True), what="interleaved layout")


def test_half_split_pairs_are_half_the_size_apart():
    x = RNG.standard_normal((2, 4, 3, 6))
    got = rope.forward(x, *table([0, 1, 5, 11]), interleave=False)[0]
    support.assert_close(got, by_complex_numbers(x, [0, 1, 5, 11], 100.0, False), what="half-split layout")


def test_the_layouts_are_one_rotation_after_reordering_the_coordinates():
    x = RNG.standard_normal((1, 3, 2, 6))
    order = [0, 2, 4, 1, 3, 5]  # half-split coordinate i is interleaved coordinate 2i, d_r/2 + i is 2i + 1
    angles = table([2, 3, 9])
    interleaved, _ = rope.forward(x, *angles, interleave=True)
    half_split, _ = rope.forward(x[..., order], *angles, interleave=False)
    support.assert_close(half_split, interleaved[..., order])


@pytest.mark.parametrize("interleave", [True, False], ids=["interleaved", "half-split"])
@pytest.mark.parametrize(("shape", "amplitude"), [((2, 3, 2, 4), 1.0), ((1, 1, 1, 2), 1.0), ((1, 5, 3, 6), 1.3)])
def test_gradient(shape, amplitude, interleave):
    angles = table(np.arange(shape[1]) * 3 + 1, shape[-1], amplitude)
    check.gradient(
        lambda x: rope.forward(x, *angles, interleave), rope.backward, {"x": RNG.standard_normal(shape)}
    ).raise_if_wrong()


@given(st.booleans(), st.integers(1, 5), st.integers(0, 10**5), st.integers(0, 2**31))
def test_norms_are_kept_and_position_zero_is_left_alone(interleave, pairs, position, seed):
    x = np.random.default_rng(seed).standard_normal((1, 2, 1, 2 * pairs))
    y, saved = rope.forward(x, *table([0, position], 2 * pairs), interleave)
    np.testing.assert_array_equal(y[:, 0], x[:, 0])
    support.assert_close(np.sum(y**2, -1), np.sum(x**2, -1), what="squared norm")
    support.assert_close(rope.backward(y, saved), x, 1e-9, "turning back")


@given(st.booleans(), st.integers(0, 500), st.integers(0, 500), st.integers(0, 500), st.integers(0, 2**31))
def test_a_score_depends_on_the_difference_of_positions_alone(interleave, one, two, shift, seed):
    q, k = np.random.default_rng(seed).standard_normal((2, 1, 1, 1, 6))

    def score(at_q, at_k):
        return np.sum(rope.forward(q, *table([at_q]), interleave)[0] * rope.forward(k, *table([at_k]), interleave)[0])

    assert abs(score(one, two) - score(one + shift, two + shift)) < 1e-10


def test_whole_numbers_are_turned_too():
    angles = np.arange(6.0).reshape(3, 2)
    x = np.arange(12).reshape(1, 3, 1, 4)
    turned = rope.forward(x, np.cos(angles), np.sin(angles))[0]
    np.testing.assert_array_equal(turned, rope.forward(x.astype(float), np.cos(angles), np.sin(angles))[0])


def test_each_sequence_may_have_positions_of_its_own():
    x = RNG.standard_normal((2, 4, 3, 6))
    positions = np.array([[0, 1, 2, 3], [0, 1, 0, 1]])
    cos, sin = (a[positions] for a in table(range(4)))
    y, saved = rope.forward(x, cos, sin)
    for b in range(2):
        alone, saved_alone = rope.forward(x[b : b + 1], *table(positions[b]))
        assert (y[b] == alone[0]).all() and (rope.backward(y, saved)[b] == rope.backward(alone, saved_alone)[0]).all()
