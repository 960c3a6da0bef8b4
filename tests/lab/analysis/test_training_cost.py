"""The bill of training, V3's own and anyone's."""

import math

import pytest

from minids import MinidsError
from minids.config import ModelConfig
from minids.lab.analysis import cost

V3 = ModelConfig.preset("deepseek-v3")


def test_v3_table_1():
    assert cost.v3_gpu_hours() == 2_788_000
    assert cost.v3_dollars() == 5_576_000
    assert cost.V3_GPU_HOURS["pre-training"] == cost.V3_TOKENS / 1e12 * 180_000, "180K hours a trillion tokens"


def test_the_model_reproduces_v3s_bill():
    bill = cost.training_cost(V3, cost.V3_TOKENS, gpus=cost.V3_GPUS)
    assert bill.gpu_hours == pytest.approx(2_664_000, rel=0.005)
    assert bill.dollars == 2 * bill.gpu_hours
    assert bill.days == pytest.approx(54.2, rel=0.005)
    assert round(bill.flops / 1e24, 2) == 3.71


def test_cost_follows_its_inputs():
    base = cost.training_cost(V3, 1e12)
    assert cost.training_cost(V3, 2e12).gpu_hours == pytest.approx(2 * base.gpu_hours)
    assert cost.training_cost(V3, 1e12, utilisation=cost.V3_UTILISATION / 2).dollars == pytest.approx(2 * base.dollars)
    assert cost.training_cost(V3, 1e12, price=3).dollars == pytest.approx(1.5 * base.dollars)
    assert cost.training_cost(V3, 1e12, peak=2 * cost.H800_PEAK).gpu_hours == pytest.approx(base.gpu_hours / 2)


@pytest.mark.parametrize(
    "wrong",
    [
        *(dict(utilisation=0), dict(utilisation=1.5), dict(utilisation=math.nan), dict(peak=0), dict(peak=math.inf)),
        *(dict(price=-1), dict(price=math.nan), dict(gpus=0), dict(tokens=-1), dict(tokens=math.nan), dict(tokens=math.inf)),
    ],
)
def test_impossible_inputs_are_refused(wrong):
    with pytest.raises(MinidsError, match=next(iter(wrong))):
        cost.training_cost(V3, **({"tokens": 1e12} | wrong))
