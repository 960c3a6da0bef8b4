"""The FP8 study: what its arithmetic says without training, and that its arms differ in what they should."""

import numpy as np
import pytest

from minids.config import ModelConfig
from minids.lab.studies import fp8, fp8_errors, fp8_fixed_weights
from minids.lab.studies.base import configs
from minids.lab.studies.study import Job, Summary
from minids.lab.studies.training import text, validate
from minids.model import DeepSeekV3


def pick(rows, **what):
    found = [row for row in rows if all(row[key] == value for key, value in what.items())]
    assert len(found) == 1, f"{len(found)} rows for {what}"
    return found[0]


def test_the_finer_the_tiles_the_less_an_outlier_costs():
    rows = fp8_errors.outliers((1, 1e6), shape=(256, 512))
    for name in fp8_errors.GRANULARITIES:
        assert 0.02 < pick(rows, magnitude=1.0, granularity=name)["error"] < 0.03, (
            "E4M3 rounds by 2^-4 at most, 2.6 % on average"
        )
    fine, block, tensor = (pick(rows, magnitude=1e6, granularity=name) for name in fp8_errors.GRANULARITIES)
    assert fine["error"] < block["error"] < tensor["error"] and tensor["error"] > 0.9
    assert fine["lost"] < 0.01 and tensor["lost"] > 0.9, "per tensor nearly everything became 0"


def test_the_error_of_a_long_sum_grows_without_promotion_and_stays_with_it():
    rows = fp8_errors.accumulation((256, 2048), size=16)
    for numbers in ("positive", "normal"):
        for measure in ("of_largest", "root_mean"):
            at = {
                (terms, name): pick(rows, terms=terms, numbers=numbers, accumulator=name)[measure]
                for terms in (256, 2048)
                for name in fp8_errors.ACCUMULATORS
            }
            exact, promoted, never = fp8_errors.ACCUMULATORS
            assert at[2048, exact] < 1e-5 < at[2048, promoted] < at[2048, never]
            assert at[2048, never] > 1.5 * at[256, never] and at[2048, promoted] < 1.5 * at[256, promoted]


def test_arms_train_the_tiny_preset_and_differ_in_one_thing_each():
    base, run = configs({}, Job(fp8.FP32, 0, 5), fp8.COMMON)
    assert base == ModelConfig.preset("tiny", initializer_range=0.02) and run.steps == 5
    found = {arm: configs(settings, Job(arm, 0, 5), fp8.COMMON) for arm, settings in fp8.ARMS.items()}
    assert found[fp8.FINE][0] == base.replace(precision="fp8")
    assert found[fp8.TENSOR][0] == base.replace(precision="fp8", fp8_scaling="tensor")
    assert found[fp8.NEVER][0] == base.replace(precision="fp8", fp8_promotion=False)
    assert found[fp8.AGAIN][0] == base and found[fp8.AGAIN][1] != run
    assert all(found[arm][1] == run for arm in fp8.ARMS if arm != fp8.AGAIN)


def losses(**changed):
    """Three seeds of every arm: float32 ends at 2, 3 and 4, every other arm as much higher as ``changed`` says."""
    return {arm: {"loss": _summary(changed.get(arm, (0.0, 0.0, 0.0)))} for arm in fp8.ARMS}


def _summary(higher):
    values = tuple(x * (1 + more) for x, more in zip((2.0, 3.0, 4.0), higher, strict=True))
    return Summary(sum(values) / 3, 0.0, values)


@pytest.mark.parametrize(
    ("fine", "holds"),
    [
        ((0.002, 0.0021, 0.0022), True),
        ((0.003, 0.0031, 0.0032), False),
        ((-0.003, -0.0031, -0.0032), False),
        ((0.001, 0.002, 0.003), None),
    ],
)
def test_the_bound_is_a_quarter_of_a_per_cent_on_either_side(fine, holds):
    finding = fp8.findings(losses(**{fp8.FINE: fine}))[0]
    assert finding.holds is holds and f"difference {sum(fine) / 3:+.3%}" in finding.numbers


