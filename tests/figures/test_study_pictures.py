"""Pictures of studies and measurements: rows are the results' numbers, and what is written on them are the rows."""

import json

import numpy as np
import pytest
from figures.proof import faults, words

from minids import MinidsError, figures
from minids.cli import main
from minids.figures.picture import only
from minids.figures.sources import Sources
from minids.figures.training_step import _KINDS
from minids.studies import results


def drawn(picture, rows):
    """What is written on a picture, which has no fault in either theme."""
    for theme in ("dark", "light"):
        figure = picture.drawn(rows, theme=theme)
        assert faults(figure) == []
    return words(figure)


def test_load_in_training_and_its_animation():
    rows = [
        {"strategy": name, "step": step, "expert": e, "times_even": even[e], "max_vio": max(even) - 1}
        for name, even in (("no balancing", [2.6, 1.0, 0.2, 0.2]), ("bias", [1.1, 1.0, 1.0, 0.9]))
        for step in (5, 10)
        for e in range(4)
    ]
    shown = drawn(figures.expert_load_in_training, rows)
    assert "2.6 times its share with no balancing, 1.1 times with the bias" in shown
    gif = figures.expert_load_in_training.animate(rows, "light")
    assert gif.startswith(b"GIF89a") and gif == figures.expert_load_in_training.animate(rows, "light")


def balance(arms):
    summary = lambda loss, vio: {k: {"mean": v, "spread": 0.01, "values": [v]} for k, v in (("loss", loss), ("max_vio", vio))}  # noqa: E731
    return {"seeds": [0, 1, 2], "steps": 400, "arms": {arm: {"summary": summary(*numbers)} for arm, numbers in arms.items()}}


def test_dilemma():
    found = balance(
        {
            "none": (2.0, 2.5),
            "batch loss 0.1": (2.05, 0.4),
            "batch loss 1": (2.2, 0.1),
            "bias 0.01": (2.01, 0.1),
            "bias 0.03": (2.02, 0.3),
        }
    )
    rows = figures.balance_dilemma.rows(found=found)
    assert {row["arm"]: row["family"] for row in rows}["batch loss 1"] == "loss per batch"
    shown = drawn(figures.balance_dilemma, rows)
    assert "by its bias to MaxVio 0.10: loss 2.010; by an auxiliary loss to 0.10: 2.200" in shown


def test_fp8_training():
    rows = figures.fp8_training.rows()
    kept = results("fp8")["arms"]
    last = only(rows, arm="fp8", seed="mean")[-1]
    ends = {arm: np.mean([run["curves"]["smoothed"][-1] for run in kept[arm]["runs"]]) for arm in ("fp8", "fp32")}
    assert last["relative"] == pytest.approx(ends["fp8"] / ends["fp32"] - 1)
    assert f"{100 * abs(last['relative']):.2f} %" in drawn(figures.fp8_training, rows)


def test_fp8_training_compares_seed_by_seed_and_says_what_rounding_does():
    ends = {"fp32": (2.0, 4.0, 3.0), "fp8": (2.01, 4.0), "fp32 again": (1.96, 4.02)}  # one run is still to be made
    arms = {
        arm: {"runs": [{"seed": s, "curves": {"step": [50, 100], "smoothed": [5.0, end]}} for s, end in enumerate(values)]}
        for arm, values in ends.items()
    }
    rows = figures.fp8_training.rows(found={"arms": arms})
    assert [only(rows, arm="fp8", seed=s)[-1]["relative"] for s in (0, 1)] == pytest.approx([0.005, 0.0])
    assert only(rows, arm="fp8", seed="mean")[-1]["relative"] == pytest.approx(6.01 / 6 - 1), "of the seeds that both have"
    shown = drawn(figures.fp8_training, rows)
    assert "0.17 % above" in shown and "up to 0.5 %" in shown and "float32 by 2.0 %" in shown


def test_absorption():
    times = {"absorbed": (1.0, 4.0), "expanded": (2.0, 30.0), "full": (1.5, 8.0)}
    rows = [{"group": "algebra", "d_nope": 128, "d_c": 512, "heads": 128}]
    for way, both in times.items():
        rows += [{"group": "time", "way": way, "context": c, "milliseconds": t} for c, t in zip((512, 8192), both, strict=True)]
    assert "at 8K context 7.5 times faster" in drawn(figures.absorption, rows)


def test_step_time():
    rows = [
        {"contender": n, "part": "whole", "milliseconds": t, "size": "A", "tokens": 768}
        for n, t in (("numpy", 90.0), ("numba", 30.0))
    ]
    rows += [{"contender": n, "part": part, "milliseconds": 3.0} for n in ("numpy", "numba") for part in _KINDS]
    assert "3.0 times as fast as in NumPy" in drawn(figures.step_time, rows)


def test_what_was_measured_is_kept(tmp_path):
    (tmp_path / "step_time.json").write_text(json.dumps({"rows": [{"contender": "numba"}]}))
    assert Sources(kept=tmp_path).rows(figures.step_time) == [{"contender": "numba"}]


def test_a_study_without_results_is_refused_by_name(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("minids.figures.sources.kept", lambda name: tmp_path / "none.json")
    assert main(["figures", "12", "--out", str(tmp_path / "out")]) == 2
    assert "needs the results of minids study balance" in capsys.readouterr().err and not (tmp_path / "out").exists()
    with pytest.raises(MinidsError, match="holds no trained model"):
        Sources(run=str(tmp_path)).check([figures.training_run])
