"""Experts on GPUs: V3's numbers by arithmetic, every place used, and copies that even out the load."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minids import MinidsError
from minids.lab.analysis.placement import placed, plain, v3_decoding, with_shared


def test_v3s_64_gpus_are_32_shared_and_32_redundant_experts():
    found = v3_decoding()
    assert found.copies[256] == 32, "every token, and 8 of 256 experts each"
    assert found.copies[:256].sum() - 256 == 32
    assert len(found.gpus) == 320 and all(len(held) == 1 for held in found.gpus)
    assert found.imbalance == pytest.approx(320 * 1 / (256 + 32)), "one load of 288 on 320: redundant experts are in reserve"


def test_the_shared_expert_is_one_more_that_every_token_chooses():
    chosen = np.array([[0, 1], [1, 2], [1, 3]])  # (N, K)
    loads = with_shared(np.bincount(chosen.ravel(), minlength=4), 2)
    assert loads.tolist() == [1, 3, 1, 1, 3]


@settings(deadline=None, derandomize=True, max_examples=80)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=12), st.integers(1, 6), st.integers(1, 6))
def test_every_place_is_used_and_no_load_is_lost(loads, gpus, each):
    if gpus * each < len(loads):
        with pytest.raises(MinidsError, match="places"):
            placed(np.array(loads), gpus, each)
        return
    found = placed(np.array(loads), gpus, each)
    assert [len(held) for held in found.gpus] == [each] * gpus
    assert np.bincount(np.concatenate(found.gpus), minlength=len(loads)).tolist() == found.copies.tolist()
    assert found.loads.sum() == pytest.approx(sum(loads))


def test_copies_even_out_a_skewed_load():
    loads = 1000 / np.arange(1, 17)
    before, after = plain(loads, 4), placed(loads, 4, 5)
    assert before.imbalance > 2.4 and after.imbalance < 1.02


def test_what_cannot_be_placed_is_refused():
    for call in (lambda: plain(np.ones(16), 3), lambda: placed(np.ones(4), 0, 5), lambda: plain(np.ones(16), 0)):
        with pytest.raises(MinidsError, match="gpus"):
            call()
