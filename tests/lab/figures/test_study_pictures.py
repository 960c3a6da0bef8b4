"""Pictures of studies and measurements: rows are the results' numbers, and what is written on them are the rows."""

import json

import numpy as np
import pytest
from lab.figures.proof import faults, words

from minids import MinidsError
from minids.cli import main
from minids.lab import figures
from minids.lab.bench.sizes import SIZES, A, Size
from minids.lab.figures.balance import STRATEGIES
from minids.lab.figures.picture import distinct, only
from minids.lab.figures.sources import Sources, fingerprint
from minids.lab.figures.training_step import _KINDS
from minids.lab.studies import load, results


def drawn(picture, rows):
    """What is written on a picture, which has no fault in either theme."""
    for theme in ("dark", "light"):
        figure = picture.drawn(rows, theme=theme)
        assert faults(figure) == []
    return words(figure)


def test_load_in_training_and_its_animation():
    even = {load.NO: [2.6, 1.0, 0.2, 0.2], load.BIAS: [1.1, 1.0, 1.0, 0.9]}
    arms = {
        arm: {"details": {"step": [5, 10], "relative_load": [[shares] * 2, [[1.0] * 4] * 2]}} for arm, shares in even.items()
    }
    rows = figures.expert_load_in_training.rows(found={"arms": arms})
    assert [row["times_even"] for row in only(rows, strategy="V3's bias", step=10)] == even[load.BIAS], "of the first layer"
    assert only(rows, strategy="no balancing")[0]["max_vio"] == pytest.approx(1.6)
    shown = drawn(figures.expert_load_in_training, rows)
    assert "2.6 times its share with no balancing, 1.1 times with V3's bias" in shown
    assert "busiest 2.6×" in shown and "idlest 0.9×" in shown
    gif = figures.expert_load_in_training.animate(rows, "light")
    assert gif.startswith(b"GIF89a") and gif == figures.expert_load_in_training.animate(rows, "light")


def test_loads_are_those_of_the_study():
    rows, kept = figures.expert_load_in_training.rows(), results("load")["arms"]
    assert distinct(rows, "strategy") == [STRATEGIES[arm] for arm in kept]
    for arm, held in kept.items():
        first = only(rows, strategy=STRATEGIES[arm], step=held["details"]["step"][0])
        assert [row["times_even"] for row in first] == held["details"]["relative_load"][0][0]
        assert sum(row["times_even"] for row in first) == pytest.approx(16, abs=0.01), "shares of an even load"


def balance(arms):
    def summary(mean, values):
        return {"mean": mean, "spread": 0.01, "values": values}

    held = {
        arm: {"summary": {"loss": summary(np.mean(losses), losses), "max_vio": summary(vio, [vio] * 3)}}
        for arm, (losses, vio) in arms.items()
    }
    return {"seeds": [0, 1, 2], "steps": 400, "arms": held}


def test_dilemma():
    found = balance(
        {
            "none": ([2.0, 2.1, 1.9], 2.5),
            "batch loss 0.1": ([2.05, 2.15, 1.95], 0.4),
            "batch loss 1": ([2.2, 2.3, 2.1], 0.1),
            "bias 0.01": ([2.01, 2.12, 1.9], 0.1),
            "bias 0.03": ([2.02, 2.12, 1.92], 0.3),
        }
    )
    rows = figures.balance_dilemma.rows(found=found)
    arms = {row["arm"]: row for row in rows}
    assert arms["batch loss 1"]["family"] == "loss per batch" and arms["bias 0.03"]["family"] == "bias"
    assert arms["bias 0.01"]["cost"] == pytest.approx(0.01) and arms["bias 0.01"]["cost_spread"] == pytest.approx(0.01)
    assert arms["batch loss 1"]["cost_spread"] == pytest.approx(0, abs=1e-9), "paired: what the seeds have in common is gone"
    shown = drawn(figures.balance_dilemma, rows)
    assert "from 2.5 to 0.10 and the loss by +0.010 ± 0.010, a loss as even by +0.200 ± 0.000" in shown


def test_dilemma_of_the_kept_study():
    kept = results("balance")["arms"]
    for row in figures.balance_dilemma.rows():
        numbers = kept[row["arm"]]["summary"]
        assert row["max_vio"] == numbers["max_vio"]["mean"] and row["loss"] == numbers["loss"]["mean"]
        assert row["cost"] == pytest.approx(numbers["loss"]["mean"] - kept["none"]["summary"]["loss"]["mean"])


