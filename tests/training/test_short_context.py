"""Short sequences at first: the same tokens, a course in shares of the run, and a run that resumes before the context grows."""

import numpy as np
import pytest
import small_run
from small_run import lines, quiet, stop_after, write_text

from minids.config import TrainConfig
from minids.errors import MinidsError
from minids.training.batches import Batches, TokenStream
from minids.training.run import Run
from minids.training.short_context import context, supply

RUN = TrainConfig(
    steps=10, batch_size=3, context_length=8, short_context=4, short_context_until=0.6, gradient_accumulation_steps=2
)
STREAM = TokenStream(np.arange(1000) % 50, np.array([0, 1000]))


def batches() -> Batches:
    return Batches(STREAM, 3, 8, np.random.default_rng(0))


def test_a_step_has_the_same_tokens_in_shorter_rows():
    plain, short = batches(), supply(batches(), RUN)
    for step in range(RUN.steps):
        for _ in range(2):
            (tokens, targets), (rows, following) = plain.next(), short.next()
            length = 4 if step < 6 else 8
            assert rows.shape == following.shape == (24 // length, length) and context(step, RUN) == length
            np.testing.assert_array_equal(rows.ravel(), tokens.ravel())
            np.testing.assert_array_equal(following.ravel(), targets.ravel())


def test_without_it_nothing_is_put_around_the_batches():
    alone = batches()
    assert supply(alone, RUN.replace(short_context_until=0.0)) is alone
    assert {context(step, RUN.replace(short_context_until=0.0)) for step in range(10)} == {8}


def test_a_context_that_is_short_already_stays():
    assert {context(step, RUN.replace(context_length=3)) for step in range(10)} == {3}


def test_it_goes_with_a_batch_that_grows():
    both = supply(batches(), RUN.replace(batch_ramp_until=0.5, batch_ramp_from=0.34))
    assert [both.next()[0].shape for _ in range(2)] == [(2, 4), (2, 4)]


def test_a_run_resumes_before_its_context_grows(tmp_path):
    text = write_text(tmp_path)
    length = small_run.RUN.context_length
    run = small_run.RUN.replace(steps=10, eval_every=10, save_every=10, short_context=length // 2, short_context_until=0.7)
    Run.start(tmp_path / "whole", small_run.MODEL, run, text, "tiny", quiet).run()
    training = Run.start(tmp_path / "parts", small_run.MODEL, run, text, "tiny", quiet)
    stop_after(training, 4)
    training.run()
    Run.resume(tmp_path / "parts", say=quiet).run()
    assert lines(tmp_path / "whole") == lines(tmp_path / "parts")
    Run.start(tmp_path / "long", small_run.MODEL, run.replace(short_context_until=0.0), text, "tiny", quiet).run()
    assert lines(tmp_path / "whole") != lines(tmp_path / "long"), "the option does nothing"


@pytest.mark.parametrize("changes", [dict(short_context=3), dict(short_context_until=1.5), dict(short_context=0)])
def test_what_cannot_be_cut_is_refused(changes):
    with pytest.raises(MinidsError, match="short_context"):
        RUN.replace(**changes)
