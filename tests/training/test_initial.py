"""A run that begins from a trained model: the same weights and tokenizer, another text, a fresh optimizer."""

import json

import numpy as np
import pytest
from small_run import MODEL, RUN, close, lines, quiet, stop_after, write_text

import minids
from minids.errors import MinidsError
from minids.training.run import Run


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("initial")
    write_text(folder)
    (folder / "other.txt").write_text("six, seven, eight, nine, ten; then I let it go again.\n\n" * 40)
    run = RUN.replace(steps=8, tokenizer="bpe", bpe_vocab_size=300)
    Run.start(folder / "first", MODEL, run, [str(folder / "rhyme.txt")], "tiny", quiet).run()
    return folder


def further(places, out, source="first", model=MODEL, run=RUN):
    return Run.start(out, model, run, [str(places / "other.txt")], "tiny", quiet, init_from=places / source)


def test_weights_biases_and_tokenizer_are_those_of_the_checkpoint_and_moments_are_not(places, tmp_path):
    run, source = further(places, tmp_path / "run"), minids.load(places / "first")
    close(run)
    assert np.array_equal(run.model.parameters.values, source.parameters.values)
    biases = source.parameters.buffers
    assert any(bias.any() for bias in biases.values())
    assert all(np.array_equal(run.model.parameters.buffers[name], bias) for name, bias in biases.items())
    assert run.tokenizer.files() == source.tokenizer.files() and run.model.config.vocab_size > 258
    assert not any(np.any(moment) for moment in run.optimizer.state().values()), "the optimizer is not fresh"
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    assert described["init_from"]["checkpoint"] == str(places / "first" / "step-000008")
    assert described["init_from"]["asked"] == str(places / "first")


def test_it_starts_better_than_fresh_weights_and_learns_the_other_text(places, tmp_path):
    further(places, tmp_path / "run").run()
    found = [line["validation"]["other"]["bits_per_byte"] for line in lines(tmp_path / "run") if "validation" in line]
    fresh = Run.start(tmp_path / "fresh", MODEL, RUN, [str(places / "other.txt")], "tiny", quiet)
    fresh.validate()
    close(fresh)
    untrained = lines(tmp_path / "fresh")[0]["validation"]["other"]["bits_per_byte"]
    assert found[0] < untrained and found[-1] < found[0]


@pytest.mark.parametrize("stopped_after", [0, 5])
def test_a_resumed_one_is_the_uninterrupted_one_bit_for_bit(places, tmp_path, stopped_after):
    """Also where it was stopped before its first checkpoint, and although its source is another's newest by then."""
    further(places, tmp_path / "whole").run()
    training = further(places, tmp_path / "parts")
    if stopped_after:
        stop_after(training, stopped_after)
        training.run()
    else:
        close(training)
    Run.resume(tmp_path / "parts", {"init_from": str(places / "first")}, say=quiet).run()
    assert lines(tmp_path / "whole") == lines(tmp_path / "parts")
    name = f"step-{RUN.steps:06d}/model.safetensors"
    assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_another_source_at_resuming_is_refused(places, tmp_path):
    close(further(places, tmp_path / "run"))
    with pytest.raises(MinidsError, match="init_from = 'elsewhere'"):
        Run.resume(tmp_path / "run", {"init_from": "elsewhere"}, say=quiet)


def test_settings_may_be_others_but_not_the_shape(places, tmp_path):
    run = further(places, tmp_path / "run", model=MODEL.replace(bias_update_speed=0.5, mtp_loss_weight=0.1))
    close(run)
    assert run.model.config.bias_update_speed == 0.5 and run.model.config.mtp_loss_weight == 0.1
    with pytest.raises(
        MinidsError, match=r"init_from = .*: its model\.embed_tokens\.weight is \(\d+, 16\), this run asks"
    ) as told:
        further(places, tmp_path / "wide", model=MODEL.replace(hidden_size=32))
    assert "--preset" in str(told.value)
    with pytest.raises(MinidsError, match="not there"):
        further(places, tmp_path / "deep", model=MODEL.replace(num_hidden_layers=3))
    assert not (tmp_path / "wide").exists() and not (tmp_path / "deep").exists()


def test_its_own_folder_and_no_folder_are_refused(places, tmp_path):
    with pytest.raises(MinidsError, match="holds a run already"):
        further(places, places / "first")
    with pytest.raises(MinidsError, match="nowhere"):
        further(places, tmp_path / "run", source="nowhere")


def test_a_source_that_changed_before_the_first_checkpoint_is_noticed(places, tmp_path):
    model = minids.load(places / "first")
    minids.save(model, tmp_path / "model")
    close(further(places, tmp_path / "run", source=tmp_path / "model"))
    model.parameters.values[0] += 1
    minids.save(model, tmp_path / "model")
    with pytest.raises(MinidsError, match="other weights"):
        Run.resume(tmp_path / "run", say=quiet)
