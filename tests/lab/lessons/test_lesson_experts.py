"""Notebook 6: routers that learn in a plane, and the small layer of its exercises."""

import numpy as np

from minids.lab.lessons import experts


def test_a_router_of_one_expert_never_learns_and_others_do():
    one, two, new_start, four = (experts.learn(*run) for run in ((1, 0), (2, 0), (2, 2), (4, 0)))
    np.testing.assert_allclose(one.losses, one.losses[0], rtol=1e-12)
    assert four.right[0] < 0.3 and four.right[-1] > 0.98 and four.losses[-1] < 0.1
    assert new_start.right[-1] > 0.97
    assert two.right[-1] < 0.75 and two.losses[-1] > 0.4
    quarter = np.random.default_rng(0).uniform((-3, 0.3), (-0.3, 3), (2000, 2))  # that of expert 1
    chosen = np.argsort(-(experts.in_the_plane(quarter) @ two.centroids.T), axis=1)[:, :2]
    assert not np.any(chosen == 1), "nobody there chooses the expert that is right"


def test_in_the_small_layer_every_expert_is_chosen():
    layer = experts.small_layer()
    assert len(np.unique(layer["chosen"])) == len(layer["w_gate"])
