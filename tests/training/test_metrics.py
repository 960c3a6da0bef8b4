"""MaxVio, bits per byte, and a metrics file without double or torn lines."""

import math

import numpy as np
import pytest

from minids.errors import MinidsError
from minids.training.metrics import MetricsFile, bits_per_byte, max_violation, read_metrics


def test_max_violation_is_zero_when_even_and_largest_when_k_experts_take_all():
    even, worst = [5] * 8, [10, 10] + [0] * 6
    assert max_violation([even, worst]).tolist() == [0.0, 8 / 2 - 1]


def test_a_uniform_guess_over_256_bytes_costs_eight_bits_a_byte():
    assert bits_per_byte(100 * math.log(256), 100) == pytest.approx(8.0)


def test_lines_behind_the_checkpoint_are_written_again_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path)
    file.write({"step": 1})
    kept = file.sync()
    file.write({"step": 2, "run": "first"})
    file.close()
    with path.open("ab") as torn:
        torn.write(b'{"step": 3, "ru')  # killed while writing
    file = MetricsFile(path, kept)
    file.write({"step": 2, "run": "resumed"})
    file.close()
    assert read_metrics(path) == [{"step": 1}, {"step": 2, "run": "resumed"}]


def test_half_a_line_of_those_that_counted_is_cut_off(tmp_path):
    """A power cut: the checkpoint is on the disk, the last bytes of the metrics it counted on are not."""
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2, "lo')
    assert read_metrics(path) == [{"step": 1}]
    file = MetricsFile(path, 100)
    file.write({"step": 3})
    file.close()
    assert read_metrics(path) == [{"step": 1}, {"step": 3}]


def test_a_line_that_is_not_json_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2, "lo{"step": 3}\n')
    with pytest.raises(MinidsError, match="line 2 is not JSON"):
        read_metrics(path)


def test_a_number_that_json_cannot_hold_is_refused(tmp_path):
    file = MetricsFile(tmp_path / "metrics.jsonl")
    with pytest.raises(ValueError):
        file.write({"loss": np.nan})
    file.close()
