"""Arms compared seed by seed, on numbers worked out by hand."""

import math

import numpy as np
import pytest

from minids.lab.studies.compare import above, below, decided, difference, paired, student
from minids.lab.studies.study import Summary


def summary(*values):
    return Summary(sum(values) / len(values), 0.0, values)


@pytest.mark.parametrize(
    ("degrees", "printed"),
    [(1, 12.7062), (2, 4.3027), (4, 2.7764), (10, 2.2281), (11, 2.2010), (20, 2.0860), (60, 2.0003), (10**6, 1.96)],
)
def test_quantiles_are_those_of_the_printed_tables(degrees, printed):
    assert student(degrees) == pytest.approx(printed, abs=2e-4)


def test_an_interval_by_hand():
    """Differences 1, 2, 3: mean 2, s = 1, t = 4.3027, so 2 ± 4.3027 / √3 = 2 ± 2.4841."""
    found = paired(summary(2.0, 4.0, 6.0), summary(1.0, 2.0, 3.0))
    assert found.mean == 2 and found.spread == 1
    assert (found.low, found.high) == pytest.approx((-0.4841, 4.4841), abs=1e-4)
    assert found.sign == 0 and found.told("+.2f") == "difference +2.00 [-0.48, +4.48]"


def test_five_seeds_decide_what_three_do_not():
    """The same mean 2 and s = 1.5811 of 0, 1, 2, 3, 4: ± 2.7764 · 1.5811 / √5 = ± 1.9632."""
    found = difference([0.0, 1.0, 2.0, 3.0, 4.0])
    assert (found.low, found.high) == pytest.approx((0.0368, 3.9632), abs=1e-4) and found.sign == 1


def test_seeds_are_paired():
    """Arms that vary widely together: each seed shows the same difference, and it is found."""
    a, b = summary(1.0, 5.0, 9.0), summary(1.1, 5.1, 9.1)
    assert paired(a, b).sign == -1
    with pytest.raises(ValueError, match="zip"):
        paired(a, summary(1.0, 2.0))


def test_noise_helps_no_claim():
    noisy, other = summary(1.0, 2.1, 3.2), summary(1.2, 2.0, 3.0)
    for judge in (below, above):
        for pair in ((noisy, other), (other, noisy)):
            assert judge("x", *pair).holds is None
    equal = summary(1.0, 2.0)
    assert below("x", equal, equal).holds is None, "no difference is no difference"


def test_a_claim_holds_on_one_side_of_zero_and_fails_on_the_other():
    low, high = summary(1.0, 2.0, 3.0), summary(2.0, 3.01, 4.0)
    assert below("x", low, high).holds is True and above("x", low, high).holds is False
    assert below("x", high, low).holds is False and above("x", high, low).holds is True
    said = below("x", low, high, "loss: ", "; 5 % faster").numbers
    assert said == "loss: 2.0000 against 3.0033, difference -1.0033 [-1.0177, -0.9890]; 5 % faster"
    assert (decided(-1), decided(0), decided(1)) == (False, None, True)


def test_one_seed_decides_nothing():
    found = paired(summary(1.0), summary(9.0))
    assert found.sign == 0 and math.isinf(found.high) and found.told() == "difference -8.0000, of one seed"


def test_a_bound_is_kept_where_the_whole_interval_keeps_it():
    assert difference([0.1, 0.11, 0.12]).within(0.2) is True
    assert difference([0.3, 0.31, 0.32]).within(0.2) is False and difference([-0.3, -0.31, -0.32]).within(0.2) is False
    assert difference([0.1, 0.2, 0.3]).within(0.2) is None


def test_the_interval_holds_the_truth_in_95_of_100_studies():
    draws = np.random.default_rng(0).normal(0.5, 1.0, (4000, 3))
    held = np.mean([low <= 0.5 <= high for _, _, low, high in map(difference, draws.tolist())])
    assert held == pytest.approx(0.95, abs=0.01)
