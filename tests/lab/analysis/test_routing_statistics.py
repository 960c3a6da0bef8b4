"""Statistics of routing on cases whose answer is known without them."""

import itertools

import numpy as np
import pytest
import support

from minids.lab.analysis.routing import (
    domain_counts,
    dropped,
    load_entropy,
    nodes_touched,
    relative_load,
    specialisation,
    specialisation_test,
    statistics,
)
from minids.lab.analysis.routing_trace import LayerTrace, RoutingTrace, trace

RNG = np.random.default_rng(0)


def test_relative_load_and_entropy():
    np.testing.assert_allclose(relative_load([[1, 1, 2, 4]]), [[0.5, 0.5, 1, 2]])
    np.testing.assert_allclose(load_entropy([[3, 3, 3, 3], [5, 0, 0, 0], [2, 2, 0, 0]]), [1, 0, 0.5], atol=1e-12)
    np.testing.assert_allclose(load_entropy(np.ones((2, 3, 4))), np.ones((2, 3)), err_msg="experts are the last axis")


def test_specialisation_is_the_information_that_an_expert_gives_about_the_domain():
    assert specialisation([[4, 4], [1, 1]]) == pytest.approx(0), "alike, however much text each has"
    assert specialisation([[9, 0], [0, 2]]) == pytest.approx(1), "two domains told apart: one bit"
    assert specialisation(np.eye(4)) == pytest.approx(2)
    # By hand: p(domain, expert) = 3/8, 1/8 / 1/8, 3/8; every product of the margins is 1/4.
    want = 2 * (3 / 8 * np.log2(1.5) + 1 / 8 * np.log2(0.5))
    assert specialisation([[3, 1], [1, 3]]) == pytest.approx(want)
    layers = specialisation([[[3, 1], [4, 4]], [[1, 3], [4, 4]]])
    np.testing.assert_allclose(layers, [want, 0], atol=1e-12)


def sequences(strength, count=30, experts=8, bursts=1.0):
    """Loads (S, 2, E) of three domains; ``strength`` 0 is no difference; ``bursts``: how far sequences differ anyway."""
    domain = np.arange(count) % 3
    lean = RNG.dirichlet(np.ones(experts), 3)
    own = RNG.dirichlet(np.full(experts, 1 / bursts), (count, 2))
    share = (1 - strength) * own + strength * lean[domain][:, None]
    return np.array([[RNG.multinomial(400, layer) for layer in sequence] for sequence in share]), domain


def test_the_permutation_test_finds_a_difference():
    found = specialisation_test(*sequences(0.5))
    assert found.p_value == 1 / 1000 and found.statistic > 2 * found.chance


def test_the_permutation_test_is_not_fooled_by_sequences_that_differ_among_themselves():
    """Without a difference between domains p is uniform: few of 60 fall below 0.1, though a sequence's tokens are alike."""
    values = [specialisation_test(*sequences(0.0, bursts=3.0), permutations=199, seed=i).p_value for i in range(60)]
    assert 1 <= sum(p <= 0.1 for p in values) <= 14
    assert 0.35 < np.mean(values) < 0.65


def test_the_permutation_test_counts_exactly():
    """Four sequences, two of each domain: of the 24 orders a third keep the grouping, and none gives a larger statistic."""
    counts = np.array([[[9, 0]], [[8, 1]], [[0, 9]], [[1, 8]]])
    domain = np.array([0, 0, 1, 1])
    found = specialisation_test(counts, domain, permutations=3000)

    def statistic(order):
        labels = domain[list(order)]
        return specialisation([counts[labels == d, 0].sum(axis=0) for d in (0, 1)])

    every = [statistic(order) for order in itertools.permutations(range(4))]
    assert found.statistic == pytest.approx(statistic(range(4)))
    assert found.p_value == pytest.approx(np.mean(np.array(every) >= every[0] - 1e-12), abs=0.03)
    assert found.chance == pytest.approx(np.mean(every), abs=0.02)
    assert specialisation_test(counts, domain, seed=1) == specialisation_test(counts, domain, seed=1)


def test_nodes_touched_by_hand():
    chosen = np.array([[[0, 1, 2], [0, 3, 7]], [[5, 4, 6], [7, 0, 6]]])
    np.testing.assert_array_equal(nodes_touched(chosen, 8, 4), [[2, 3], [2, 2]])
    np.testing.assert_array_equal(nodes_touched(chosen, 8, 1), np.ones((2, 2)))


def test_a_model_limited_to_m_nodes_touches_no_more_and_drops_nothing():
    model = support.build()
    tokens, _ = support.batch(size=6, length=20)
    found = trace(model, tokens, ("a", "b"), np.repeat([[0], [0], [0], [1], [1], [1]], 20, axis=1))
    assert nodes_touched(found.layers[0].chosen, 8, 4).max() <= model.config.topk_group
    assert dropped(found) == 0
    (layer,) = statistics(found)
    counts = found.counts()[0]
    assert layer.name == "model.layers.1.mlp"
    assert layer.max_violation == pytest.approx(counts.max() / counts.mean() - 1)
    assert 1 <= layer.nodes <= 2 and 0 < layer.entropy <= 1
    assert layer.specialisation == pytest.approx(specialisation(domain_counts(found))[0])
    assert domain_counts(found).sum(axis=0).tolist() == found.counts().tolist()


def test_a_choice_that_no_expert_serves_is_counted():
    chosen = np.array([[[0, 1], [2, 2], [1, 9]]])  # an expert twice, and one that is not there
    layer = LayerTrace("x", chosen, np.ones(chosen.shape), None)
    assert dropped(RoutingTrace((layer,), np.zeros((1, 3), int), experts=4, groups=2)) == 2
