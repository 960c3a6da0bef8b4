"""The race against the clock: both race the characters they may, when a loss was passed, what the yardstick is made of."""

from itertools import islice

import pytest

from minids.cli import main
from minids.config import ModelConfig, TrainConfig
from minids.lab.bench import nanogpt, race
from minids.lab.studies.training import text, training
from minids.training.evaluate import validation
from minids.training.optimizer import optimizer

SMALL = {
    "model": dict(hidden_size=16, num_hidden_layers=2, intermediate_size=24, moe_intermediate_size=8, num_attention_heads=2),
    "train": dict(batch_size=2),
}


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A race of three turns of two steps, with a small model on a small text."""
    (tmp_path / "words.txt").write_text("the cat sat on the mat, and so did I. " * 200)
    for kind, part in ((ModelConfig, "model"), (TrainConfig, "train")):
        config = kind.preset("shakespeare").replace(**SMALL[part])
        monkeypatch.setattr(kind, "preset", lambda name, config=config: config)
    monkeypatch.setattr(race, "TURN", 2 * 2 * 64)
    monkeypatch.setattr(race, "TURNS", 3)
    monkeypatch.setattr(race, "LOOKS", 1)
    return (str(tmp_path / "words.txt"),)


def test_both_see_the_same_number_of_characters_and_no_more_than_the_rules_allow():
    run = TrainConfig.preset("shakespeare")
    assert race.TURN % run.tokens_per_step == 0 and race.TURN % (nanogpt.BATCH * nanogpt.LENGTH) == 0
    assert race.TURNS * race.TURN == race.CHARACTERS == run.steps * run.tokens_per_step
    assert race.CHARACTERS == nanogpt.STEPS * nanogpt.BATCH * nanogpt.LENGTH


def test_a_race_alone_tells_its_losses_and_seconds(small):
    found = race.run(3, 2, None, small)
    row = found["racers"]["minids"]
    assert found["characters"] == 3 * 256 and list(found["racers"]) == ["minids"] and row["times_as_fast_as"] == {}
    assert [look["characters"] for look in found["curve"]] == [256, 512, 768]
    losses = [look["loss"] for look in found["curve"]]
    assert losses[-1] == row["loss"] and losses == sorted(losses, reverse=True) and len(set(losses)) == 3, "it did not learn"
    assert 0 < found["curve"][0]["seconds"] < row["seconds_so_far"] == found["curve"][-1]["seconds"]
    assert f"{row['loss']:.3f}" in race.table(found) and "nanoGPT" not in race.table(found).splitlines()[2]


def test_the_race_trains_as_the_study_does(small):
    """The same recipe and seed: the same model after the same characters."""
    corpus, run = text(small, 0.1, "chars"), TrainConfig.preset("shakespeare")
    *_, (_, _, model) = islice(training(ModelConfig.preset("shakespeare"), run, corpus, 0, optimizer), 6)
    found = validation(model, corpus.held_out, corpus.tokenizer, 8, 64, None)
    assert race.run(3, 1, None, small)["racers"]["minids"]["loss"] == pytest.approx(found["words"]["loss"], rel=1e-6)


def test_when_a_loss_was_passed():
    seconds = [1.0, 2.0, 4.0, 8.0]
    assert race.passed(seconds, [(2, 2.5), (4, 1.5)], goal=2.0) == {"loss": 2.0, "characters": 3 * race.TURN, "seconds": 7.0}
    assert race.passed(seconds, [(2, 2.5), (4, 2.0)], goal=2.0)["seconds"] == 15.0
    assert race.passed(seconds, [(2, 1.0), (4, 0.5)], goal=2.0)["seconds"] == 3.0, "at the first look it was below already"
    assert race.passed(seconds, [(2, 2.5), (4, 2.1)], goal=2.0) is None


def test_nanogpts_learning_rate_warms_up_and_falls_along_a_cosine():
    rates = [nanogpt.learning_rate(step) for step in range(nanogpt.STEPS)]
    assert rates[0] == pytest.approx(1e-3 / 101) and max(rates) == rates[100] == 1e-3
    assert rates[1050] == pytest.approx(5.5e-4) and rates[-1] == pytest.approx(1e-4, rel=1e-4)
    assert rates[100:] == sorted(rates[100:], reverse=True)


BAD = {
    "too many": (["--rounds", "51"], "the whole race has 50"),
    "sizes": (["--sizes", "A-12x64"], "a size of its own"),
    "compiled": (["--against", "torch-compiled"], "say torch"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_one_line(case, capsys):
    arguments, message = BAD[case]
    assert main(["bench", "race", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and message in err
