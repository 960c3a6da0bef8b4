"""The bench of operations measures every twin, on what a training step gives it."""

from pathlib import Path

import numpy as np
import pytest

import minids
from minids.backend import op
from minids.cli import main
from minids.lab.bench import kernels, machine
from minids.lab.bench.operations import operations
from minids.lab.bench.sizes import SIZES, A, Size

SMALL = Size(A.replace(hidden_size=16, num_hidden_layers=2, intermediate_size=24, moe_intermediate_size=8), 2, 8)

ELSEWHERE = {"balance_loss", "mtp_combine", "decode", "muon"}
"""Twins that a float32 training step of the bench's models does not call, like those of FP8."""


def test_every_twin_is_measured():
    twins = {path.stem for path in (Path(minids.__file__).parent / "kernels").glob("[!_]*.py")}
    twins = {name for name in twins if not name.startswith(("fp8", "float8", "bfloat16", "quantise"))}
    assert twins - ELSEWHERE <= set(operations(SMALL))


def test_bytes_count_every_array_once_per_pass():
    n, d = SMALL.tokens, 16
    operation = operations(SMALL)["rmsnorm"]
    assert operation.bytes == 4 * (5 * n * d + 3 * d), "x in, y out; dy and x in, dx out; the gain likewise"
    assert operation.flops == 0
    assert operations(SMALL)["linear"].flops == 6 * n * d * d


def test_what_is_found_and_printed(monkeypatch, capsys):
    monkeypatch.setitem(SIZES, "A-12x64", SMALL)
    monkeypatch.setattr(kernels, "sgemm_peak", lambda threads: 1e11)
    assert main(["bench", "kernels", "--sizes", "A-12x64", "--rounds", "1"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n{name} " in shown for name in operations(SMALL)), shown
    assert "of sgemm" in shown and "of copy" in shown


def test_forward_keeps_its_result_with_its_backend():
    """What NumPy saved, NumPy's backward gets, whatever was active in between."""
    forward, backward = kernels._serving("numpy", operations(SMALL)["rmsnorm"], op.rmsnorm)
    forward()
    backward()


def test_peers_have_no_single_operations(capsys):
    assert main(["bench", "kernels", "--against", "torch"]) == 2
    assert "against" in capsys.readouterr().err


def test_limits_are_counted_right(monkeypatch):
    monkeypatch.setattr(machine, "alternate", lambda calls, rounds, warm_up: {call: [3.0, 2.0] for call in calls})
    assert machine.sgemm_peak(1, size=8) == pytest.approx(2 * 8**3 / 2)
    assert machine.copy_limit(8192) == pytest.approx(2 * 8192 / 2), "read and written"
    assert np.isfinite(machine.copy_limit(1))
