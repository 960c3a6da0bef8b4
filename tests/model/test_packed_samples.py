"""Samples packed in a sequence and invisible to each other: losses, logits and gradients are those of each sample alone."""

import numpy as np
import pytest
import support

from minids.backend import use_backend
from minids.errors import MinidsError
from minids.model import IGNORE

SAMPLES = [4, 6, 3, 7]  # tokens of each; two in each of two sequences of ten
CONFIG = support.TINY.replace(aux_loss_alpha=0.0, first_k_dense_replace=1)  # the balance loss looks at a sequence as a whole


def packed(config):
    """tokens, targets, segments (2, 10), and the samples apart: the last token of a sample has nothing to predict."""
    rng = np.random.default_rng(0)
    alone = [rng.integers(0, config.vocab_size, (1, n + 1)) for n in SAMPLES]
    apart = [(a[:, :-1], a[:, 1:].copy()) for a in alone]
    for _, targets in apart:
        targets[0, 1] = IGNORE  # as in a prompt
    rows = [np.concatenate([np.concatenate(pair, axis=1) for pair in zip(*apart[i : i + 2], strict=True)]) for i in (0, 2)]
    tokens, targets = (np.stack([row[which] for row in rows]) for which in (0, 1))
    segments = np.stack([np.repeat([8, 3], SAMPLES[i : i + 2]) for i in (0, 2)])  # any numbers
    return tokens, targets, segments, apart


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize(
    "changes", [{}, {"attention": "gqa", "num_key_value_heads": 2}, {"rope_scaling": support.SHORT_YARN}], ids=str
)
def test_losses_and_gradients_are_those_of_the_samples_alone(changes, restart, backend):
    with use_backend(backend):
        model = support.build(CONFIG.replace(**changes))
        tokens, targets, segments, apart = packed(model.config)
        model.parameters.zero_grads()
        losses = model.forward_backward(tokens, targets, segments=segments, restart=restart)
        together = model.parameters.grads.copy()
        model.parameters.zero_grads()
        counted = [int((t != IGNORE).sum()) for _, t in apart]
        each = [model.forward_backward(x, t, weight=n / sum(counted)) for (x, t), n in zip(apart, counted, strict=True)]
    shares = np.array(counted) / sum(counted)
    support.assert_close(losses.main, shares @ [one.main for one in each], 1e-10, "main loss")
    for depth in range(2):
        support.assert_close(losses.mtp[depth], shares @ [one.mtp[depth] for one in each], 1e-10, f"MTP {depth + 1}")
    support.assert_close(together, model.parameters.grads, 1e-7, "gradients")


def test_recomputation_gives_the_same_bits_of_packed_samples_too():
    model = support.build(CONFIG)
    tokens, targets, segments, _ = packed(CONFIG)
    found = []
    for recompute in (False, True):
        model.recompute = recompute
        model.parameters.zero_grads()
        model.forward_backward(tokens, targets, segments=segments)
        found.append(model.parameters.grads.copy())
    assert (found[0] == found[1]).all()


def test_what_stands_in_one_sample_changes_nothing_in_another():
    model = support.build(CONFIG)
    tokens, _, segments, _ = packed(CONFIG)
    before = model.hidden_states(tokens, model.packing(tokens, segments))[0]
    changed = tokens.copy()
    changed[0, 2] = (changed[0, 2] + 1) % CONFIG.vocab_size
    after = model.hidden_states(changed, model.packing(tokens, segments))[0]
    moved = np.abs(after - before).max(axis=-1) > 1e-9
    assert moved[0].tolist() == [False, False, True, True] + [False] * 6 and not moved[1].any()


def test_samples_that_see_each_other_give_another_loss():
    model = support.build(CONFIG)
    tokens, targets, segments, _ = packed(CONFIG)
    assert abs(model.losses(tokens, targets).main - model.forward(tokens, targets, segments=segments)[0].main) > 1e-3


@pytest.mark.parametrize("wrong", [[[1, 2]], np.zeros((2, 10)), "ab", 3])
def test_numbers_of_samples_that_do_not_fit_are_refused(wrong):
    model = support.build(CONFIG)
    tokens, targets, _, _ = packed(CONFIG)
    with pytest.raises(MinidsError, match="segments"):
        model.forward(tokens, targets, segments=wrong)
