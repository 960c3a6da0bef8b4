"""Notebook 11: its checks name the usual mistakes; what is printed of a corpus and read from attention."""

import numpy as np
import pytest

from minids.backend import use_backend
from minids.checkpoint.tokenizer import byte_tokenizer
from minids.lab import notebook
from minids.lab.lessons import tiny_run
from minids.training.corpus import load_corpus


def in_three(theta, g, m, v, t, lr):
    return tuple(tiny_run.updated_copy(theta, g, m, v, t, lr))


@pytest.mark.parametrize(
    "name, right", [("rate", tiny_run.of_the_schedule), ("adamw_step", in_three), ("max_vio", tiny_run.from_counts)]
)
def test_a_check_accepts_the_right_answer_and_refuses_none(name, right):
    check = getattr(tiny_run, f"check_{name}")
    assert check(right)
    assert not check(lambda *arguments: None)


@pytest.mark.parametrize(
    "name, wrong, said",
    [("adamw_step", "decay_in_the_gradient", "not AdamW"), ("max_vio", "without_the_idle", "nobody chose")],
)
def test_a_usual_mistake_is_named(name, wrong, said):
    report = getattr(tiny_run, f"check_{name}")(getattr(tiny_run, wrong))
    assert not report and said in str(report)


def test_a_head_that_looks_at_itself_looks_no_character_back_and_one_before_looks_one():
    itself, before = np.eye(12), np.eye(12, k=-1)
    assert tiny_run.characters_back(np.stack([itself, before])).tolist() == [0, 1]


def test_every_domain_has_windows_that_fit_and_loads_whose_mean_is_one(capsys):
    corpus = load_corpus("builtin")
    tiny_run.domains(corpus)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(corpus.domains)
    found = tiny_run.windows(corpus.split(0.05)[1], byte_tokenizer(), batches=1)
    assert set(found) == set(corpus.domains)
    assert all(x.shape == y.shape == (8, 96) for pieces in found.values() for x, y in pieces)
    model = notebook.model()
    with use_backend("numpy"):
        loads = tiny_run.loads(model, [(x[:, :32] % model.config.vocab_size, y[:, :32]) for x, y in found["prose"]])
    np.testing.assert_allclose(loads.mean(axis=1), 1)


def test_what_is_written_stands_on_one_line():
    with use_backend("numpy"):  # as on the page
        said = tiny_run.written(notebook.model(), "What is 3 + 4?\n", length=20)
    assert said.startswith("'What is 3 + 4?' → ") and "\n" not in said
