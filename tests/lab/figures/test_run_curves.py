"""The picture of a run shows the numbers of its metrics file."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from lab.figures.proof import faults, words

from minids import ModelConfig
from minids.lab.figures.picture import only
from minids.lab.figures.training import _smoothed, draw, rows_of, training_run

LINES = [
    {"step": 0, "validation": {"prose": {"loss": 5.5, "bits_per_byte": 8.0}, "code": {"loss": 5.5, "bits_per_byte": 7.9}}},
    *({"step": s, "main_loss": 5.0 / s, "mtp_loss": [6.0 / s, 7.0 / s]} for s in (1, 2, 3)),
    {"step": 3, "validation": {"prose": {"loss": 1.5, "bits_per_byte": 2.25}, "code": {"loss": 1.5, "bits_per_byte": 2.75}}},
]


def rows_from(lines):
    return [{"model": "mine, 1 M parameters, bytes", **row} for row in rows_of(lines)]


def test_curves_and_labels_are_the_numbers():
    rows = rows_from(LINES)
    assert [row["nats"] for row in only(rows, depth=2)] == [7.0, 3.5, 7 / 3]
    figure = training_run.drawn(rows)
    right, left = figure.axes[0].child_axes if len(figure.axes) == 1 else figure.axes[1:]
    curves = [line.get_ydata().tolist() for line in (*left.lines, *right.lines)]
    assert [5.0, 2.5, 5 / 3] in curves and [8.0, 2.25] in curves
    shown = words(figure)
    assert "a byte of held-out prose falls from 8.0 to 2.2 bits" in shown, "the domain that ends best"
    assert all(word in shown for word in ("next", "MTP 1", "MTP 2", "code 2.75", "prose 2.25", "step"))


def test_smoothing_is_a_mean_that_does_not_lag():
    line = np.arange(20.0)
    np.testing.assert_allclose(_smoothed(line), line)
    assert _smoothed(np.array([0.0, 3.0, 0.0]))[1] == pytest.approx(1.0)


def test_the_same_numbers_give_the_same_file(tmp_path):
    files = []
    described = {"preset": "mine", "model": asdict(ModelConfig.preset("tiny")), "train": {"tokenizer": "bytes"}}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps(described))
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
        files.append(draw(tmp_path / name).read_bytes())
    assert files[0] == files[1] and files[0].startswith(b"\x89PNG")


def test_a_run_without_mtp_and_with_one_line_is_drawn_too(tmp_path):
    lines = [LINES[0], {"step": 1, "main_loss": 5.0, "mtp_loss": []}]
    figure = training_run.drawn(rows_from(lines))
    assert "next" in words(figure) and "MTP" not in words(figure)


def test_samples_are_written_below():
    sample = {"group": "sample", "domain": "code", "prompt": "def add(a, b):", "text": "\n    return a + b\n" * 9}
    figure = training_run.drawn([*rows_from(LINES), sample])
    assert "def add(a, b):" in words(figure) and "return" in words(figure)
    assert faults(figure) == []
