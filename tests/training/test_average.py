"""The moving average of the weights: its formula, that weights come back to the bit, and runs that keep and write it."""

import numpy as np
import pytest
import small_run
from small_run import lines, quiet, stop_after, write_text

import minids
from minids.config import TrainConfig
from minids.errors import MinidsError
from minids.layers.parameters import Parameters
from minids.training.average import WeightAverage
from minids.training.run import Run


def some_parameters():
    parameters = Parameters()
    parameters.add("w", (3, 2))
    parameters.allocate(np.float64)
    return parameters


def test_it_is_the_weighted_mean_of_all_weights_after_steps():
    parameters, rng, d = some_parameters(), np.random.default_rng(0), 0.8
    parameters.values[...] = 1e9  # initial weights must not count
    average, weights = WeightAverage(parameters, d), []
    for _ in range(7):
        parameters.values[...] = rng.normal(size=6)
        weights.append(parameters.values.copy())
        average.update()
    shares = d ** np.arange(6, -1, -1.0)
    np.testing.assert_allclose(average.values, shares @ np.array(weights) / shares.sum(), rtol=1e-6)


def test_weights_come_back_to_the_bit_even_after_an_error():
    parameters = some_parameters()
    parameters.values[...] = np.arange(6) / 7
    average = WeightAverage(parameters, 0.9)
    average.values[...] = 5
    before = parameters.values.copy()
    with pytest.raises(ZeroDivisionError), average.in_place():
        assert (parameters.values == 5).all()
        raise ZeroDivisionError
    assert parameters.values.tobytes() == before.tobytes()


RUN = small_run.RUN.replace(steps=8, eval_every=4, save_every=4, ema_decay=0.7, ema_save=True)


def test_a_run_keeps_it_validates_it_writes_it_and_resumes_with_it(tmp_path):
    text = write_text(tmp_path)
    Run.start(tmp_path / "plain", small_run.MODEL, RUN.replace(ema_decay=0.0, ema_save=False), text, "tiny", quiet).run()
    said = []
    Run.start(tmp_path / "whole", small_run.MODEL, RUN, text, "tiny", said.append).run()
    assert any("averaged weights: rhyme" in line for line in said)
    training = Run.start(tmp_path / "parts", small_run.MODEL, RUN, text, "tiny", quiet)
    stop_after(training, 3)
    training.run()
    Run.resume(tmp_path / "parts", say=quiet).run()
    assert [line for line in lines(tmp_path / "whole")] == lines(tmp_path / "parts")
    last = "step-000008"
    for name in ("average.safetensors", "ema/model.safetensors", "model.safetensors"):
        assert (tmp_path / "whole" / last / name).read_bytes() == (tmp_path / "parts" / last / name).read_bytes(), name
    plain = tmp_path / "plain" / last / "model.safetensors"
    assert plain.read_bytes() == (tmp_path / "whole" / last / "model.safetensors").read_bytes(), "the run itself has changed"
    averaged, own = minids.load(tmp_path / "whole" / last / "ema"), minids.load(tmp_path / "whole")
    assert averaged.tokenizer is not None and not np.array_equal(averaged.parameters.values, own.parameters.values)
    validated = [line for line in lines(tmp_path / "whole") if "validation" in line]
    assert "validation_of_average" not in validated[0], "before the first step there is none"
    assert validated[-1]["validation_of_average"] != validated[-1]["validation"]


def test_a_damaged_average_is_no_model(tmp_path):
    Run.start(tmp_path / "run", small_run.MODEL, RUN, write_text(tmp_path), "tiny", quiet).run()
    file = tmp_path / "run" / "step-000008" / "ema" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(MinidsError, match="is not what was written"):
        minids.load(file.parent)


def test_what_cannot_be_is_refused():
    with pytest.raises(MinidsError, match="ema_save = True: there is no average to write"):
        TrainConfig(ema_save=True)
    with pytest.raises(MinidsError, match=r"ema_decay = 1\.0: must lie between 0 and 1"):
        TrainConfig(ema_decay=1.0)