def test_fp8_training():
    rows = figures.fp8_training.rows()
    kept = results("fp8")["arms"]
    last = only(rows, arm="fp8", seed="mean")[-1]
    ends = {arm: np.mean([run["numbers"]["loss"] for run in kept[arm]["runs"]]) for arm in ("fp8", "fp32")}
    assert last["relative"] == pytest.approx(ends["fp8"] / ends["fp32"] - 1)
    assert f"{100 * abs(last['relative']):.2f} %" in drawn(figures.fp8_training, rows)


def test_fp8_training_compares_seed_by_seed_and_says_what_rounding_does():
    ends = {"fp32": (2.0, 4.0, 3.0), "fp8": (2.01, 4.0), "fp32 again": (1.96, 4.02)}  # one run is still to be made
    curves = {"step": [50, 100], "smoothed": [5.0, 4.5]}  # means of 50 steps each: the end is another number
    arms = {
        arm: {"runs": [{"seed": s, "curves": curves, "numbers": {"loss": end}} for s, end in enumerate(values)]}
        for arm, values in ends.items()
    }
    rows = figures.fp8_training.rows(found={"arms": arms})
    assert [only(rows, arm="fp8", seed=s)[-1]["relative"] for s in (0, 1)] == pytest.approx([0.005, 0.0])
    assert only(rows, arm="fp8", seed="mean")[-1]["relative"] == pytest.approx(6.01 / 6 - 1), "of the seeds that both have"
    shown = drawn(figures.fp8_training, rows)
    assert "0.17 % above" in shown and "up to 0.5 %" in shown and "float32 by 2.0 %" in shown


def test_what_absorption_measures():
    rows = figures.absorption.rows(config=A, contexts=(4, 16), rounds=1)
    assert only(rows, group="algebra")[0] == {"group": "algebra", "d_nope": 128, "d_c": 512, "heads": 128}
    per_token = {"absorbed": 32 + 16, "expanded": 32 + 16, "full": 4 * (32 + 16 + 32)}  # numbers cached in a layer
    for way, size in per_token.items():
        short, long = only(rows, way=way)
        assert long["cache_bytes"] == 4 * 4 * 16 * size and short["cache_bytes"] == 4 * 4 * 4 * size
        assert short["milliseconds"] > 0


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


def test_the_parts_of_a_step_make_up_the_whole(monkeypatch):
    small = A.replace(hidden_size=32, num_hidden_layers=2, intermediate_size=48, moe_intermediate_size=16)
    monkeypatch.setitem(SIZES, "A-12x64", Size(small, 2, 16))
    monkeypatch.setattr("minids.lab.figures.training_step.importlib.util.find_spec", lambda name: None)  # without the peer
    rows = figures.step_time.rows(rounds=1)
    whole = {row["contender"]: row["milliseconds"] for row in only(rows, part="whole")}
    assert set(whole) == {"numpy", "numba"} and only(rows, part="whole")[0]["tokens"] == 32
    for name, milliseconds in whole.items():
        parts = {row["part"]: row["milliseconds"] for row in only(rows, contender=name) if row["part"] != "whole"}
        assert sum(parts.values()) == pytest.approx(milliseconds)
        named = [parts[part] for part in ("attention", "linear maps", "AdamW", "cross-entropy", "routing", "experts")]
        assert all(0 < part < milliseconds for part in named), "every operation was seen at work"


def test_what_was_measured_is_kept(tmp_path):
    (tmp_path / "step_time.json").write_text(json.dumps({"rows": [{"contender": "numba"}]}))
    assert Sources(kept=tmp_path).rows(figures.step_time) == [{"contender": "numba"}]


def test_what_was_measured_on_a_run_is_kept_for_its_weights(tmp_path, run):
    name = f"guesses_accepted.{fingerprint(run)}.json"
    (tmp_path / name).write_text(json.dumps({"rows": [{"domain": "prose"}]}))
    assert Sources(str(run), kept=tmp_path).rows(figures.guesses_accepted) == [{"domain": "prose"}]


def test_a_study_without_results_is_refused_by_name(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("minids.lab.figures.sources.kept", lambda name: tmp_path / "none.json")
    assert main(["figures", "12", "--out", str(tmp_path / "out")]) == 2
    assert "needs the results of minids study balance" in capsys.readouterr().err and not (tmp_path / "out").exists()
    with pytest.raises(MinidsError, match="holds no trained model"):
        Sources(run=str(tmp_path)).check([figures.training_run])
