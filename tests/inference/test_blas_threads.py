"""Generating holds BLAS to one thread while the model is at work, and to none between two tokens."""

import threading

import numpy as np
import pytest
import support
from threadpoolctl import threadpool_info, threadpool_limits

import minids
from minids.blas import one_blas_thread
from minids.inference.generate import stream
from minids.layers.basic import Linear
from minids.layers.feed_forward import FeedForward
from minids.model import DeepSeekV3

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


def test_two_threads_leave_the_number_as_it_was():
    entered, leave = threading.Event(), threading.Event()

    def other():
        with one_blas_thread():
            entered.set()
            leave.wait()

    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        thread = threading.Thread(target=other)
        with one_blas_thread():
            thread.start()
            entered.wait()
        leave.set()
        thread.join()
        assert blas_threads() == before
