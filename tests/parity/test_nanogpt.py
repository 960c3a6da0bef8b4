"""The yardstick of the race is nanoGPT's model and recipe: sizes, what is trained, what it is told, and that it learns."""

import numpy as np
import pytest

from minids.bench import nanogpt
from minids.bench.nanogpt import NanoGPT
from minids.model import IGNORE
from minids.studies.training import text
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
