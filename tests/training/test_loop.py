"""The loop: what one step does and in which order, begun anywhere, the same whoever drives it."""

from itertools import islice

import numpy as np
import pytest
import small_run

from minids.checkpoint.tokenizer import byte_tokenizer
from minids.model import DeepSeekV3
from minids.training.batches import Batches, TokenStream
from minids.training.corpus import Document
from minids.training.loop import Diverged, training_steps
from minids.training.optimizer import AdamW
from minids.training.schedule import settings
from minids.training.workers import Workers

MODEL = small_run.MODEL.replace(vocab_size=258)
TRAIN = small_run.RUN.replace(steps=6, gradient_accumulation_steps=2)
STREAM = TokenStream.encode([Document("x", "rhyme", b"one, two, three, four, five; " * 40)], byte_tokenizer())


class Training:
    """What a loop needs, from one seed."""

    def __init__(self, model=MODEL, train=TRAIN, count=1):
        self.model, self.train = DeepSeekV3(model, 0), train
        self.optimizer = AdamW(self.model.parameters, train)
        self.batches = Batches(STREAM, train.batch_size, train.context_length, np.random.default_rng(1))
        self.workers = Workers(self.model, count)

    def steps(self, finished=0):
        return training_steps(self.model, self.optimizer, self.batches, self.train, self.workers, finished)


def test_a_step_is_the_update_of_the_mean_gradient_and_then_that_of_the_bias():
    """The same written out with the model alone: the mean over micro-batches, the schedule of each step, the bias last."""
    ours, plain = Training(), Training()
    done = list(ours.steps())
    model = plain.model
    for step in range(TRAIN.steps):
        now = settings(step, model.config, TRAIN)
        model.parameters.zero_grads()
        losses = [model.forward_backward(*plain.batches.next(), 0.5, now.mtp_loss_weight) for _ in range(2)]
        assert done[step].norm == plain.optimizer.step(now.learning_rate)
        model.update_biases(losses[0].counts + losses[1].counts, now.bias_update_speed)
        assert done[step].step == step + 1 and done[step].learning_rate == now.learning_rate
        assert done[step].losses.total == pytest.approx((losses[0].total + losses[1].total) / 2)
        np.testing.assert_array_equal(done[step].losses.counts, losses[0].counts + losses[1].counts)
    np.testing.assert_array_equal(ours.model.parameters.values, model.parameters.values)
    for a, b in zip(ours.model.moe_layers, model.moe_layers, strict=True):
        np.testing.assert_array_equal(a.bias, b.bias)
        assert a.bias.any()


def test_begun_again_after_some_steps_it_makes_the_rest():
    whole, parts = Training(), Training()
    every = list(whole.steps())
    first = list(islice(parts.steps(), 2))
    rest = list(parts.steps(finished=2))
    assert [done.step for done in rest] == [3, 4, 5, 6]
    assert [done.losses.main for done in first + rest] == [done.losses.main for done in every]
    np.testing.assert_array_equal(whole.model.parameters.values, parts.model.parameters.values)


def test_the_bias_moves_once_per_optimizer_step_by_the_load_of_the_global_batch():
    training, counted = Training(), []
    model = training.model
    forward_backward = model.forward_backward

    def counting(*args, **kwargs):
        before = [layer.bias.copy() for layer in model.moe_layers]
        losses = forward_backward(*args, **kwargs)
        assert all(np.array_equal(b, layer.bias) for b, layer in zip(before, model.moe_layers, strict=True))
        counted.append(losses.counts)
        return losses

    model.forward_backward = counting
    before = [layer.bias.copy() for layer in model.moe_layers]
    next(training.steps(finished=2))
    assert len(counted) == 2, "two micro-batches"
    total, speed = counted[0] + counted[1], settings(2, MODEL, TRAIN).bias_update_speed
    for layer, old, count in zip(model.moe_layers, before, total, strict=True):
        want = old + np.float32(speed) * np.sign(count.mean() - count).astype(np.float32)
        assert np.array_equal(layer.bias, want) and layer.bias.dtype == np.float32
        assert np.any(layer.bias != old)


def test_accumulated_micro_batches_are_one_large_batch():
    """Without MTP and balance loss, whose means are over other numbers of tokens, the two are the same sum."""
    model = MODEL.replace(num_nextn_predict_layers=0, aux_loss_alpha=0.0)
    results = []
    for size, parts in ((4, 1), (2, 2)):
        training = Training(model, TRAIN.replace(batch_size=size, gradient_accumulation_steps=parts))
        next(training.steps())
        results.append(training.model.parameters.grads.copy())
    np.testing.assert_allclose(*results, rtol=2e-4, atol=1e-6)


def test_a_loss_that_is_no_number_ends_the_loop_and_moves_no_bias():
    training = Training()
    training.model.embed_tokens.weight.value[:] = np.inf
    with np.errstate(all="ignore"), pytest.raises(Diverged, match="step 1: loss = nan"):
        next(training.steps())
    assert not any(layer.bias.any() for layer in training.model.moe_layers)


def test_mtp_modules_that_rest_are_not_read_and_the_main_model_learns_as_without_them():
    """Gradients of a step at rest are those with λ = 0, apart from the modules' balance loss, which is theirs alone."""
    resting, weightless = (
        Training(MODEL.replace(aux_loss_alpha=0.0, mtp_loss_weight=weight), TRAIN.replace(mtp_from=share, weight_decay=0.0))
        for weight, share in ((0.3, 0.5), (0.0, 0.0))
    )
    before = {p.name: p.value.copy() for p in resting.model.parameters}
    modules = MODEL.num_nextn_predict_layers
    assert modules
    at_rest, awake = list(islice(resting.steps(), 3)), list(islice(weightless.steps(), 3))
    for mine, theirs in zip(at_rest, awake, strict=True):
        assert mine.losses.mtp == () and len(theirs.losses.mtp) == modules
        assert mine.losses.main == pytest.approx(theirs.losses.main, rel=1e-6)
        np.testing.assert_array_equal(mine.losses.counts, theirs.losses.counts[:-modules])
    for p, q in zip(resting.model.parameters, weightless.model.parameters, strict=True):
        np.testing.assert_allclose(p.value, q.value, rtol=1e-5, atol=1e-7, err_msg=p.name)
    module = [p for p in resting.model.parameters if f".{MODEL.num_hidden_layers}." in p.name and "embed" not in p.name]
    assert module and all((p.value == before[p.name]).all() for p in module)
    assert not resting.model.moe_layers[-1].bias.any()

    woken = list(resting.steps(finished=3))
    assert all(len(done.losses.mtp) == modules for done in woken)
    assert any((p.value != before[p.name]).any() for p in module) and resting.model.moe_layers[-1].bias.any()
