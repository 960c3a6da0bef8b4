"""The study of fill-in-the-middle: the spans it takes out, what counts as found again, and an arm run for two steps."""

import numpy as np

from minids.checkpoint.tokenizer import byte_tokenizer
from minids.lab.studies import fim
from minids.lab.studies.study import Job
from minids.training.corpus import Corpus, Document

SUMS = ("What is 12 + 13?\n12 + 13 = 20 + 5 = 25.\n\n" * 20).encode()
HELD_OUT = Corpus("test", (Document("arithmetic", "1", SUMS), Document("code", "2", b"def name(value): return value\n" * 9)))


def test_spans_are_results_of_sums_and_words_of_code():
    sums, words = fim.cases(HELD_OUT, "arithmetic"), fim.cases(HELD_OUT, "code")
    assert {middle for _, middle, _ in sums} == {"25"} and all(len(a) == len(b) == 40 for a, _, b in sums + words)
    assert {middle for _, middle, _ in words} <= {"def", "name", "value", "return"}
    for prefix, middle, suffix in sums:
        assert prefix + middle + suffix in SUMS.decode()
    assert fim.cases(HELD_OUT, "prose") == []


def test_a_span_counts_when_it_comes_back_to_the_letter_and_ends(monkeypatch):
    tokenizer = byte_tokenizer().with_fim()

    class Model:
        pass

    model = Model()
    model.tokenizer = tokenizer
    monkeypatch.setattr(fim, "infill_ids", lambda model, prefix, suffix: [0])
    answers = [np.array([*b"25", tokenizer.eos_id]), np.array([*b"25"]), np.array([*b"26", tokenizer.eos_id])]
    monkeypatch.setattr(fim, "generate_batch", lambda *arguments, **named: answers)
    spans = [("a", "25", "b")] * 3
    assert fim.filled(model, spans) == ["25", "", "26"], "a middle that does not end is none"
    assert fim.share(spans, fim.filled(model, spans)) == 1 / 3
    assert fim.continued(model, spans) == ["25", "25", "26"], "cut to the length that is missing"


def test_an_arm_runs(tmp_path):
    for document in HELD_OUT.documents:
        (tmp_path / f"{document.domain}.txt").write_bytes(document.text * 12)
    data = tuple(str(tmp_path / f"{name}.txt") for name in ("arithmetic", "code"))
    for arm in (fim.PLAIN, fim.HALF):
        numbers = fim.run(fim.STUDY.arms[arm], Job(arm, 0, 2, data)).numbers
        assert {"loss", "filled_arithmetic", "continued_code"} <= numbers.keys() and all(map(np.isfinite, numbers.values()))
