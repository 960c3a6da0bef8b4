"""BLAS has one thread while a model is at work, in every function that multiplies, and all of them between two."""

import threading

import numpy as np
import pytest
import support
from threadpoolctl import threadpool_info, threadpool_limits

import minids
from minids.backend import op
from minids.blas import VARIABLE, one_blas_thread
from minids.checkpoint.streaming import load_layer, load_streamed
from minids.config import TrainConfig
from minids.inference.decoder import Decoder
from minids.inference.generate import stream
from minids.layers.basic import Linear
from minids.layers.feed_forward import FeedForward
from minids.layers.positions import rotary
from minids.model import DeepSeekV3
from minids.training.evaluate import beside_mtp, score
from minids.training.optimizer import optimizer

MODEL = DeepSeekV3(support.TINY.replace(first_k_dense_replace=1), seed=0)
LONG = np.arange(40) % 7  # a prompt of more tokens than go through the kernel


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.fixture
def seen(monkeypatch):
    """What the model's layers see; outside there are two threads."""
    if not blas_threads():
        pytest.skip("threadpoolctl does not see this BLAS")
    found = []
    for layer in (FeedForward, Linear):

        def watched(self, *arguments, forward=layer.forward):
            found.append(blas_threads())
            return forward(self, *arguments)

        monkeypatch.setattr(layer, "forward", watched)
    with threadpool_limits(2, user_api="blas"):
        yield found
        assert blas_threads() == {2}, "the number of threads was not put back"
    assert found and all(threads == {1} for threads in found), f"the model saw {found}"


@pytest.mark.parametrize(
    "options",
    [{}, {"cache": "full"}, {"cache": "none"}, {"speculative": True}, {"speculative": True, "cache": "full"}],
    ids=str,
)
def test_the_model_has_one_thread_and_who_reads_its_stream_has_all(seen, options):
    for _ in stream(MODEL, LONG, 4, **options):
        assert blas_threads() == {2}


def test_so_has_a_batch(seen):
    minids.generate_batch(MODEL, [LONG, LONG[:3]], 3)


def test_an_error_within_puts_the_number_back(seen, monkeypatch):
    list(stream(MODEL, LONG, 1))
    monkeypatch.setattr(type(MODEL.norm), "forward", None)
    with pytest.raises(TypeError):
        list(stream(MODEL, LONG, 1))


TOKENS, TARGETS = support.batch(MODEL.config, 1, 9)  # a batch of one


def own_loop():
    """As a notebook has it, with an optimizer whose step multiplies too."""
    model = DeepSeekV3(MODEL.config, seed=1)
    muon = optimizer(model.parameters, TrainConfig(optimizer="muon"))
    for _ in range(2):
        model.parameters.zero_grads()
        model.forward_backward(TOKENS, TARGETS)
        muon.step(0.01)


def block_by_hand():
    x = np.ones((1, 5, MODEL.config.hidden_size), np.float32)
    y, saved = MODEL.blocks[1].forward(x, rotary(MODEL.config, np.arange(5), np.float32))
    MODEL.blocks[1].backward(y, saved, 1.0)


def from_disk(tmp_path):
    minids.save(MODEL, tmp_path / "model")
    minids.generate(load_streamed(tmp_path / "model"), [1, 2], 2)
    x = np.ones((1, 5, MODEL.config.hidden_size), np.float32)
    load_layer(tmp_path / "model", 0).forward(x, rotary(MODEL.config, np.arange(5), np.float32))


def read_a_prompt():
    decoder = Decoder(MODEL)
    decoder.logits(decoder.read(LONG[None])[0])


class Bytes:  # a tokenizer
    def count_bytes(self, ids):
        return np.size(ids)


