"""What the reader's own machine can do."""

from types import SimpleNamespace

import numpy as np
import pytest

from minids import MinidsError
from minids.config import ModelConfig
from minids.config.presets import PRESETS
from minids.lab.analysis import laptop

V3 = ModelConfig.preset("deepseek-v3")


def test_v3_on_a_laptop_takes_geological_time():
    run = laptop.training_time(V3, flops_per_second=2e11)
    assert round(run.years, -3) == 587_000
    assert laptop.training_time(V3, flops_per_second=4e11).seconds == run.seconds / 2
    with pytest.raises(MinidsError, match="flops_per_second"):
        laptop.training_time(V3, 0)


def test_measured_speed_is_that_of_the_quickest_product_in_float32(monkeypatch):
    seen, clock = [], iter([0.0, 4.0, 10.0, 12.0, 20.0, 23.0])  # three products: of 4, 2 and 3 seconds
    matmul = np.matmul
    monkeypatch.setattr(np, "matmul", lambda a, b, out: seen.append(a.dtype) or matmul(a, b, out=out))
    monkeypatch.setattr(laptop, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert laptop.measure_flops_per_second(size=8, seconds=9.0) == 2 * 8**3 / 2
    assert seen == [np.float32] * 4, "one before the three that count"


def test_what_fits_into_16_gib():
    fits = {(f.preset, f.form): f for f in laptop.what_fits(16 * 2**30)}
    assert len(fits) == 3 * len(PRESETS)
    assert fits["deepseek-v2-lite", "fp8"].fits and not fits["deepseek-v2-lite", "bf16"].fits
    assert not fits["deepseek-v3", "fp8"].fits and fits["deepseek-v3", "fp8"].context == 0
    lite = fits["deepseek-v2-lite", "fp8"]
    assert lite.context == (16 * 2**30 - 15_706_484_224) // (27 * 576 * 2)
    assert fits["tiny", "fp32"].context == ModelConfig.preset("tiny").max_position_embeddings


def test_pieces_of_v3_that_fit():
    pieces = laptop.pieces_that_fit(V3, 16 * 2**30)
    assert pieces.experts == 2**34 // 44_040_192 == 390
    assert pieces.moe_blocks == 1 and pieces.dense_blocks == 2**34 // 583_483_392
    assert laptop.pieces_that_fit(V3, 16 * 2**30, "bf16").moe_blocks == 0
    assert laptop.pieces_that_fit(V3, 2**40).share == 1
    with pytest.raises(MinidsError, match="form"):
        laptop.pieces_that_fit(V3, 1, "int4")
    with pytest.raises(MinidsError, match="memory"):
        laptop.what_fits(0)


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.25, "0.2 seconds"), (90, "1.5 minutes"), (9000, "2.5 hours"), (3.2 * 86400, "3.2 days")]
)
def test_a_duration_is_said_in_the_largest_unit_of_which_there_is_one(seconds, said):
    assert laptop.duration(seconds) == said
    assert laptop.duration(2000.5 * laptop.YEAR) == "2,000.5 years"


def test_report_tells_of_the_run_that_was_asked_for():
    first = laptop.format_laptop(16 * 2**30, 2e11, "tiny", 2e6, 512).splitlines()[0]
    run = laptop.training_time(ModelConfig.preset("tiny"), 2e11, 2e6, 512)
    assert first == f"training tiny on 2,000,000 tokens is {run.flops:.3g} FLOP: {laptop.duration(run.seconds)} at 200 GFLOP/s"


def test_report_tells_all_of_it():
    text = laptop.format_laptop(16 * 2**30, 2e11)
    assert all(len(line) < 100 for line in text.splitlines())
    assert "3.71e+24 FLOP: 587,298.9 years" in text
    assert "2.56% of it: 390 experts, or 1 MoE block, or 29 dense blocks" in text
    assert sum("does not fit" in line for line in text.splitlines()) == sum(not f.fits for f in laptop.what_fits(16 * 2**30))
