"""What ``minids bench speculation`` measures is what it says, and the table shows it."""

import numpy as np
import pytest
from small_run import MODEL as SMALL
from small_run import RUN, quiet, write_text
from support import TINY, build

from minids.cli import main
from minids.inference.generate import generate
from minids.lab.bench import speculation
from minids.training.run import Run

MODEL = build(TINY.replace(num_nextn_predict_layers=1), dtype=np.float32)
DOCUMENTS = [np.arange(40) % 19, np.arange(50) % 7]

ROW = {
    "acceptance": [0.5],
    "tokens_per_pass": 1.5,
    "tokens_per_second": {"without": 1.0, "with guesses": 1.0},
    "times_as_fast": 1.0,
    "same_text": True,
}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(speculation, "PROMPT", 8)


def test_both_ways_write_the_same_text_and_are_in_the_table(monkeypatch):
    written = []
    real = speculation.stream
    monkeypatch.setattr(speculation, "stream", lambda m, start, n, **o: written.append((start, o)) or real(m, start, n, **o))
    domain = speculation.on_domain(MODEL, DOCUMENTS, 1, new_tokens=12, prompts=2)
    assert domain["same_text"] and 1 <= domain["tokens_per_pass"] <= 2 and domain["times_as_fast"] > 0
    assert len(written) == 2 * 2 * 2, "two passages, two ways, two turns"
    assert [start for start, o in written if "speculative" in o] == [start for start, o in written if "speculative" not in o]
    assert len(domain["tokens_per_second"]) == 2 and all(value > 0 for value in domain["tokens_per_second"].values())
    parts = speculation.parts(MODEL, DOCUMENTS, 1, context=8)
    assert len(parts) == 4 and all(value > 0 for value in parts.values())
    found = {"prompts": 2, "new_tokens": 12, "domains": {"prose": domain}, "milliseconds": parts}
    text = speculation.table(found | {"weights": speculation.weights(MODEL.config)})
    for part in ("prose", "the same", "2 tokens", "guess after 1", "2 passages"):
        assert part in text


def test_passages_are_spread_over_the_documents():
    found = speculation.passages([np.arange(10), np.arange(10, 21)], 3, 5)
    assert [passage.tolist() for passage in found] == [[0, 1, 2, 3, 4], [8, 9, 10, 11, 12], [16, 17, 18, 19, 20]]
    assert [len(passage) for passage in speculation.passages([np.arange(3)], 2, 5)] == [3, 3]


def test_a_text_that_is_not_the_same_is_called_so(monkeypatch):
    real = speculation.stream

    def other(model, start, n, **options):
        found = list(real(model, start, n, **options))
        if options.get("speculative"):
            found[-1] = found[-1]._replace(id=found[-1].id + 1)
        return iter(found)

    monkeypatch.setattr(speculation, "stream", other)
    domain = speculation.on_domain(MODEL, DOCUMENTS, 1, new_tokens=6, prompts=1)
    assert not domain["same_text"]
    found = {"prompts": 1, "new_tokens": 6, "domains": {"prose": domain}, "milliseconds": {}}
    assert "NOT THE SAME" in speculation.table(found | {"weights": speculation.weights(MODEL.config)})
    assert len(generate(MODEL, DOCUMENTS[0][:8], 6)) == 6


def test_what_the_weights_allow_is_what_both_ways_read():
    """By hand: a step reads 10; two tokens 15; the guess 2 after one token and 3 after two. Half of the guesses stand."""
    read = {"1 token": 10, "2 tokens": 15, "guess after 1": 2, "guess after 2": 3}
    assert speculation.allowed(1.5, read) == pytest.approx(1.5 * 10 / (15 + 2.5))
    assert speculation.allowed(2, read) == pytest.approx(2 * 10 / 18)
    table = speculation.table({"prompts": 1, "new_tokens": 1, "domains": {"code": ROW}, "milliseconds": {}, "weights": read})
    assert "code 0.86 times as fast; if every guess stood, 1.11." in table


def test_the_command_measures_the_folder_of_a_run(tmp_path, capsys):
    run = RUN.replace(steps=2, save_every=2, eval_every=2)
    Run.start(tmp_path / "run", SMALL, run, write_text(tmp_path), "tiny", quiet).run()
    assert main(["bench", "speculation", "--checkpoint", str(tmp_path / "run"), "--rounds", "1", "--threads", "1"]) == 0
    shown = capsys.readouterr().out
    assert "rhyme" in shown and "the same" in shown


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["speculation"], "say --checkpoint"),
        (["speculation", "--checkpoint", "nowhere"], "holds no run"),
        (["speculation", "--checkpoint", "nowhere", "--against", "torch"], "does not concern bench speculation"),
        (["decode", "--checkpoint", "nowhere"], "concerns bench speculation"),
    ],
)
def test_what_cannot_be_measured_is_said_in_a_line(line, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *line]) == 2
    assert message in capsys.readouterr().err
