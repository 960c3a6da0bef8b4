"""The picture of a run shows the numbers of its metrics file."""

import json

import numpy as np
import pytest

from minids.figures.training_run import _smoothed, draw, training_run

LINES = [
    {"step": 0, "validation": {"prose": {"loss": 5.5, "bits_per_byte": 8.0}, "code": {"loss": 5.5, "bits_per_byte": 7.9}}},
    *({"step": s, "main_loss": 5.0 / s, "mtp_loss": [6.0 / s, 7.0 / s]} for s in (1, 2, 3)),
    {"step": 3, "validation": {"prose": {"loss": 1.5, "bits_per_byte": 2.25}, "code": {"loss": 1.5, "bits_per_byte": 2.75}}},
]


def test_curves_and_labels_are_the_numbers():
    left, right = training_run(LINES).axes
    curves = {line.get_label(): line for line in left.lines}
    assert {"next token", "MTP depth 1", "MTP depth 2"} <= set(curves)
    assert curves["MTP depth 2"].get_xdata().tolist() == [1, 2, 3]
    assert left.lines[0].get_ydata().tolist() == [5.0, 2.5, 5 / 3]
    assert [line.get_label() for line in right.lines] == ["code: 2.75", "prose: 2.25"], "worst first, with the last number"
    assert right.lines[1].get_ydata().tolist() == [8.0, 2.25]
    assert all(axis.get_xlabel() and axis.get_ylabel() and axis.get_title(loc="left") for axis in (left, right))


def test_smoothing_is_a_mean_that_does_not_lag():
    line = np.arange(20.0)
    np.testing.assert_allclose(_smoothed(line), line)
    assert _smoothed(np.array([0.0, 3.0, 0.0]))[1] == pytest.approx(1.0)


def test_the_same_numbers_give_the_same_file(tmp_path):
    files = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
        files.append(draw(tmp_path / name).read_bytes())
    assert files[0] == files[1] and files[0].startswith(b"\x89PNG")


def test_a_run_without_mtp_and_with_one_line_is_drawn_too(tmp_path):
    lines = [LINES[0], {"step": 1, "main_loss": 5.0, "mtp_loss": []}]
    assert len(training_run(lines).axes[0].lines) == 2