def test_a_difference_counts_if_every_seed_shows_it():
    """Float32 again ends 1 % off, on either side; of the others only their distance from the fine tiles matters."""
    arms = losses(
        **{fp8.AGAIN: (0.01, -0.01, 0.01), fp8.FINE: (0.005, -0.005, 0.006)},
        **{fp8.TENSOR: (0.02, 0.01, 0.021), fp8.NEVER: (0.03, -0.03, 0.0)},
    )
    assert fp8.differences(arms, fp8.AGAIN) == pytest.approx([0.01, -0.01, 0.01])
    quarter, by_rounding, tensor, never = fp8.findings(arms)
    assert quarter.holds is None and never.holds is None
    assert by_rounding.holds, "half a per cent is less than what rounding does, seed by seed"
    assert "+1.00%, -1.00%, +1.00%" in by_rounding.numbers
    assert tensor.holds and "difference +1.500%" in tensor.numbers
    assert fp8.findings(losses(**{fp8.FINE: (0.02, 0.021, 0.02)}))[1].holds is False


def test_a_short_run_gives_its_curves_and_one_arm_the_errors(monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    for part in range(12):  # documents; some are held out
        (tmp_path / f"{part}.txt").write_bytes(bytes(rng.integers(97, 123, 600, dtype=np.uint8)))
    monkeypatch.setitem(fp8.COMMON["train"], "eval_tokens", 256)
    monkeypatch.setattr(fp8_errors, "outliers", lambda: ["rows of outliers"])
    monkeypatch.setattr(fp8_errors, "accumulation", lambda: ["rows of sums"])
    out = {arm: fp8.run(fp8.ARMS[arm], Job(arm, 0, 3, (str(tmp_path),))) for arm in (fp8.FP32, fp8.FINE)}
    for outcome in out.values():
        assert outcome.curves["step"] == [1, 2, 3] and np.isfinite(list(outcome.numbers.values())).all()
    assert out[fp8.FP32].details == {} and out[fp8.FINE].details["outliers"] == ["rows of outliers"]
    first, other = out[fp8.FP32].curves["loss"], out[fp8.FINE].curves["loss"]
    assert first != other and abs(first[0] - other[0]) < 0.01, "the same text and weights, another arithmetic"


def test_at_the_same_weights_only_the_arithmetic_differs(tmp_path):
    rng = np.random.default_rng(1)
    for part in range(12):
        (tmp_path / f"{part}.txt").write_bytes(bytes(rng.integers(97, 123, 600, dtype=np.uint8)))
    config, run = configs({}, Job(fp8.FP32, 0, 5), fp8.COMMON)
    config, run = config.replace(num_hidden_layers=2), run.replace(eval_tokens=256)
    model = DeepSeekV3(config, 0)
    for bias in model.parameters.buffers.values():
        bias[...] = rng.normal(0, 0.1, bias.shape)
    arms = {"itself": config, "FP8": config.replace(precision="fp8")}
    held = text((str(tmp_path),))
    found = fp8_fixed_weights.readings(model, arms, held, run, 0, batches=2)
    loss = validate(model, held, run).mean_loss
    assert found["validation as itself"] == loss and found["gradient as itself"] == 0
    assert found["validation as FP8"] != loss and found["validation as FP8"] == pytest.approx(loss, rel=0.0025)
    assert 0.01 < found["gradient as FP8"] < 0.3 < found["gradient of another batch"]
    assert found["experts kept as itself"] == 1 and found["prescribed gradient as itself"] == 0
    assert 0.9 < found["experts kept as FP8"] < 1, "FP8's rounding tips some choices over"
    assert 0.01 < found["prescribed gradient as FP8"] < found["gradient as FP8"], "and tipped choices are part of the error"


def test_experts_are_kept_in_any_order():
    before = [np.array([[0, 1], [2, 3]]), np.array([[4, 5]])]
    after = [np.array([[1, 0], [3, 7]]), np.array([[6, 5]])]
    assert fp8_fixed_weights.share_kept(before, after) == 4 / 6
    assert fp8_fixed_weights.share_kept(after, after) == 1
