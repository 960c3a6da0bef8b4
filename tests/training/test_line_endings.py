"""Multiple choice: the true ending of a line among two others of the same text."""

import numpy as np
import support

from minids.checkpoint.tokenizer import byte_tokenizer
from minids.config import ModelConfig
from minids.training import line_endings
from minids.training.line_endings import CHOICES, items

LINES = [f"line {i} says that {'ox' * (i % 7)} {i * i} has {i} hooves and {'a' * (i % 5)} tail".encode() for i in range(80)]
TEXT = b"\n".join(LINES)


def test_items_are_lines_of_the_text_with_endings_of_about_one_length():
    found = items([TEXT], 60)
    assert len(found) == 60
    assert items([TEXT], 60) == found
    for item in found:
        assert len(set(item.endings)) == CHOICES
        whole = item.beginning + item.endings[item.true]
        assert whole.split(b"\n")[-1] in LINES and whole in TEXT
        lengths = [len(ending) for ending in item.endings]
        assert max(lengths) - min(lengths) <= 12
    places = np.bincount([item.true for item in found])
    assert len(places) == CHOICES and places.min() > 10, "the true one is always at the same place"


def test_too_few_lines_are_no_measure():
    assert items([b"\n".join(LINES[:30])]) == []
    assert items([b"x\n" * 1000]) == []


def test_the_ending_with_the_least_surprise_per_byte_is_chosen():
    """By hand, from the logits of each text by itself; the endings have different lengths."""
    tokenizer = byte_tokenizer()
    model = support.build(ModelConfig.preset("tiny", num_hidden_layers=2, hidden_size=32), dtype=np.float32)
    model.tokenizer = tokenizer
    asked = [*items([TEXT], 60)[:5], line_endings.Item(b"a", (b" b", b" longer than that", b" c d"), 1)]
    expected = []
    for item in asked:
        start, each = [256, *tokenizer.encode(item.beginning)], []
        for ending in item.endings:
            ids = tokenizer.encode(ending)
            logits = model.logits(np.array([[*start, *ids]]))[0, len(start) - 1 : -1].astype(np.float64)
            log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
            each.append(-log_p[np.arange(len(ids)), ids].mean())
        expected.append(int(np.argmin(each)))
    assert line_endings.chosen(model, asked).tolist() == expected
    right = [item._replace(true=choice) for item, choice in zip(asked, expected, strict=True)]
    assert line_endings.accuracy(model, right) == 1.0