PATHS = {
    "logits": lambda: MODEL.logits(TOKENS),
    "mtp_logits": lambda: MODEL.mtp_logits(TOKENS),
    "losses": lambda: MODEL.losses(TOKENS, TARGETS),
    "choices": lambda: MODEL.choices(TOKENS, TARGETS),
    "loss_and_grads": lambda: MODEL.loss_and_grads(TOKENS, TARGETS),
    "own loop": own_loop,
    "block by hand": block_by_hand,
    "prefill": read_a_prompt,
    "generate": lambda: minids.generate(MODEL, LONG, 3),
    "evaluate": lambda: (score(MODEL, [(TOKENS, TARGETS)], Bytes()), beside_mtp(MODEL, [(TOKENS, TARGETS)])),
}


@pytest.fixture
def products(monkeypatch):
    """What every product of NumPy's operations sees: what is not theirs would be missed by watching layers."""
    if not blas_threads():
        pytest.skip("threadpoolctl does not see this BLAS")
    found = []
    with minids.use_backend("numpy"):
        for operation in ("linear", "attention", "grouped_feed_forward", "muon"):
            for name in ("forward", "backward", "backward_into", "update"):
                if (inner := getattr(op, operation).__dict__.get(name) or getattr(getattr(op, operation), name, None)) is None:
                    continue

                def watched(*arguments, inner=inner, **named):
                    found.append(blas_threads())
                    return inner(*arguments, **named)

                monkeypatch.setitem(getattr(op, operation).__dict__, name, watched)
        with threadpool_limits(2, user_api="blas"):
            yield found
            assert blas_threads() == {2}, "the number of threads was not put back"
        assert found


@pytest.mark.parametrize("path", PATHS)
def test_every_path_that_multiplies_has_one_thread(products, path):
    PATHS[path]()
    assert all(threads == {1} for threads in products), f"products saw {products}"


def test_so_have_models_whose_weights_stay_on_disk(products, tmp_path):
    from_disk(tmp_path)
    assert all(threads == {1} for threads in products)


@pytest.mark.parametrize("path", PATHS)
def test_who_asks_for_more_gets_them(products, path):
    with threadpool_limits(1, user_api="blas"), minids.use_blas_threads(3):
        PATHS[path]()
    assert all(threads == {3} for threads in products), f"products saw {products}"


def test_the_environment_asks_too(products, monkeypatch):
    monkeypatch.setenv(VARIABLE, "4")
    MODEL.logits(TOKENS)
    with minids.use_blas_threads(2):  # what is said nearer counts
        MODEL.logits(TOKENS)
    assert {4} in products and products[-1] == {2}


@pytest.mark.parametrize("said", ["0", "-1", "many", "2.5", ""])
def test_an_environment_that_asks_for_nonsense_is_refused(monkeypatch, said):
    monkeypatch.setenv(VARIABLE, said)
    with pytest.raises(minids.MinidsError, match=f"^{VARIABLE} = .*at least 1"):
        MODEL.logits(TOKENS)
    monkeypatch.delenv(VARIABLE)
    MODEL.logits(TOKENS)  # nothing of it stays


@pytest.mark.parametrize("count", [0, -2, 1.5, "2", None, True])
def test_asking_for_nonsense_is_refused(count):
    with pytest.raises(minids.MinidsError, match=r"^count = .*at least 1"):
        minids.use_blas_threads(count)


@pytest.mark.parametrize("first_out", ["main", "other"])
def test_two_threads_leave_the_number_as_it_was(first_out):
    entered, leave = threading.Event(), threading.Event()

    def other():
        with one_blas_thread():
            entered.set()
            leave.wait()

    threadpool_limits(2, user_api="blas")  # as a program begins: set, by no block
    thread = threading.Thread(target=other)
    with one_blas_thread():
        thread.start()
        entered.wait()
        if first_out == "other":
            leave.set()
            thread.join()
            assert blas_threads() == {1}, "this thread is still at work"
    if first_out == "main":
        assert blas_threads() == {1}, "the other thread is still at work"
        leave.set()
        thread.join()
    assert blas_threads() == {2}
    with threadpool_limits(3, user_api="blas"):  # and whoever wants to set it now may
        assert blas_threads() == {3}
