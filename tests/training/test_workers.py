"""Threads share a batch without changing what it means, and always in the same way."""

import numpy as np
import pytest
from support import TINY, batch, build
from threadpoolctl import threadpool_info

from minids.training.workers import Workers, useful_workers, weighted

BATCH = batch(size=5, length=9)


def gradients(count, model=None):
    model = model or build(TINY)
    model.parameters.zero_grads()
    with Workers(model, count) as workers:
        losses = workers.forward_backward(*BATCH, 0.5, 0.2)
    return losses, model.parameters.grads.copy()


@pytest.mark.parametrize("count", [2, 3, 5])
def test_losses_and_gradients_are_those_of_the_whole_batch(count):
    """Five sequences over two threads are three and two: unequal shares too."""
    whole, whole_gradients = gradients(1)
    shared, shared_gradients = gradients(count)
    assert shared.total == pytest.approx(whole.total, rel=1e-12)
    assert shared.mtp == pytest.approx(whole.mtp, rel=1e-12)
    assert shared.balance == pytest.approx(whole.balance, rel=1e-12)
    assert np.array_equal(shared.counts, whole.counts)
    np.testing.assert_allclose(shared_gradients, whole_gradients, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("how", [None, {}])
def test_modules_that_rest_are_left_out_by_all_threads(how):
    model = build(TINY)
    with Workers(model, 2) as workers:
        losses = workers.forward_backward(*BATCH, 0.5, 0.2, how, mtp=False)
    alone = model.losses(*BATCH, mtp=False)
    assert losses.mtp == () and losses.total == pytest.approx(alone.total, rel=1e-12)
    assert np.array_equal(losses.counts, alone.counts)


def test_the_same_number_of_threads_gives_the_same_bits():
    assert all(np.array_equal(gradients(2)[1], gradients(2)[1]) for _ in range(5))


def test_gradients_are_added_to_what_is_there():
    model = build(TINY)
    with Workers(model, 2) as workers:
        model.parameters.zero_grads()
        workers.forward_backward(*BATCH, 1.0, 0.3)
        once = model.parameters.grads.copy()
        workers.forward_backward(*BATCH, 1.0, 0.3)
    np.testing.assert_allclose(model.parameters.grads, 2 * once, rtol=1e-12)


def test_weights_and_biases_are_shared_and_gradients_are_not():
    model = build(TINY)
    other = model.sharing_weights()
    model.parameters.values += 1
    model.update_biases(np.arange(8.0)[None].repeat(3, axis=0), 0.1)
    assert np.array_equal(other.parameters.values, model.parameters.values)
    assert all(np.array_equal(a.bias, b.bias) for a, b in zip(model.moe_layers, other.moe_layers, strict=True))
    assert np.array_equal(other.logits(BATCH[0]), model.logits(BATCH[0]))
    other.parameters.grads += 1
    assert not model.parameters.grads.any()


@pytest.mark.parametrize("count", [1, 2])
def test_blas_is_held_to_one_thread_and_let_go(count):
    before = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    with Workers(build(TINY), count):
        assert all(pool["num_threads"] == 1 for pool in threadpool_info() if pool["user_api"] == "blas")
    assert [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"] == before


def test_how_many_threads_are_of_use(monkeypatch):
    model = build(TINY)
    monkeypatch.setattr("minids.training.workers.cores", lambda: 5)
    assert useful_workers(model, 8, 3) == 3
    assert useful_workers(model, 2, 3) == 2, "more threads than sequences"
    assert useful_workers(model, 8, 0) == 5, "0 is one per core"
    assert useful_workers(model, 3, 0) == 3
    assert useful_workers(build(TINY.replace(seq_aux=False)), 8, 4) == 1, "this loss looks at the batch as a whole"
    assert useful_workers(build(TINY.replace(seq_aux=False, aux_loss_alpha=0.0)), 8, 4) == 4


def test_a_failure_in_a_thread_is_raised():
    with Workers(build(TINY), 2) as workers, pytest.raises(Exception, match="token ids of this model"):
        workers.forward_backward(BATCH[0] + 1000, BATCH[1], 1.0, 0.3)


def test_means_are_weighted_by_the_shares():
    losses = gradients(1)[0]
    twice = weighted([losses, losses._replace(main=losses.main + 1)], [0.25, 0.75])
    assert twice.main == pytest.approx(losses.main + 0.75)
    assert np.array_equal(twice.counts, 2 * losses.counts)


def test_gradients_are_cleared_by_all():
    model = build(TINY)
    model.parameters.grads += 1
    with Workers(model, 3) as workers:
        workers.zero_grads()
    assert not model.parameters.grads.any()
