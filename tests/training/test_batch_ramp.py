"""A batch that grows: V3's numbers, equal tokens, and a run that resumes in the middle of the ramp."""

import numpy as np
import pytest
import small_run
from small_run import lines, quiet, stop_after, write_text

from minids.config import ModelConfig, TrainConfig
from minids.errors import MinidsError
from minids.training.batch_ramp import Growing, growing, sequences, share_done, tokens_before
from minids.training.batches import Batches, TokenStream
from minids.training.run import Run
from minids.training.schedule import learning_rate, settings
from minids.training.workers import Workers


@pytest.fixture
def v3(monkeypatch):
    monkeypatch.setattr("minids.config.training.MOST_TOKENS", 2**31)
    return TrainConfig(steps=242_800, batch_size=15_360, context_length=4096, batch_ramp_until=469 / 14_800)


def test_v3_grows_from_a_fifth_over_three_per_cent_of_its_tokens(v3):
    total = tokens_before(v3.steps, v3)
    assert total == pytest.approx(14.8e12, rel=0.01), "242,800 steps make V3's tokens"
    assert sequences(0, v3) == 3072 and sequences(v3.steps - 1, v3) == 15_360
    sizes = [sequences(step, v3) for step in range(v3.steps)]
    assert sizes == sorted(sizes)
    full = sizes.index(15_360)
    assert share_done(full, v3) == pytest.approx(469 / 14_800, rel=0.01)
    half = next(step for step in range(v3.steps) if share_done(step, v3) >= 469 / 14_800 / 2)
    assert sizes[half] == pytest.approx((3072 + 15_360) / 2, rel=0.001), "the batch grows evenly in tokens"


def test_without_a_ramp_shares_of_a_run_are_those_of_its_steps():
    run = TrainConfig(steps=7, batch_size=3, context_length=5)
    assert [share_done(step, run) for step in range(8)] == [step / 7 for step in range(8)]
    assert [sequences(step, run) for step in range(7)] == [3] * 7 and tokens_before(4, run) == 60
    stream = TokenStream(np.arange(40), np.array([0, 40]))
    batches = Batches(stream, 3, 5, np.random.default_rng(0))
    assert growing(batches, run) is batches


def test_tokens_are_those_that_were_given_out():
    run = TrainConfig(steps=30, batch_size=10, context_length=8, gradient_accumulation_steps=2, batch_ramp_until=0.4)
    stream = TokenStream(np.arange(1000) % 50, np.array([0, 1000]))
    supply, seen = Growing(Batches(stream, 10, 8, np.random.default_rng(0)), run), [0]
    for step in range(30):
        sizes = {len(supply.next()[0]) for _ in range(2)}
        assert sizes == {sequences(step, run)}
        seen.append(seen[-1] + 2 * 8 * sizes.pop())
    assert seen == [tokens_before(step, run) for step in range(31)]
    assert sequences(0, run) == 2 and sequences(29, run) == 10


def test_every_course_of_a_run_is_in_shares_of_its_tokens():
    run = TrainConfig(steps=200, batch_size=10, warmup_steps=0, batch_ramp_until=0.5, constant_until=0.5, learning_rate=1.0)
    decays = next(step for step in range(200) if learning_rate(step, run) < 1)
    assert share_done(decays - 1, run) < 0.5 <= share_done(decays, run) and decays > 120, "half of the tokens, not of the steps"
    model = ModelConfig.preset("tiny")
    assert settings(decays, model, run).mtp_loss_weight < model.mtp_loss_weight


def test_fewer_sequences_than_threads_are_shared_by_as_many_as_there_are():
    from minids.model import DeepSeekV3

    model = DeepSeekV3(small_run.MODEL)
    tokens = np.arange(32).reshape(2, 16) % 7
    with Workers(model, 1) as alone:
        alone.zero_grads()
        one = alone.forward_backward(tokens, tokens, 1.0, 0.3).total
        wanted = model.parameters.grads.copy()
    with Workers(model, 3) as three:
        three.zero_grads()
        assert three.forward_backward(tokens, tokens, 1.0, 0.3).total == pytest.approx(one, rel=1e-6)
        np.testing.assert_allclose(model.parameters.grads, wanted, rtol=1e-3, atol=1e-6)


def test_a_run_resumes_in_the_middle_of_the_ramp(tmp_path):
    text = write_text(tmp_path)
    run = small_run.RUN.replace(steps=10, batch_size=5, eval_every=10, save_every=10, batch_ramp_until=0.6, workers=2)
    Run.start(tmp_path / "whole", small_run.MODEL, run, text, "tiny", quiet).run()
    training = Run.start(tmp_path / "parts", small_run.MODEL, run, text, "tiny", quiet)
    stop_after(training, 4)
    training.run()
    Run.resume(tmp_path / "parts", say=quiet).run()
    found = lines(tmp_path / "whole")
    assert found == lines(tmp_path / "parts")
    tokens = [line["tokens"] for line in found if "tokens" in line]
    assert tokens == [tokens_before(step, run) for step in range(1, 11)] and tokens[0] == 16


@pytest.mark.parametrize("changes", [dict(batch_ramp_from=0.0), dict(batch_ramp_until=1.1), dict(batch_ramp_from=1.01)])
def test_what_is_no_share_is_refused(changes):
    with pytest.raises(MinidsError, match="batch_ramp"):
        TrainConfig(**changes)
