"""One model, several Python threads: functions that look pure are."""

import copy
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import support

import minids
from minids.checkpoint.streaming import load_streamed
from minids.model import DeepSeekV3

COUNT = 4


@pytest.fixture(autouse=True)
def often():
    """Threads change places far more often than usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def at_once(work, arguments):
    with ThreadPoolExecutor(COUNT) as pool:
        return list(pool.map(work, arguments))


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_gradients_are_those_of_the_own_batch(backend):
    if backend == "numba":
        pytest.importorskip("numba")
    model = support.build(dtype=np.float32)
    batches = [support.batch(size=3, length=4 + seed % 5, seed=seed) for seed in range(6 * COUNT)]
    with minids.use_backend(backend):
        alone = [model.loss_and_grads(*batch) for batch in batches]
        together = at_once(lambda batch: model.loss_and_grads(*batch), batches)
    for (loss, grads), (other_loss, other_grads) in zip(alone, together, strict=True):
        assert loss.total == other_loss.total
        for name, gradient in grads.items():
            np.testing.assert_array_equal(gradient, other_grads[name], err_msg=name)


def test_backward_passes_of_several_threads_add_up():
    model = support.build()
    batches = [support.batch(seed=seed) for seed in range(4 * COUNT)]
    wanted = sum(np.concatenate([g.ravel() for g in model.loss_and_grads(*batch)[1].values()]) for batch in batches)
    model.parameters.zero_grads()
    at_once(lambda batch: model.forward_backward(*batch), batches)
    support.assert_close(np.concatenate([p.grad.ravel() for p in model.parameters]), wanted, 1e-9)


def test_angles_are_as_long_as_was_asked():
    """The table of angles grows on the way: one thread must not be handed another's shorter one."""
    lengths = list(range(1, 61)) * 4
    for _ in range(5):
        model = DeepSeekV3(support.TINY)
        assert [len(angles.cos) for angles in at_once(model.rotary, lengths)] == lengths


def test_text_is_that_of_the_own_prompt(tmp_path):
    config = support.TINY.replace(num_nextn_predict_layers=0)
    minids.save(support.build(config, dtype=np.float32), tmp_path / "model")
    prompts = [[seed % config.vocab_size, 3, 5][: 1 + seed % 3] for seed in range(3 * COUNT)]
    for model in (minids.load(tmp_path / "model"), load_streamed(tmp_path / "model")):

        def text(prompt, model=model):
            return minids.generate(model, prompt, 12, temperature=1.0).tolist()

        assert at_once(text, prompts) == [text(prompt) for prompt in prompts]


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["deepcopy", "pickle"])
def test_a_copy_of_a_model_works(twin):
    model = support.build()
    other = twin(model)
    assert other.loss_and_grads(*support.batch())[0].total == model.loss_and_grads(*support.batch())[0].total
