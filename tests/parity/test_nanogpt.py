"""The yardstick of the race is nanoGPT's model and recipe: sizes, what is trained, what it is told, and that it learns."""

import numpy as np
import pytest

from minids.config import ModelConfig
from minids.lab.bench import nanogpt, race
from minids.lab.bench.nanogpt import NanoGPT
from minids.lab.studies.training import text
from minids.model import IGNORE
from minids.training.batches import validation_windows

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "words.txt"
    path.write_text("the cat sat on the mat, and so did I. " * 200)
    return text((str(path),), 0.1, "chars")


def test_it_has_the_parameters_of_nanogpt_and_no_biases(corpus):
    peer = NanoGPT(corpus.training, 65, 1)
    embeddings, block = (65 + 64) * 128, 12 * 128**2 + 2 * 128
    assert peer.parameters == embeddings + 4 * block + 128  # head and embedding are one; 0.80 M
    before = {name: p.detach().clone() for name, p in peer.model.named_parameters()}
    steps = peer.training()
    for _ in range(2):
        next(steps)
    for name, p in peer.model.named_parameters():
        assert bool((p == before[name]).all()) == name.endswith("bias"), name
        assert not name.endswith("bias") or not p.any(), f"{name} is not 0"


def test_it_learns_and_its_validation_is_the_mean_over_the_characters(corpus):
    peer = NanoGPT(corpus.training, corpus.tokenizer.vocab_size, 1)
    stream = corpus.held_out["words"]
    windows = list(validation_windows(stream.tokens, 8, nanogpt.LENGTH, None))
    assert peer.validation(windows, IGNORE) == pytest.approx(np.log(corpus.tokenizer.vocab_size), abs=0.5)
    for _, _ in zip(range(40), peer.training(), strict=False):
        pass
    whole = peer.validation(windows, IGNORE)
    assert whole < 2.5
    counts = [int((targets != IGNORE).sum()) for _, targets in windows]
    apart = [peer.validation([window], IGNORE) for window in windows]
    assert sum(counts) == len(stream) - 1
    assert whole == pytest.approx(np.average(apart, weights=counts), rel=1e-5)


def test_the_race_against_it_by_turns(tmp_path, monkeypatch):
    (tmp_path / "words.txt").write_text("the cat sat on the mat, and so did I. " * 400)
    small = ModelConfig.preset("shakespeare").replace(hidden_size=16, num_hidden_layers=2, moe_intermediate_size=8)
    monkeypatch.setattr(ModelConfig, "preset", lambda name: small)
    monkeypatch.setattr(race, "TURN", 3072)  # three steps of ours and four of theirs
    found = race.run(1, 1, "torch", (str(tmp_path / "words.txt"),))
    ours, theirs = found["racers"]["minids"], found["racers"]["nanoGPT"]
    assert ours["times_as_fast_as"]["nanoGPT"] == pytest.approx(1 / theirs["times_as_fast_as"]["minids"])
    assert theirs["loss"] < np.log(16) and theirs["parameters"] > 790_000
    assert found["characters"] == 3072 and found["curve"][-1]["loss"] == ours["loss"]
    assert "times as fast: " in race.table(found)
